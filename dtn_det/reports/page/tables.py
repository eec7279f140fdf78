"""The tables of a report as the page shows them, with the same numbers and marks as in other formats."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dtn_det.corruptions.catalog import EVERY_GROUP
from dtn_det.reports.contents import Report
from dtn_det.reports.labels import model_note, shared_note, short, title
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.tables.classes import class_table
from dtn_det.reports.tables.corruptions import corruption_table, grid_table, severity_table
from dtn_det.reports.tables.errors import error_table, model_error_table
from dtn_det.reports.tables.pairs import pair_table
from dtn_det.reports.tables.published import PublishedRow
from dtn_det.reports.tables.summary import calibration_table, metrics_table, model_table, summary_table
from dtn_det.reports.tables.table import (
    NO_NUMBER,
    Column,
    Group,
    Table,
    TableCell,
    cell_text,
    interval_text,
    table_title,
)

Role = Literal["", "model", "corruption"]

ROLES: tuple[Role, ...] = ("model", "corruption")
"""What readers can filter a table by: names of models or of corruptions, see :attr:`ViewColumn.role`."""

_FEWEST = 4

_WIDEST = 28
_GROUPS = {title(group) for group in EVERY_GROUP}
_WHOLE_NAMES = {(title(group), short(name)): title(name) for group, names in EVERY_GROUP.items() for name in names}


@dataclass(frozen=True)
class Badge:
    """A remark after a text. The page shows one word of the remark, and the full remark on demand."""

    word: str
    whole: str

    @property
    def rest(self) -> str:
        """The remainder of the remark, which is shown on demand."""
        return self.whole[len(self.word) :] if self.whole.startswith(self.word) else f": {self.whole}"


@dataclass(frozen=True)
class ViewColumn:
    """A column of a table of the page.

    Attributes:
        title: Header of the column.
        group: Header above the title that the column shares with its neighbours; empty without one.
        better: ``up`` if larger numbers are better, ``down`` if smaller ones are, else empty.
        group_tells: Whether `better` is shown in the shared header rather than in the header of the column.
        role: ``model`` or ``corruption`` if the texts (in a column of numbers: the header) are names of models or
            corruptions; else empty.
        numeric: Whether the column holds numbers.
        head: Whether the texts are the headers of the rows.
        about: The full name if the title is an abbreviation, else empty.
        width: Width in characters; 0 for as wide as the texts.
        wraps: Whether the texts may take several lines.
    """

    title: str
    group: str = ""
    better: str = ""
    group_tells: bool = False
    role: Role = ""
    numeric: bool = True
    head: bool = False
    about: str = ""
    width: int = 0
    wraps: bool = False
    badges: tuple[Badge, ...] = ()


@dataclass(frozen=True)
class ViewCell:
    """A cell of a table of the page.

    Attributes:
        value: The number by which the cell is sorted; None for a text or a missing number.
        interval: The interval as text; empty without one.
        mark: ``best``, ``second`` or empty.
        significant: Whether the number is a difference that is significant.
    """

    text: str
    value: float | None = None
    interval: str = ""
    mark: str = ""
    significant: bool = False
    badges: tuple[Badge, ...] = ()


@dataclass(frozen=True)
class ViewRow:
    """A row of a table of the page."""

    cells: tuple[ViewCell, ...]
    is_mean: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table for the page's template, with texts and the values for sorting and filtering.

    Attributes:
        id: Id of the table on the page, which is unique there.
        notes: Sentences that readers need to understand the table.
    """

    id: str
    title: str
    columns: tuple[ViewColumn, ...]
    rows: tuple[ViewRow, ...]
    badges: tuple[Badge, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def filters(self) -> tuple[Role, ...]:
        """The roles for which the table has enough names to be filtered by them."""
        return tuple(role for role in ROLES if self._choices(role) >= _FEWEST)

    @property
    def has_intervals(self) -> bool:
        """Whether any number has an interval."""
        return any(cell.interval for row in self.rows for cell in row.cells)

    @property
    def grouped(self) -> bool:
        """Whether some columns have a shared header above their own."""
        return any(column.group for column in self.columns)

    @property
    def headers(self) -> tuple[tuple[str, str, tuple[tuple[int, ViewColumn], ...]], ...]:
        """The shared headers: text, :attr:`ViewColumn.better` if shown there, and the columns with their indices."""
        found = []
        for group, run in itertools.groupby(enumerate(self.columns), key=lambda place: place[1].group):
            columns = tuple(run)
            found.append((group, columns[0][1].better if columns[0][1].group_tells else "", columns))
        return tuple(found)

    def _choices(self, role: Role) -> int:
        places = [place for place, column in enumerate(self.columns) if column.role == role]
        headers = [place for place in places if self.columns[place].numeric]
        texts = {row.cells[place].text for place in places if place not in headers for row in self.rows}
        return max(len(headers), len(texts))


def summary_views(sections: Sequence[Numbers], published: Sequence[PublishedRow] = ()) -> tuple[PageTable, ...]:
    """Make summary tables: main numbers for each section and set of corruptions, and published numbers."""
    found = []
    for numbers in sections:
        for which in numbers.sets:
            rows = [row for row in published if row.kind == numbers.section.kind] if which == numbers.sets[0] else []
            found += apart_views(summary_table(numbers, which, rows))
    return tuple(found)


def apart_views(table: Table) -> list[PageTable]:
    """Convert a table; published rows, which are groups below the measured ones, become a table of their own."""
    published = [group for group in table.groups if any(row.source for row in group.rows)]
    if not published:
        return [view_of(table, ())]
    measured = tuple(group for group in table.groups if group not in published)
    # The notes on the sources are left out here, as the sources have a column in the table of published rows.
    first = next(place for place, note in enumerate(table.notes) if note.startswith("Published rows"))
    filled = [place for place, _ in enumerate(table.columns) if any(_has(group, place) for group in published)]
    apart = replace(
        table,
        columns=tuple(table.columns[place] for place in filled),
        name=f"{table.name}-published",
        title=f"{table.title}, published and not measured here",
        groups=tuple(_only(group, filled) for group in published),
        note="",
        notes=table.notes[first : first + 1],
    )
    return [view_of(replace(table, groups=measured, notes=table.notes[:first]), ()), view_of(apart, ())]


def _has(group: Group, place: int) -> bool:
    return any(row.cells[place].value is not None for row in group.rows)


def _only(group: Group, places: Sequence[int]) -> Group:
    """Return a group with only the columns at the given indices, and without its title."""
    return Group(tuple(replace(row, cells=tuple(row.cells[place] for place in places)) for row in group.rows))


def corruption_views(sections: Sequence[Numbers]) -> tuple[PageTable, ...]:
    """Make one table for each section and set of corruptions: the numbers of each corruption and group."""
    return tuple(
        view_of(corruption_table(numbers, which), [model.name for model in numbers.models])
        for numbers in sections
        for which in numbers.sets
    )


def severity_views(sections: Sequence[Numbers]) -> tuple[PageTable, ...]:
    """Make a table for each section and set of corruptions: numbers by severity, for detectors with every AP."""
    found = []
    for numbers in sections:
        for which in numbers.sets:
            tables = [severity_table(numbers, which)]
            if numbers.section.kind != "top1":
                tables.append(metrics_table(numbers, which))
            found += [view_of(table, ()) for table in tables if table is not None]
    return tuple(found)


def calibration_views(sections: Sequence[Numbers]) -> tuple[PageTable, ...]:
    """Make a table for each section: its calibration and selective classification, where these are known."""
    tables = (calibration_table(numbers, which) for numbers in sections for which in numbers.sets[:1])
    return tuple(view_of(table, ()) for table in tables if table is not None)


def error_views(sections: Sequence[Numbers]) -> tuple[PageTable, ...]:
    """Make the tables of the costs of errors: of all models for each set of corruptions, and of each model."""
    found: list[Table | None] = []
    for numbers in sections:
        found += [error_table(numbers, which) for which in numbers.sets]
        found += [model_error_table(numbers, model, f"errors-{n}") for n, model in enumerate(numbers.models, 1)]
    return tuple(view_of(table, ()) for table in found if table is not None)


def class_views(sections: Sequence[Numbers]) -> tuple[tuple[str, PageTable], ...]:
    """Return the name of each model with the table of the classes of which it loses most and least."""
    found = [
        (model.name, class_table(numbers, model, f"classes-{number}"))
        for numbers in sections
        for number, model in enumerate(numbers.models, 1)
    ]
    return tuple((name, view_of(table, ())) for name, table in found if table is not None)


def pair_views(sections: Sequence[Numbers]) -> tuple[PageTable, ...]:
    """Make one table for each section and set of corruptions: the differences of all pairs."""
    found = []
    for numbers in sections:
        for which in numbers.sets:
            tables = [(pair, _with_places(pair_table(numbers, pair, which, "pair"))) for pair in numbers.section.pairs]
            if tables:
                name = f"pairs-{numbers.section.kind}-{which}"
                heading = table_title(numbers.section, "second minus first model", which)
                found.append(_stacked(numbers, name, heading, ("First", "Second"), tables))
    return tuple(found)


def cell_views(sections: Sequence[Numbers]) -> tuple[PageTable, ...]:
    """Make one table for each section: the numbers of all models under each corruption at each severity."""
    found = []
    for numbers in sections:
        grids = [((model.name,), grid_table(numbers, model, "cells")) for model in numbers.models]
        tables = [(names, table) for names, table in grids if table is not None]
        if tables:
            heading = table_title(numbers.section, "each corruption at each severity")
            found.append(_stacked(numbers, f"cells-{numbers.section.kind}", heading, ("Model",), tables))
    return tuple(found)


def model_view(report: Report) -> PageTable:
    """Make the table that describes the models and how they were evaluated."""
    return view_of(replace(model_table(report), title="What was evaluated"), ())


def _with_places(table: Table) -> Table:
    """Replace the names of a pair's models in the headers of its table by `first` and `second`, which fit any pair."""
    first, second, *others = table.columns
    first, second = replace(first, heading="first", span="number"), replace(second, heading="second", span="number")
    return replace(table, label="Under", columns=(first, second, *others))


def _stacked(
    numbers: Numbers, name: str, heading: str, leading: Sequence[str], tables: Sequence[tuple[Sequence[str], Table]]
) -> PageTable:
    """Put tables with the same columns below each other; each row begins with the names of its table's models."""
    notes = {model.name: model_note(model, numbers.models) for model in numbers.models}
    views = [view_of(table, (), grouped=True) for _, table in tables]
    columns = tuple(
        ViewColumn(text, role="model", numeric=False, head=True, width=_width(model.name for model in numbers.models))
        for text in leading
    )
    rows = [
        ViewRow((*(ViewCell(model, badges=_badges(notes[model])) for model in names), *row.cells), row.is_mean)
        for (names, _), view in zip(tables, views, strict=True)
        for row in view.rows
    ]
    # Leave out notes on single models, which are shown in the rows of these models.
    of_models = tuple(f"{model}: " for model in notes)
    told = dict.fromkeys(note for view in views for note in view.notes if not note.startswith(of_models))
    shared = _badges(shared_note(numbers.models))
    return PageTable(name, heading, (*columns, *views[0].columns), tuple(rows), shared, tuple(told))


def view_of(table: Table, models: Collection[str], *, grouped: bool | None = None) -> PageTable:
    """Convert a table of a report to a table of the page. The groups of rows become a column.

    Args:
        models: Names of the models, to recognise headers that are names of models.
        grouped: Whether to make a column of groups; None to make one if a group has a title.
    """
    of_models = table.label == "Model"
    grouped = any(group.title for group in table.groups) if grouped is None else grouped
    sourced = any(row.source for row in table.rows)
    columns = [ViewColumn("Group", numeric=False)] if grouped else []
    role: Role = "model" if of_models else "" if table.label == "Class" else "corruption"
    width = _width(row.label for row in table.rows)
    columns.append(ViewColumn(table.label, role=role, numeric=False, head=True, width=width))
    for column in table.columns:
        role = "model" if column.heading in models and not of_models else ""
        columns.append(_column(column, "corruption" if of_models and column.span in _GROUPS else role))
    if sourced:
        columns.append(ViewColumn("Source", numeric=False, wraps=True))
    rows = [
        ViewRow(
            (
                *([ViewCell(group.title or NO_NUMBER)] if grouped else ()),
                # The note of a published row is the number of its source, which has a column here.
                ViewCell(row.label, badges=() if row.source else _badges(row.note)),
                *(_cell(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)),
                *([ViewCell(row.source)] if sourced else ()),
            ),
            row.is_mean,
        )
        for group in table.groups
        for row in group.rows
    ]
    return PageTable(table.name, table.title, tuple(columns), tuple(rows), _badges(table.note), table.notes)


def _column(column: Column, role: Role) -> ViewColumn:
    text = column.heading + (f", {column.unit}" if column.unit and column.heading else column.unit)
    # Capitalise headings that are words; names such as mPC keep their small letter.
    text = (
        text[:1].upper() + text[1:]
        if column.heading.islower() and len(column.heading) > 1 and role != "model"
        else text
    )
    numeric = column.align != "left"
    return ViewColumn(
        text,
        column.span.capitalize() if column.span.islower() else column.span,
        "" if column.direction == "none" or not numeric else column.direction,
        column.arrow_on_span,
        role,
        numeric,
        about=_WHOLE_NAMES.get((column.span, column.heading), ""),
        badges=_badges(column.note),
    )


def _cell(cell: TableCell, column: Column) -> ViewCell:
    if not isinstance(cell.value, float | int):
        return ViewCell(cell.value or NO_NUMBER)
    return ViewCell(
        cell_text(cell, column),
        float(cell.value),
        # Show all intervals; other formats lack room for some.
        interval_text(cell, replace(column, with_interval=True)),
        "best" if "best" in cell.marks else "second" if "second" in cell.marks else "",
        "significant" in cell.marks,
        _badges(cell.note),
    )


def _width(names: Iterable[str]) -> int:
    """Return the width in characters of a column of names; names beyond the largest width are broken into lines."""
    return min(_WIDEST, max(map(len, names), default=0))


def _badges(note: str) -> tuple[Badge, ...]:
    """Make a badge that shows the first word of a note; return no badge for an empty note."""
    return (Badge(note.partition(" ")[0], note),) if note else ()
