"""A table before it is written in any format: numbers with their intervals and marks, not yet text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dtn_det.reports.contents import Direction
from dtn_det.reports.labels import ARROWS

Mark = Literal["best", "second", "partial", "significant", "published", "bound"]
"""What is said of a number: ``bound`` calls it the largest it can be, as p-values of few replicates are."""

Align = Literal["left", "right", "center"]

MINUS = "\N{MINUS SIGN}"

NO_NUMBER = "\N{EN DASH}"
"""Where there is none."""


@dataclass(frozen=True)
class TableCell:
    """One number or text.

    Attributes:
        value: None where there is none.
        interval: Its ends, in the unit of the value; None without one.
        marks: What is said of it.
        note: What must be read with it, such as ``partial (3/5)``.
        decimals: Of this number, where they are not those of the column.
    """

    value: float | str | None = None
    interval: tuple[float, float] | None = None
    marks: frozenset[Mark] = frozenset()
    note: str = ""
    decimals: int | None = None


@dataclass(frozen=True)
class Column:
    """What stands in a column.

    Attributes:
        heading: Its name.
        unit: Such as ``%`` or ``M``.
        decimals: Of its numbers.
        direction: Which numbers are better.
        align: Of its cells.
        span: Heading that it shares with its neighbours.
        arrow_on_span: Whether the span tells the direction for all its columns, which are then alike.
        note: What must be read with all its numbers.
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
        """The sign of the direction that stands at its own heading."""
        return "" if self.arrow_on_span else ARROWS[self.direction]

    @property
    def full_heading(self) -> str:
        """Heading with unit and direction, without the span."""
        return " ".join(filter(None, (self.heading + (f", {self.unit}" if self.unit else ""), self.arrow)))


@dataclass(frozen=True)
class TableRow:
    """One row.

    Attributes:
        label: First column.
        cells: One for each column.
        note: What must be read with all its numbers, such as ``partial (30/75)``.
        is_mean: Whether it sums up the rows above.
        source: Who published its numbers; empty for those of the report.
    """

    label: str
    cells: tuple[TableCell, ...]
    note: str = ""
    is_mean: bool = False
    source: str = ""


@dataclass(frozen=True)
class Group:
    """Rows between two rules.

    Attributes:
        rows: At least one.
        title: Empty for rows that need none.
    """

    rows: tuple[TableRow, ...]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: For files: letters, digits and hyphens, unique in a report.
        title: What it shows.
        label: Heading of the rows' labels.
        columns: Without that of the labels.
        groups: Rows, set apart by rules.
        note: What must be read with all its numbers, such as ``partial (limit=500 of 50000 seed=0)``.
        notes: What this table needs to be understood.
        footer: Where its numbers come from; the same for all tables of a report.
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
        """All rows."""
        return tuple(row for group in self.groups for row in group.rows)


def number_text(value: float, decimals: int, signed: bool = False, minus: str = MINUS) -> str:
    """A number as text, never as minus zero.

    Args:
        value: Finite.
        decimals: Digits after the point.
        signed: Whether numbers above 0 have a sign.
        minus: Sign of those below.
    """
    text = f"{value:.{decimals}f}"
    if not float(text):
        return text.lstrip("-")
    if text.startswith("-"):
        return minus + text[1:]
    return f"+{text}" if signed else text


def cell_text(cell: TableCell, column: Column, minus: str = MINUS) -> str:
    """The value of a cell as text, without its interval and note; empty where there is none."""
    if cell.value is None or isinstance(cell.value, str):
        return cell.value or ""
    text = number_text(cell.value, _decimals(cell, column), column.signed, minus)
    return f"≤ {text}" if "bound" in cell.marks else text


def interval_text(cell: TableCell, column: Column, minus: str = MINUS) -> str:
    """The interval of a cell as text, ``[75.9, 77.4]``; empty where none is shown."""
    if cell.interval is None or not column.with_interval:
        return ""
    ends = (number_text(end, _decimals(cell, column), minus=minus) for end in cell.interval)
    return f"[{', '.join(ends)}]"


def _decimals(cell: TableCell, column: Column) -> int:
    return column.decimals if cell.decimals is None else cell.decimals
