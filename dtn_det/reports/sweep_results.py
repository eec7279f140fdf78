"""The results of a sweep that has just ended, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dtn_det.corruptions.cells import CLEAN
from dtn_det.metrics import BASELINES
from dtn_det.reports.collect import ReportOptions, collect_sources
from dtn_det.reports.formats.terminal import print_tables
from dtn_det.reports.sources import Sources, task_of
from dtn_det.reports.tables import sweep_tables
from dtn_det.robustness.detection.records import rule_note

if TYPE_CHECKING:
    from rich.console import Console

    from dtn_det.reports.contents import Report
    from dtn_det.robustness.store.store import Store

_BAD_SHOWN = 10


def sweep_report(
    store: Store,
    names: Sequence[str],
    *,
    baseline: str | None = None,
    replicates: int = 0,
    processes: int = 1,
    on_cells: Callable[[int], None] = lambda count: None,
) -> Report:
    """Compute the numbers of some models of a store: what ``dtn-det mce`` and ``dtn-det mpc`` show when they end.

    The numbers are those of a report, by the same code. Without replicates there are no intervals, and each condition
    is evaluated once: about the time of reading the records for classifiers, and of COCO's matching for detectors.

    Args:
        store: The store with the records. Units that are not finished are left out, and the numbers say `partial`.
        names: Names of the models to show, in this order.
        baseline: The model whose errors divide the corruption errors of classifiers: ``alexnet``, or a model of the
            store, which need not be among `names`; None for AlexNet where its errors are those of the data, else none.
        replicates: Number of bootstrap replicates; 0 for no intervals.
        processes: Number of processes that evaluate detectors at the same time, where there is enough to do.
        on_cells: Called with the number of cells of detectors that were just evaluated.

    Returns:
        The report. Its ``bad_images`` are those that were left out.

    Raises:
        ReportError: The baseline is neither AlexNet, where its errors fit, nor a model of the store.
        StoreError: A model is not in the store or has no records, or these are damaged.
    """
    wanted = list(names)
    if baseline is not None and baseline not in (*BASELINES, *names):
        wanted.append(baseline)
    stored = store.models()
    # A baseline that is not in the store is left to collect_sources, whose message lists those that may be one.
    sources = Sources(task_of(store), {name: store.model(name) for name in wanted if name in names or name in stored})
    options = ReportOptions(models=wanted, baseline=baseline, pairs=(), replicates=replicates, processes=processes)
    found = collect_sources(sources, options, on_cells=on_cells)
    return replace(found, models=tuple(model for model in found.models if model.name in names))


def print_sweep_report(console: Console, store: Store, report: Report) -> None:
    """Print a report of :func:`sweep_report`, what must be known beside its numbers, and the images left out of them.

    Args:
        console: Where to.
        store: That the report is of.
        report: The numbers.
    """
    names = [model.name for model in report.models]
    tables = sweep_tables(report)
    if tables:
        print_tables(console, tables)
    for text in (*report.remarks, *_advice(store, report), *_rules(store, names)):
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    for name in names:
        _print_bad_images(console, name, report)


def _advice(store: Store, report: Report) -> list[str]:
    """What to do for the numbers that a sweep of classifiers lacks."""
    if report.task != "classification":
        return []
    models, said = list(store.models()), []
    if report.baseline is None:
        one_of = f"name one of {', '.join(models)} with --baseline for CE and mCE"
        other = "CE and mCE need another model in this store, named with --baseline"
        said.append(f"no baseline: {one_of if len(models) > 1 else other}")
    if CLEAN not in store.manifest.cells:
        said.append("no clean images: name them with --clean for the clean error and relative mCE")
    return said


def _rules(store: Store, names: Sequence[str]) -> list[str]:
    if store.manifest.task != "detection":
        return []
    notes = {name: rule_note(store.model(name)) for name in names}
    return [f"{name}: {note}" for name, note in notes.items() if note]


def _print_bad_images(console: Console, name: str, report: Report) -> None:
    bad = report.bad_images.get(name, {})
    lines = [f"left out of {name}: image {number}, {reason}" for number, reason in sorted(bad.items())]
    if len(lines) > _BAD_SHOWN:
        lines[_BAD_SHOWN:] = [f"and {len(lines) - _BAD_SHOWN:,} more"]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
