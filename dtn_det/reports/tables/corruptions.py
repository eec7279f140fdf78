"""Tables of each corruption and of each severity, in the order and the groups of the paper's tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dtn_det.corruptions.catalog import SEVERITIES
from dtn_det.metrics import CLEAN
from dtn_det.metrics.cells import CorruptionSet, corruptions_of
from dtn_det.reports.contents import ReportModel
from dtn_det.reports.labels import joined_notes, model_note, short, title
from dtn_det.reports.measures import Measure, corruption_measure, performance_measure
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.tables.table import (
    Column,
    Group,
    Table,
    TableCell,
    TableRow,
    common_decimals,
    model_cell,
    ranked,
    section_table,
    without_baseline_marks,
    without_shared_note,
)

_ALL_CORRUPTIONS = "All corruptions"

MOST_MODELS_AS_COLUMNS = 6
"""Largest number of models that are columns of the table of corruptions; more models are rows, as in papers."""

_ALL_SEVERITIES = 0


@dataclass(frozen=True)
class _TableLine:
    """A line of the table of corruptions: the name and scope of the number that it shows, and its labels."""

    group: str
    label: str
    short: str
    name: str
    scope: str
    is_mean: bool


def corruption_table(numbers: Numbers, which: CorruptionSet, measure: Measure | None = None) -> Table:
    """Make the table of each corruption and the mean of each group, over all severities.

    Models are columns if there are at most :data:`MOST_MODELS_AS_COLUMNS` of them, else rows.

    Args:
        measure: The measure to show; None for corruption errors if there is a baseline, else the error or AP.
    """
    measure = measure or corruption_measure(numbers, which)
    lines = list(_lines(numbers, which, measure))
    cells = {
        line: [model_cell(numbers, model, which, line.name, line.scope) for model in numbers.models] for line in lines
    }
    decimals = common_decimals(
        (cell for own in cells.values() for cell in own), measure.decimals + numbers.more_decimals
    )
    reasons = [model.partial for model in numbers.models]
    best = {
        line: without_baseline_marks(numbers, line.name, ranked(own, measure.direction, decimals, reasons))
        for line, own in cells.items()
    }
    text = f"{measure.heading} under each corruption"
    column = Column("", decimals=decimals, direction=measure.direction)
    if len(numbers.models) <= MOST_MODELS_AS_COLUMNS:
        label, columns, groups = "Corruption", *_models_as_columns(numbers.models, best, column)
    else:
        label, columns, groups = "Model", *_models_as_rows(numbers.models, best, column)
    return section_table(numbers, "corruptions", text, which, label, columns, groups)


def grid_table(numbers: Numbers, model: ReportModel, name: str) -> Table | None:
    """Make the table of each corruption at each severity for one model; None if single severities are unknown.

    Args:
        name: Name of the table's files, as the name of a model may not be valid in a file name.
    """
    measure = performance_measure(numbers.section.kind)
    groups = []
    if not any(key[0] == model.name and key[2] == measure.cell and key[4] for key in numbers.found):
        return None
    for group, corruptions in numbers.catalog.groups.items():
        which: CorruptionSet = "extra" if group == "extra" else "benchmark"
        rows = []
        for corruption in corruptions:
            cells = [model_cell(numbers, model, which, measure.cell, corruption, severity) for severity in SEVERITIES]
            mean = model_cell(numbers, model, which, measure.mean, corruption)
            if mean.value is not None:
                rows.append(TableRow(title(corruption), (*cells, replace(mean, note="")), mean.note))
        if rows:
            groups.append(Group(tuple(rows), title(group)))
    clean = model_cell(numbers, model, "benchmark", measure.cell, CLEAN[0])
    if clean.value is not None:
        groups.insert(0, Group((TableRow("Clean", (*(TableCell() for _ in SEVERITIES), clean)),)))
    every = [cell for group in groups for row in group.rows for cell in row.cells]
    decimals = common_decimals(every, measure.decimals + numbers.more_decimals)
    column = Column("", decimals=decimals, direction=measure.direction)
    severities = (
        replace(column, heading=str(severity), span="severity", arrow_on_span=True) for severity in SEVERITIES
    )
    text = f"{measure.heading} of {model.name} under each corruption and severity"
    columns = (*severities, replace(column, heading="mean"))
    return section_table(numbers, name, text, "benchmark", "Corruption", columns, groups, models=[model])


def _lines(numbers: Numbers, which: CorruptionSet, measure: Measure) -> Iterator[_TableLine]:
    # A table of corruption errors has no line for clean images; the summary shows their error.
    if measure.cell and numbers.has(measure.cell, which):
        yield _TableLine("", "Clean", "clean", measure.cell, CLEAN[0], False)
    having = {key[3] for key in numbers.found if key[1:3] == (which, measure.corruption)}
    for group, corruptions in numbers.catalog.groups.items():
        present = [name for name in corruptions if name in having and name in corruptions_of(which, numbers.catalog)]
        for name in present:
            yield _TableLine(title(group), title(name), short(name), measure.corruption, name, False)
        if present and which == "benchmark":
            yield _TableLine(title(group), f"{title(group)}: mean", "mean", measure.mean, group, True)
    yield _TableLine(_ALL_CORRUPTIONS, measure.mean_title, measure.mean_title, measure.mean, "", True)


def _models_as_columns(
    models: Sequence[ReportModel], best: dict[_TableLine, tuple[TableCell, ...]], column: Column
) -> tuple[tuple[Column, ...], tuple[Group, ...]]:
    columns = tuple(replace(column, heading=model.name, note=model_note(model, models)) for model in models)
    groups: dict[str, list[TableRow]] = {}
    for line, own in best.items():
        cells, note = without_shared_note(own)
        groups.setdefault(line.group, []).append(TableRow(line.label, cells, note, line.is_mean))
    return columns, tuple(Group(tuple(rows), name) for name, rows in groups.items())


def _models_as_rows(
    models: Sequence[ReportModel], best: dict[_TableLine, tuple[TableCell, ...]], column: Column
) -> tuple[tuple[Column, ...], tuple[Group, ...]]:
    spans = [line.group if line.group != _ALL_CORRUPTIONS else "" for line in best]
    columns = tuple(
        replace(column, heading=line.short, span=span, arrow_on_span=bool(span))
        for line, span in zip(best, spans, strict=True)
    )
    rows = []
    for place, model in enumerate(models):
        cells, note = without_shared_note([own[place] for own in best.values()], of_one_model=True)
        rows.append(TableRow(model.name, cells, joined_notes(note, model_note(model, models))))
    return columns, (Group(tuple(rows)),)


def severity_table(numbers: Numbers, which: CorruptionSet) -> Table | None:
    """Make the table of the mean error, or mPC and rPC, at each severity; None if single severities are unknown."""
    is_top1 = numbers.section.kind == "top1"
    measure = performance_measure(numbers.section.kind)
    having = {key[4] for key in numbers.found if key[1:4] == (which, measure.mean, "")}
    severities = [severity for severity in SEVERITIES if severity in having]
    if not severities:
        return None
    reasons = [model.partial for model in numbers.models]
    groups = []
    for name in (measure.mean,) if is_top1 else ("mPC AP", "rPC AP"):
        columns = []
        every = [
            [model_cell(numbers, model, which, name, severity=severity) for model in numbers.models]
            for severity in (*severities, _ALL_SEVERITIES)
        ]
        decimals = common_decimals((cell for cells in every for cell in cells), measure.decimals)
        for cells in every:
            best = ranked(cells, measure.direction, decimals, reasons)
            columns.append([replace(cell, decimals=decimals) for cell in best])
        if any(cell.value is not None for cells in columns for cell in cells):
            groups.append(Group(_rows(numbers, columns), "" if is_top1 else name))
    column = Column("", decimals=measure.decimals, direction=measure.direction)
    shown = [replace(column, heading=str(severity), span="severity", arrow_on_span=True) for severity in severities]
    text = f"{'mean error' if is_top1 else 'mPC and rPC'} (%) at each severity"
    shown.append(replace(column, heading="mean"))
    return section_table(numbers, "severities", text, which, "Model", shown, groups)


def _rows(numbers: Numbers, columns: list[list[TableCell]]) -> tuple[TableRow, ...]:
    rows = []
    for model, cells in zip(numbers.models, zip(*columns, strict=True), strict=True):
        # Use only the note of the last cell, the mean over severities: it contains the number of all missing cells.
        own = tuple(replace(cell, note="") for cell in cells)
        rows.append(TableRow(model.name, own, joined_notes(cells[-1].note, model_note(model, numbers.models))))
    return tuple(rows)
