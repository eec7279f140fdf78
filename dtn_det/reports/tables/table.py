"""Tables independent of the format in which they are written: cells, columns and rows, and numbers as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dtn_det.reports.contents import Direction
from dtn_det.reports.labels import ARROWS

Mark = Literal["best", "second", "partial", "significant", "published", "bound"]
"""A property of a number that formats show; ``bound`` means that the number is only an upper bound."""

Align = Literal["left", "right", "center"]

MINUS = "\N{MINUS SIGN}"

NO_NUMBER = "\N{EN DASH}"
"""The sign that is shown instead of a missing number."""


@dataclass(frozen=True)
class TableCell:
    """One number or text of a table.

    Attributes:
        value: The number or text; None for an empty cell.
        interval: Ends of its interval, in the unit of the value; None without one.
        marks: Properties that formats show.
        note: A remark that must be read with the number, such as ``partial (3/5)``.
        decimals: Number of decimals if it differs from the column's, else None.
    """

    value: float | str | None = None
    interval: tuple[float, float] | None = None
    marks: frozenset[Mark] = frozenset()
    note: str = ""
    decimals: int | None = None


@dataclass(frozen=True)
class Column:
    """A column of a table, without its cells.

    Attributes:
        heading: Name of the column.
        unit: Unit of its numbers, such as ``%`` or ``M``.
        decimals: Number of decimals of its numbers.
        direction: Which numbers are better.
        align: Side to which the cells are aligned.
        span: Heading above, shared with neighbouring columns; empty without one.
        arrow_on_span: Whether the arrow of the direction is at the span rather than at the heading of each column.
        note: A remark that must be read with all its numbers.
        signed: Whether numbers above 0 have a plus sign.
        with_interval: Whether intervals are shown.
    """

    heading: str
    unit: str = ""
    decimals: int = 1
    direction: Direction = "none"
    align: Align = "right"
    span: str = ""
    arrow_on_span: bool = False
    note: str = ""
    signed: bool = False
    with_interval: bool = False

    @property
    def arrow(self) -> str:
        """The arrow at the column's own heading; empty if the span has the arrow."""
        return "" if self.arrow_on_span else ARROWS[self.direction]

    @property
    def full_heading(self) -> str:
        """The heading with unit and arrow, without the span."""
        return " ".join(filter(None, (self.heading + (f", {self.unit}" if self.unit else ""), self.arrow)))


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        label: Text of the first column.
        cells: One cell for each column.
        note: A remark that must be read with all its numbers, such as ``partial (30/75)``.
        is_mean: Whether the row is a mean over rows above.
        source: Where its numbers were published; empty for numbers of the report.
    """

    label: str
    cells: tuple[TableCell, ...]
    note: str = ""
    is_mean: bool = False
    source: str = ""


@dataclass(frozen=True)
class Group:
    """Rows of a table that are separated from other rows by horizontal lines.

    Attributes:
        rows: At least one row.
        title: Title of the group; empty if it has none.
    """

    rows: tuple[TableRow, ...]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        name: Name of its files, unique in a report, with letters, digits and hyphens only.
        title: Title for readers.
        label: Heading of the first column, which has the labels of the rows.
        columns: All other columns.
        groups: The rows, in groups that are separated by horizontal lines.
        note: A remark that must be read with all its numbers, such as ``partial (limit=500 of 50000 seed=0)``.
        notes: Sentences that readers need to understand the table.
        footer: Sentences on where the numbers come from; the same for all tables of a report.
    """

    name: str
    title: str
    label: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    note: str = ""
    notes: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[TableRow, ...]:
        """All rows of all groups."""
        return tuple(row for group in self.groups for row in group.rows)


def number_text(value: float, decimals: int, signed: bool = False, minus: str = MINUS) -> str:
    """Return a finite number as text, without a minus sign if it is rounded to zero.

    Args:
        value: A finite number.
        decimals: Digits after the point.
        signed: Whether numbers above 0 get a plus sign.
        minus: The minus sign to use.
    """
    text = f"{value:.{decimals}f}"
    if not float(text):
        return text.lstrip("-")
    if text.startswith("-"):
        return minus + text[1:]
    return f"+{text}" if signed else text


def cell_text(cell: TableCell, column: Column, minus: str = MINUS) -> str:
    """Return the value of a cell as text, without its interval and note; empty for an empty cell."""
    if cell.value is None or isinstance(cell.value, str):
        return cell.value or ""
    text = number_text(cell.value, _decimals(cell, column), column.signed, minus)
    return f"≤ {text}" if "bound" in cell.marks else text


def interval_text(cell: TableCell, column: Column, minus: str = MINUS) -> str:
    """Return the interval of a cell as text, ``[75.9, 77.4]``; empty if there is none or the column shows none."""
    if cell.interval is None or not column.with_interval:
        return ""
    ends = (number_text(end, _decimals(cell, column), minus=minus) for end in cell.interval)
    return f"[{', '.join(ends)}]"


def _decimals(cell: TableCell, column: Column) -> int:
    return column.decimals if cell.decimals is None else cell.decimals
