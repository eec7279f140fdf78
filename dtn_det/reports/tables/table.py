"""Tables before they are written in any format: numbers with intervals and marks, and how they become text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dtn_det.reports.contents import Direction
from dtn_det.reports.labels import ARROWS

Mark = Literal["best", "second", "partial", "significant", "published", "bound"]
"""A property of a number that formats show; ``bound`` says that the true number may be smaller."""

Align = Literal["left", "right", "center"]

MINUS = "\N{MINUS SIGN}"

NO_NUMBER = "\N{EN DASH}"
"""The sign that stands in the place of a missing number."""


@dataclass(frozen=True)
class TableCell:
    """One number or text of a table.

    Attributes:
        value: The number or text; None for an empty cell.
        interval: Ends of its interval, in the unit of the value; None without one.
        marks: Properties that formats show.
        note: A remark that must be read with the number, such as ``partial (3/5)``.
        decimals: Decimals of this number where they are not those of the column.
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
        decimals: Decimals of its numbers.
        direction: Which numbers are better.
        align: Side to which the cells are aligned.
        span: Heading that it shares with its neighbours.
        arrow_on_span: Whether the span tells the direction for all its columns, which are then alike.
        note: A remark that must be read with all its numbers.
        signed: Whether numbers above 0 have a sign.
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
        """The arrow at its own heading; empty where the span has it."""
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
        is_mean: Whether the row sums up those above.
        source: Where its numbers were published; empty for numbers of the report.
    """

    label: str
    cells: tuple[TableCell, ...]
    note: str = ""
    is_mean: bool = False
    source: str = ""


@dataclass(frozen=True)
class Group:
    """Rows between two rules of a table.

    Attributes:
        rows: At least one row.
        title: Title of the rows; empty where they need none.
    """

    rows: tuple[TableRow, ...]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: Name of its files, of letters, digits and hyphens, unique in a report.
        title: Title for readers.
        label: Heading of the rows' labels.
        columns: All columns but that of the labels.
        groups: The rows, in groups that are set apart by rules.
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
    """Write a finite number, never as minus zero.

    Args:
        value: A finite number.
        decimals: Digits after the point.
        signed: Whether numbers above 0 get a sign.
        minus: Sign of numbers below 0.
    """
    text = f"{value:.{decimals}f}"
    if not float(text):
        return text.lstrip("-")
    if text.startswith("-"):
        return minus + text[1:]
    return f"+{text}" if signed else text


def cell_text(cell: TableCell, column: Column, minus: str = MINUS) -> str:
    """Write the value of a cell, without its interval and note; an empty text for an empty cell."""
    if cell.value is None or isinstance(cell.value, str):
        return cell.value or ""
    text = number_text(cell.value, _decimals(cell, column), column.signed, minus)
    return f"≤ {text}" if "bound" in cell.marks else text


def interval_text(cell: TableCell, column: Column, minus: str = MINUS) -> str:
    """Write the interval of a cell, ``[75.9, 77.4]``; an empty text where none is shown."""
    if cell.interval is None or not column.with_interval:
        return ""
    ends = (number_text(end, _decimals(cell, column), minus=minus) for end in cell.interval)
    return f"[{', '.join(ends)}]"


def _decimals(cell: TableCell, column: Column) -> int:
    return column.decimals if cell.decimals is None else cell.decimals
