"""Writes tables as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dtn_det._optional import require
from dtn_det.reports.labels import one_line
from dtn_det.reports.tables.table import NO_NUMBER, Column, Table, TableCell, TableRow, cell_text, interval_text

_INLINE = re.compile(r"([\\`*_\[\]|~$#])")
# Characters that would start a list or a rule at the beginning of a line.
_AT_START = re.compile(r"^(?=[+=-])|^(?P<number>\d+)(?=[.)])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escaped(text: str) -> str:
    """Escape a text, so that Markdown shows it literally within a line."""
    return "".join(_ENTITIES.get(sign, sign) for sign in _INLINE.sub(r"\\\1", one_line(text)))


def escaped_line(text: str) -> str:
    """Escape a text, so that Markdown shows it literally even at the beginning of a line."""
    return _AT_START.sub(lambda found: (found["number"] or "") + "\\", escaped(text))


def markdown(table: Table, with_footer: bool = True) -> str:
    """Return one table with its title and notes as Markdown.

    Args:
        with_footer: Whether to add the footer, which says where the numbers come from.
    """
    lines = [f"### {escaped(_with_note(table.title, table.note))}", "", _grid(table), ""]
    lines += [f"- {escaped_line(note)}" for note in (*table.notes, *(table.footer if with_footer else ()))]
    return "\n".join(lines).rstrip() + "\n"


def markdown_document(tables: Sequence[Table], title: str = "Robustness report") -> str:
    """Return a document of all tables as Markdown; its end says where the numbers of all tables come from.

    Args:
        tables: At least one table, all of one report.
    """
    footer = "\n".join(f"- {escaped_line(line)}" for line in tables[0].footer)
    last = f"## Where the numbers come from\n\n{footer}\n"
    return "\n".join([f"# {escaped(title)}\n", *(markdown(table, with_footer=False) for table in tables), last])


def _grid(table: Table) -> str:
    rows = []
    for group in table.groups:
        if group.title:
            rows.append([f"**{escaped(group.title)}**", *([""] * len(table.columns))])
        rows += [_row(row, table.columns) for row in group.rows]
    headings = [escaped(table.label), *(_heading(column) for column in table.columns)]
    align = ["left", *(column.align for column in table.columns)]
    text: str = require("tabulate", "report").tabulate(
        rows, headings, tablefmt="pipe", colalign=align, disable_numparse=True
    )
    return text


def _heading(column: Column) -> str:
    return escaped(_with_note(" ".join(filter(None, (column.span, column.full_heading))), column.note))


def _row(row: TableRow, columns: Sequence[Column]) -> list[str]:
    label = escaped(row.label)
    label = f"*{label}*" if row.is_mean else label
    note = f" {escaped(row.note)}" if row.note else ""
    return [label + note, *(_cell(cell, column) for cell, column in zip(row.cells, columns, strict=True))]


def _cell(cell: TableCell, column: Column) -> str:
    value = escaped(cell_text(cell, column)) or ("" if column.align == "left" else NO_NUMBER)
    if "best" in cell.marks:
        value = f"**{value}**"
    elif "second" in cell.marks:
        value = f"<ins>{value}</ins>"
    if "significant" in cell.marks:
        value += r"\*"
    return " ".join(filter(None, (value, escaped(interval_text(cell, column)), escaped(cell.note))))


def _with_note(text: str, note: str) -> str:
    return f"{text}, {note}" if note else text
