"""The results of classifiers as a table on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dtn_det.corruptions.catalog import GROUPS, SEVERITIES
from dtn_det.datasets.remarks import counted
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.metrics.formulas import Summary, partial_label
from dtn_det.robustness.classification.baseline import BaselineChoice, baseline_remarks
from dtn_det.robustness.classification.results import ClassifierResult
from dtn_det.robustness.store.store import Store

_BAD_SHOWN = 10
_ABSENT = "-"


def print_results(console: Console, store: Store, results: Sequence[ClassifierResult], choice: BaselineChoice) -> None:
    """Print errors and corruption errors of models, a pair of columns for each; another table where the width ends.

    Args:
        console: Where to.
        store: That they are from.
        results: The numbers.
        choice: What the corruption errors were divided by.
    """
    rest = list(results)
    while rest:
        count = len(rest)
        while count > 1 and _natural_width(console, _table(store, rest[:count], choice)) > console.width:
            count -= 1
        console.print(_table(store, rest[:count], choice))
        rest = rest[count:]
    for text in baseline_remarks(choice):
        _say(console, text)
    for result in results:
        _print_remarks(console, result)


def _table(store: Store, results: Sequence[ClassifierResult], choice: BaselineChoice) -> Table:
    table = Table(
        title=escape(f"{store.manifest.data}: {store.manifest.corruption}"), caption=escape(_caption(store, choice))
    )
    table.add_column("corruption")
    for result in results:
        mark = f"\n{_mark(result)}" if result.partial else ""
        table.add_column(escape(f"{result.name}\nerror %{mark}"), justify="right")
        table.add_column(escape(f"\nCE{mark}"), justify="right")
    for names in GROUPS.values():
        _add_group(table, names, results)
    _add_means(table, results)
    return table


def _natural_width(console: Console, table: Table) -> int:
    """Characters that the table would take on a terminal without an end."""
    return console.measure(table, options=console.options.update_width(10_000)).maximum


def _add_group(table: Table, names: Sequence[str], results: Sequence[ClassifierResult]) -> None:
    cells = {name: int((results[0].frame["corruption"] == name).sum()) for name in names}
    shown = [name for name in names if cells[name]]
    for name in shown:
        row = [escape(f"{name} {partial_label(cells[name], len(SEVERITIES))}".rstrip())]
        for result in results:
            row.append(_number(_of(result.errors, name), 100))
            row.append(_number(_of(result.corruption_errors, name)))
        table.add_row(*row, end_section=name == shown[-1])


def _add_means(table: Table, results: Sequence[ClassifierResult]) -> None:
    for which in results[0].errors:
        rows: list[tuple[str, int, float, Callable[[ClassifierResult], Mapping[CorruptionSet, Summary]]]] = [
            ("mean error %", 0, 100, lambda result: result.errors),
            ("mCE", 1, 1, lambda result: result.corruption_errors),
            ("relative mCE", 1, 1, lambda result: result.relative),
        ]
        for title, column, factor, get in rows:
            cells = [""] * (2 * len(results))
            for number, result in enumerate(results):
                cells[2 * number + column] = _mean(get(result).get(which), factor, _mark(result))
            table.add_row(title + ("" if which == "benchmark" else " (4 extra)"), *cells)
    clean = [_marked(_number(result.clean_error, 100), _mark(result)) for result in results]
    table.add_row("clean error %", *(cell for text in clean for cell in (text, "")))
    images = [f"{int(result.frame['num_images'].iloc[0]):,}" for result in results]
    table.add_row("images", *(cell for text in images for cell in (text, "")))


def _of(summaries: Mapping[CorruptionSet, Summary], corruption: str) -> float | None:
    return next((one.by_corruption[corruption] for one in summaries.values() if corruption in one.by_corruption), None)


def _mean(summary: Summary | None, factor: float, partial: str) -> str:
    if summary is None:
        return _ABSENT
    # `partial (k/75)` says more than the plain mark that a limit or bad images leave.
    return _marked(_number(summary.value, factor), summary.label or partial)


def _mark(result: ClassifierResult) -> str:
    """Beside every number; why is told once, below the table."""
    return "partial" if result.partial else ""


def _marked(number: str, partial: str) -> str:
    return number if number == _ABSENT or not partial else escape(f"{number}\n{partial}")


def _number(value: float | None, factor: float = 1) -> str:
    return _ABSENT if value is None else f"{value * factor:.2f}"


def _caption(store: Store, choice: BaselineChoice) -> str:
    manifest = store.manifest
    parts = [f"baseline {choice.name}" if choice.name else f"no baseline: {_how_to_get_one(list(store.models()))}"]
    if not any(cell.severity == 0 for cell in manifest.cells):
        parts.append("no clean images: name them with --clean for the clean error and relative mCE")
    parts.append(f"{counted(manifest.num_images, 'image')} ({manifest.selection})")
    parts.append(datetime.now(timezone.utc).strftime("%Y-%m-%d"))
    return "; ".join(parts)


def _how_to_get_one(models: Sequence[str]) -> str:
    """What to do for corruption errors where AlexNet's do not fit the data."""
    if len(models) < 2:
        return "CE and mCE need another model in this store, named with --baseline"
    return f"name one of {', '.join(models)} with --baseline for CE and mCE"


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _print_remarks(console: Console, result: ClassifierResult) -> None:
    def say(text: str) -> None:
        _say(console, text)

    if result.partial:
        say(f"{result.name}: {result.partial}")
    if result.undefined:
        say(f"{result.name}: {result.undefined}")
    if result.bad:
        say(f"{result.name}: {counted(len(result.bad), 'image')} could not be read, left out of every number:")
        for text in result.bad[:_BAD_SHOWN]:
            say(f"  {text}")
        if len(result.bad) > _BAD_SHOWN:
            say(f"  and {len(result.bad) - _BAD_SHOWN} more")
