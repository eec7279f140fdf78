"""Print tables, and comparisons of two models, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from dtn_det.reports.changes import Change, is_least, p_decimals
from dtn_det.reports.compare import Comparison, Verdict
from dtn_det.reports.labels import ARROWS, one_line
from dtn_det.reports.tables.table import (
    NO_NUMBER,
    Column,
    Group,
    Table,
    TableCell,
    TableRow,
    cell_text,
    interval_text,
    number_text,
    supported_decimals,
)
from dtn_det.system.progress import say

_LONGEST_LABEL = 32
_UNBOUNDED = 10_000
_STYLES = {"best": "bold", "second": "underline"}

_DECIMALS = 2
# Widths of the columns in characters. Bars fill the remaining width; they are left out if one side of the axis has
# fewer than _LEAST_SIDE characters.
_LABEL, _VALUE, _INTERVAL = 18, 6, 17
_LEAST_SIDE = 4
_BLOCK, _HALF, _AXIS = "█", {"left": "▐", "right": "▌"}, "│"
_VERDICT_STYLES: dict[Verdict, str] = {"better": "green", "worse": "red", "not shown": "dim", "untested": "dim"}


def terminal_table(table: Table) -> RichTable:
    """Convert a table to rich's class of tables, as wide as its contents and without the notes."""
    title = _text(", ".join(filter(None, (table.title, table.note))), "bold")
    drawn = RichTable(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    drawn.add_column(_text(table.label), vertical="bottom", max_width=_LONGEST_LABEL, overflow="fold")
    span = ""
    for column in table.columns:
        heading = _heading(column, with_span=column.span != span)
        drawn.add_column(heading, justify=column.align, vertical="bottom", no_wrap=column.align != "left")
        span = column.span
    for group in table.groups:
        if group.title:
            drawn.add_row(_text(group.title, "italic"), *([""] * len(table.columns)))
        for row in group.rows:
            drawn.add_row(*_row(row, table.columns), end_section=row is group.rows[-1])
    return drawn


def print_tables(console: Console, tables: Sequence[Table]) -> None:
    """Print tables with their notes, and at the end the footer, which says where the numbers of all tables come from.

    A table that is wider than the terminal is printed in parts, each of which repeats the labels of the rows.

    Args:
        tables: At least one table, all of one report.
    """
    for table in tables:
        for part in _parts(console, table):
            console.print(part)
        for note in table.notes:
            say(console, one_line(note))
        console.print()
    for line in tables[0].footer:
        say(console, one_line(line))


def _parts(console: Console, table: Table) -> Iterator[RichTable]:
    unbounded = console.options.update(max_width=_UNBOUNDED)
    for count in range(len(table.columns), 0, -1):
        part = terminal_table(_some_columns(table, slice(count)))
        # A single column is printed even if it is too wide.
        if count == 1 or console.measure(part, options=unbounded).maximum <= console.width:
            yield part
            break
    if count < len(table.columns):
        yield from _parts(console, _some_columns(table, slice(count, None)))


def _some_columns(table: Table, kept: slice) -> Table:
    groups = (
        Group(tuple(replace(row, cells=row.cells[kept]) for row in group.rows), group.title) for group in table.groups
    )
    return replace(table, columns=table.columns[kept], groups=tuple(groups))


def _heading(column: Column, with_span: bool) -> Text:
    arrow = ARROWS[column.direction] if column.arrow_on_span else ""
    span = f"{column.span} {arrow}".strip() if with_span else ""
    lines = (_text(line) for line in (span, column.full_heading, column.note) if line)
    text: Text = Text("\n").join(lines)
    return text


def _row(row: TableRow, columns: Sequence[Column]) -> Iterator[Text]:
    style = "dim" if row.source else "italic" if row.is_mean else ""
    yield _text(" ".join(filter(None, (row.label, row.note))), style)
    for cell, column in zip(row.cells, columns, strict=True):
        yield _cell(cell, column, style if row.source else "")


def _cell(cell: TableCell, column: Column, style: str) -> Text:
    value = cell_text(cell, column) or ("" if column.align == "left" else NO_NUMBER)
    value += "*" if "significant" in cell.marks else ""
    text: Text = _text(value, " ".join([style, *(_STYLES[mark] for mark in cell.marks if mark in _STYLES)]).strip())
    for more in (interval_text(cell, column), cell.note):
        if more:
            text.append(f" {one_line(more)}", "dim")
    return text


def _text(text: str, style: str = "") -> Any:
    """Make a rich text whose square brackets are not read as markup."""
    return Text(one_line(text), style)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print the verdict, then groups and corruptions, each sorted by how much the second model gains.

    On a terminal of 80 columns, the output has at most 23 lines if the names of the models fit into a line.
    """
    for line in (sentence(comparison), second_sentence(comparison)):
        if line:
            console.print(one_line(line), highlight=False, markup=False)
    for row in _chart(comparison, console.width):
        console.print(row, no_wrap=True, crop=True)
    console.print(_footer(comparison), highlight=False, markup=False)


def sentence(comparison: Comparison) -> str:
    """Return the verdict, such as ``DTN is better under corruption than LN: mPC +0.56 [0.08, 1.03], p = 0.014``."""
    first, second = comparison.first, comparison.second
    how = _described(comparison, comparison.overall)
    if comparison.verdict == "better":
        return f"{second} is better under corruption than {first}: {how}."
    if comparison.verdict == "worse":
        return f"{second} is worse under corruption than {first}: {how}."
    if comparison.verdict == "not shown":
        return f"No difference can be shown: {how} ({second} minus {first})."
    return f"{how} ({second} minus {first}); without records of the same images, nothing is tested."


def second_sentence(comparison: Comparison) -> str:
    """Return a sentence on the differences on clean images and in rPC or relative mCE; empty if both are unknown."""
    changes = (comparison.clean, comparison.relative)
    told = [_described(comparison, change) for change in changes if change is not None]
    return f"{'; '.join(told)}." if told else ""


def _described(comparison: Comparison, change: Change) -> str:
    label = change.label.removesuffix(" AP")
    label = {"P": "P (clean)", "Mean error": "mean error"}.get(label, label)
    text = " ".join(filter(None, (label, _value(change), _interval(change))))
    if change.p_value is None:
        return text
    replicates = comparison.report.provenance.replicates
    sign = "≤" if is_least(change.p_value, replicates) else "="
    return f"{text}, p {sign} {change.p_value:.{p_decimals(replicates)}f}"


def _value(change: Change) -> str:
    return number_text(change.value, supported_decimals(change.interval, _DECIMALS), signed=True)


def _interval(change: Change) -> str:
    if change.interval is None:
        return ""
    decimals = supported_decimals(change.interval, _DECIMALS)
    return f"[{', '.join(number_text(end, decimals) for end in change.interval)}]"


def _chart(comparison: Comparison, width: int) -> Iterator[Text]:
    text = Text
    side = (width - _LABEL - _VALUE - _INTERVAL - len("*  │")) // 2
    side = side if side >= _LEAST_SIDE else 0
    changes = (*comparison.groups, *comparison.corruptions)
    largest = max((abs(change.value) for change in changes), default=0.0)
    head = f"{'change in points':>{_LABEL + _VALUE}}  {f'{100 * comparison.level:g} % interval':{_INTERVAL}}"
    if side:
        names = (one_line(f"{name} better") for name in (comparison.first, comparison.second))
        left, right = (name if len(name) <= side - 1 else f"{name[: side - 2]}…" for name in names)
        head += f"{left:>{side - 1}} {_AXIS} {right}"
    yield text(head, "bold")
    for change in changes:
        verdict = comparison.verdict_on(change)
        value = _value(change) + ("*" if verdict in ("better", "worse") else " ")
        line = text(f"{change.label:{_LABEL}}", "bold" if change in comparison.groups else "")
        line.append(f"{value:>{_VALUE + 1}} {_interval(change):{_INTERVAL}}")
        if side:
            line.append(_bar(change, comparison, side, largest), _VERDICT_STYLES[verdict])
        yield line


def _bar(change: Change, comparison: Comparison, side: int, largest: float) -> str:
    """Return a bar as text, to the right of the axis if the second model is better, else to the left."""
    halves = round(2 * side * abs(change.value) / largest) if largest else 0
    blocks = _BLOCK * (halves // 2)
    if change.better(comparison.direction):
        return f"{'':{side}}{_AXIS}{blocks}{_HALF['right'] * (halves % 2)}"
    left = _HALF["left"] * (halves % 2) + blocks
    return f"{left:>{side}}{_AXIS}"


def _footer(comparison: Comparison) -> str:
    data = comparison.note or f"{comparison.report.provenance.num_images:,} images"
    star = f"; * significant at {100 * (1 - comparison.level):g} % (Holm)"
    return one_line(data + (star if comparison.verdict != "untested" else ""))
