"""Tables of what each type of error of detectors costs, in points of AP50."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dtn_det.corruptions.catalog import SEVERITIES
from dtn_det.metrics import CLEAN
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.metrics.error_costs import ERROR_METRICS
from dtn_det.metrics.error_types import REPAIRS
from dtn_det.reports.contents import ReportModel
from dtn_det.reports.labels import joined_notes, model_note, title
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
    without_shared_note,
)

_DECIMALS = 2
_NOTES = (
    "How much AP50 would grow, in points, if all errors of one type were repaired (TIDE, arXiv:2008.08115): wrong "
    "class (Cls), bad localization (Loc), both (Both), duplicate (Dupe), background (Bkg), missed object (Miss), all "
    "false positives (FalsePos), all false negatives (FalseNeg). The costs do not add up.",
)


def error_table(numbers: Numbers, which: CorruptionSet) -> Table | None:
    """Make the table of the costs of all models on clean images, on average, and at each severity.

    Returns:
        None if the costs were not computed.
    """
    scopes = [("Clean images", "", CLEAN[0], 0), ("Mean over corruptions", "mean ", "", 0)]
    scopes += [(f"Severity {severity}", "mean ", "", severity) for severity in SEVERITIES]
    reasons = [model.partial for model in numbers.models]
    groups = []
    for heading, prefix, scope, severity in scopes:
        columns = []
        for cost in ERROR_METRICS:
            cells = [model_cell(numbers, model, which, f"{prefix}{cost}", scope, severity) for model in numbers.models]
            decimals = common_decimals(cells, _DECIMALS)
            columns.append([replace(cell, decimals=decimals) for cell in ranked(cells, "down", decimals, reasons)])
        if any(cell.value is not None for cells in columns for cell in cells):
            rows = zip(numbers.models, zip(*columns, strict=True), strict=True)
            groups.append(Group(tuple(_row(model, cells, numbers) for model, cells in rows), heading))
    if not groups:
        return None
    return section_table(numbers, "errors", "cost of each type of error", which, "Model", _columns(), groups, _NOTES)


def _row(model: ReportModel, cells: Sequence[TableCell], numbers: Numbers) -> TableRow:
    kept, note = without_shared_note(cells, of_one_model=True)
    return TableRow(model.name, kept, joined_notes(note, model_note(model, numbers.models)))


def model_error_table(numbers: Numbers, model: ReportModel, name: str) -> Table | None:
    """Make the table of the costs of one model under each corruption, over all severities.

    Args:
        name: Name of the table's files, as the name of a model may not be valid in a file name.

    Returns:
        None if the costs were not computed.
    """

    def row(label: str, prefix: str, which: CorruptionSet, scope: str, is_mean: bool = False) -> TableRow:
        cells = [model_cell(numbers, model, which, f"{prefix}{cost}", scope) for cost in ERROR_METRICS]
        return TableRow(label, *without_shared_note(cells), is_mean)

    groups = [Group((row("Clean", "", "benchmark", CLEAN[0]),))]
    for group, corruptions in numbers.catalog.groups.items():
        which: CorruptionSet = "extra" if group == "extra" else "benchmark"
        rows = [row(title(scope), "mean ", which, scope) for scope in corruptions]
        if which == "benchmark":
            rows.append(row(f"{title(group)}: mean", "mean ", which, group, True))
        groups.append(Group(tuple(rows), title(group)))
    groups = [Group(tuple(one for one in group.rows if _has_numbers(one)), group.title) for group in groups]
    groups = [group for group in groups if group.rows]
    if not groups:
        return None
    every = [cell for group in groups for one in group.rows for cell in one.cells]
    columns = [replace(column, decimals=common_decimals(every, _DECIMALS)) for column in _columns()]
    text = f"cost of each type of error of {model.name} under each corruption"
    return section_table(numbers, name, text, "benchmark", "Corruption", columns, groups, _NOTES, models=[model])


def _has_numbers(row: TableRow) -> bool:
    return any(cell.value is not None for cell in row.cells)


def _columns() -> list[Column]:
    return [Column(repair, decimals=_DECIMALS, direction="down") for repair in REPAIRS]
