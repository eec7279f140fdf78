"""Tables independent of the format in which they are written: cells, columns, rows, ranks, titles and footers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from dtn_det.metrics import BASELINES
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.reports.contents import KIND_TITLES, Direction, Report, ReportModel, Section
from dtn_det.reports.labels import ARROWS, shared_note
from dtn_det.reports.numbers import SETS, Numbers

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
        interval: Ends of the confidence interval, in the unit of the value; None if there is no interval.
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
        unit: Unit of its numbers, such as ``%`` or ``M``.
        decimals: Number of decimals of its numbers.
        direction: Whether higher or lower numbers are better.
        span: Heading above this column and its neighbours; empty if there is none.
        arrow_on_span: Whether the arrow of the direction stands at the span, and not at the heading of the column.
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
        title: Title of the group; empty if it has none.
    """

    rows: tuple[TableRow, ...]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        name: Name of its files, unique in a report, with letters, digits and hyphens only.
        label: Heading of the first column, which has the labels of the rows.
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
    """Return a finite number as text, without a minus sign if it is rounded to zero."""
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


def explained(table: Table) -> Table:
    """Add a note that explains the marks of the best numbers, if the table has such marks."""
    marks = {mark for row in table.rows for cell in row.cells for mark in cell.marks}
    if "best" not in marks:
        return table
    said = "Best in bold, second underlined." if "second" in marks else "Best in bold."
    return replace(table, notes=(said, *table.notes))


_RANKED_WITH_SECOND = 3
_CERTAIN = 1e-9
_OF_BASELINE = ("CE", "mCE", "relative CE", "relative mCE")

_SUFFIXES = MappingProxyType(dict(zip(SETS, ("", ", the 4 extra corruptions"), strict=True)))


def supported_decimals(interval: tuple[float, float] | None, most: int) -> int:
    """Return how many decimals to show: up to the second significant digit of half the interval's width.

    Args:
        interval: Ends of the interval; with None or a width of 0, the result is `most`.
        most: Number of decimals that papers give, which is the largest result.
    """
    half = 0.0 if interval is None else (interval[1] - interval[0]) / 2
    return max(0, min(most, 1 - math.floor(math.log10(half)))) if half > 0 else most


def common_decimals(cells: Iterable[TableCell], most: int) -> int:
    """Return how many decimals the intervals of all cells of a column support, at most `most`."""
    return min((supported_decimals(cell.interval, most) for cell in cells), default=most)


def ranked(
    cells: Sequence[TableCell], direction: Direction, decimals: int, reasons: Sequence[str] = ()
) -> tuple[TableCell, ...]:
    """Mark the best number, and the second best if at least three are compared; numbers shown as equal share a mark.

    A zero is never marked: it is the AP of models that find nothing, and the cost of errors that were not looked at.
    Partial numbers, which cover only some of the cells or images, are not compared, unless all numbers are partial in
    the same way.

    Args:
        direction: Which numbers are better; with ``none``, no number is marked.
        reasons: For each model, why its numbers cover only a part of the data set; an empty text if they cover the
            whole data set.
    """
    reasons = reasons or [""] * len(cells)
    having = [place for place, cell in enumerate(cells) if isinstance(cell.value, float)]
    compared = [place for place in having if "partial" not in cells[place].marks]
    if not compared and len({(cells[place].note, reasons[place]) for place in having}) == 1:
        compared = having
    if direction == "none" or len(compared) < 2:
        return tuple(cells)
    shown = {place: _shown(cells[place], decimals) for place in compared}
    order = sorted(set(shown.values()), reverse=direction == "up")
    marks: dict[float, Mark] = {order[0]: "best"}
    if len(compared) >= _RANKED_WITH_SECOND and len(order) > 1:
        marks[order[1]] = "second"
    marks.pop(0.0, None)
    return tuple(
        replace(cell, marks=cell.marks | {marks[shown[place]]}) if shown.get(place) in marks else cell
        for place, cell in enumerate(cells)
    )


def _shown(cell: TableCell, decimals: int) -> float:
    assert isinstance(cell.value, float)
    return float(f"{cell.value:.{decimals}f}")


def model_cell(
    numbers: Numbers, model: ReportModel, which: str, name: str, scope: str = "", severity: int = 0
) -> TableCell:
    """Make the cell of a model's number, marked as partial if cells or images are missing; empty without a number."""
    number = numbers.get(model.name, which, name, scope, severity)
    if number is None or not math.isfinite(number.value):
        return TableCell()
    # Do not show an interval without width, such as the interval of the baseline's own mCE.
    certain = not number.high - number.low > _CERTAIN
    interval = None if certain else (number.low, number.high)
    marks: frozenset[Mark] = frozenset({"partial"} if model.partial or number.note else ())
    return TableCell(number.value, interval, marks, number.note)


def without_baseline_marks(numbers: Numbers, name: str, cells: Sequence[TableCell]) -> tuple[TableCell, ...]:
    """Remove the marks of rank from the baseline's cell for numbers that are 100 by definition, such as the mCE."""
    if name not in _OF_BASELINE:
        return tuple(cells)
    ranks = {"best", "second"}
    return tuple(
        replace(cell, marks=cell.marks - ranks) if model.name == numbers.report.baseline else cell
        for model, cell in zip(numbers.models, cells, strict=True)
    )


def without_shared_note(cells: Sequence[TableCell], of_one_model: bool = False) -> tuple[tuple[TableCell, ...], str]:
    """Remove a note that all cells of a row share, so that the row can show the note once.

    Args:
        cells: The cells of the row.
        of_one_model: Whether cells without a note, such as cells of clean images, may be among them.

    Returns:
        The cells, without notes if they share one, and the shared note or an empty text.
    """
    notes = {cell.note for cell in cells if cell.value is not None and (cell.note or not of_one_model)}
    if len(notes) != 1:
        return tuple(cells), ""
    return tuple(replace(cell, note="") for cell in cells), notes.pop()


def section_table(
    numbers: Numbers,
    name: str,
    text: str,
    which: CorruptionSet,
    label: str,
    columns: Iterable[Column],
    groups: Iterable[Group],
    notes: tuple[str, ...] = (),
    models: Sequence[ReportModel] | None = None,
) -> Table:
    """Make a table of a section. Section and set of corruptions decide its title, file name, note and footer.

    Args:
        name: Part of the file name, unique among the tables of the section; letters, digits and hyphens.
        text: What the table shows, for its title.
        models: The models that the table shows; None for all.
    """
    note = shared_note(numbers.models if models is None else models)
    title = table_title(numbers.section, text, which)
    name = table_name(numbers.report, numbers.section, name, which)
    return Table(name, title, label, tuple(columns), tuple(groups), note, notes, footer(numbers.report))


def table_title(section: Section, text: str, which: CorruptionSet = SETS[0]) -> str:
    """Make the title of a table from the kind of results, a text, and the set of corruptions if not ``benchmark``."""
    return f"{KIND_TITLES[section.kind]}: {text}{_SUFFIXES[which]}"


def table_name(report: Report, section: Section, name: str, which: CorruptionSet = SETS[0]) -> str:
    """Make the name of a table's files. It begins with the kind of results if the report has several kinds."""
    kind = KIND_TITLES[section.kind].lower() if len(report.sections) > 1 else ""
    return "-".join(filter(None, (kind, name, "" if which == SETS[0] else which)))


def footer(report: Report) -> tuple[str, ...]:
    """Return the lines below a table on data, corruptions, baseline, intervals, versions and date."""
    about = report.provenance
    lines = [f"Data: {_data(report)}."]
    if report.is_corrupted:
        lines.append(f"Corruptions: {about.corruption}.")
    if report.task == "classification":
        lines.append(f"CE and relative CE: {_baseline(report.baseline)}.")
    lines.append(intervals_line(report))
    versions = ", ".join(f"{library} {version}" for library, version in about.versions.items())
    lines.append(f"Versions: {versions}. Report of {about.date}.")
    return tuple(lines)


def _data(report: Report) -> str:
    about = report.provenance
    if not about.num_images:
        return about.data
    chosen = "all" if about.selection == "all" else f"selection {about.selection}"
    hashed = f", list of files {about.data_hash[:12]}" if about.data_hash else ""
    return f"{about.data}, {about.num_images:,} images ({chosen}{hashed})"


def _baseline(baseline: str | None) -> str:
    if baseline is None:
        return "none, as no baseline was named"
    if baseline in BASELINES:
        return "divided by AlexNet's published errors on ImageNet-C"
    return f"divided by the errors of {baseline} on the same images"


def intervals_line(report: Report) -> str:
    """Return the line of a footer on the intervals."""
    about = report.provenance
    if not about.replicates:
        return "Intervals: none."
    return (
        f"Intervals: {100 * about.level:g} %, percentile bootstrap over images, {about.replicates:,} replicates, "
        f"seed {about.seed}."
    )
