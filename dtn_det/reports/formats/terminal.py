"""Tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.reports.formats.plain import one_line
from dtn_det.reports.tables.table import (
    ARROWS,
    NO_NUMBER,
    Cell,
    Column,
    Group,
    Row,
    Table,
    cell_text,
    interval_text,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

_LONGEST_LABEL = 32
_UNBOUNDED = 10_000
_STYLES = {"best": "bold", "second": "underline"}


def terminal_table(table: Table) -> RichTable:
    """One table without its notes, as wide as it is."""
    rich_table, box = require("rich.table", "cli"), require("rich.box", "cli")
    title = _text(", ".join(filter(None, (table.title, table.note))), "bold")
    drawn: RichTable = rich_table.Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
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
    """Print tables with their notes and, once, where their numbers come from.

    A table that is wider than the terminal is printed in parts, each with the labels of the rows.

    Args:
        console: Where to.
        tables: Of one report, at least one.
    """
    for table in tables:
        for part in _parts(console, table):
            console.print(part)
        for note in table.notes:
            _say(console, note)
        console.print()
    for line in tables[0].footer:
        _say(console, line)


def _say(console: Console, text: str) -> None:
    console.print(one_line(text), soft_wrap=True, highlight=False, markup=False)


def _parts(console: Console, table: Table) -> Iterator[RichTable]:
    unbounded = console.options.update(max_width=_UNBOUNDED)
    for count in range(len(table.columns), 0, -1):
        part = terminal_table(_some_columns(table, slice(count)))
        # A single column is shown however wide it is.
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
    text: Text = require("rich.text", "cli").Text("\n").join(lines)
    return text


def _row(row: Row, columns: Sequence[Column]) -> Iterator[Text]:
    style = "dim" if row.source else "italic" if row.is_mean else ""
    yield _text(" ".join(filter(None, (row.label, row.note))), style)
    for cell, column in zip(row.cells, columns, strict=True):
        yield _cell(cell, column, style if row.source else "")


def _cell(cell: Cell, column: Column, style: str) -> Text:
    value = cell_text(cell, column) or ("" if column.align == "left" else NO_NUMBER)
    value += "*" if "significant" in cell.marks else ""
    text: Text = _text(value, " ".join([style, *(_STYLES[mark] for mark in cell.marks if mark in _STYLES)]).strip())
    for more in (interval_text(cell, column), cell.note):
        if more:
            text.append(f" {one_line(more)}", "dim")
    return text


def _text(text: str, style: str = "") -> Any:
    """Text that is never read as markup."""
    return require("rich.text", "cli").Text(one_line(text), style)
