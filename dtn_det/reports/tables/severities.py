"""Means over the corruptions at each severity."""

from __future__ import annotations

from dataclasses import replace

from dtn_det.corruptions.catalog import SEVERITIES
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.reports.tables.digits import common_decimals, ranked
from dtn_det.reports.tables.footer import footer
from dtn_det.reports.tables.measures import performance_measure
from dtn_det.reports.tables.naming import table_name, table_title
from dtn_det.reports.tables.numbers import Numbers, joined_notes, model_note, shared_note
from dtn_det.reports.tables.table import Cell, Column, Group, Row, Table

_ALL = 0


def severity_table(numbers: Numbers, which: CorruptionSet) -> Table | None:
    """One row a model and one column a severity: the mean error, or mPC and rPC; None without single severities."""
    report, section = numbers.report, numbers.section
    measure = performance_measure(section.kind)
    having = {key[4] for key in numbers.found if key[1:4] == (which, measure.mean, "")}
    severities = [severity for severity in SEVERITIES if severity in having]
    if not severities:
        return None
    reasons = [model.partial for model in numbers.models]
    groups = []
    for name in (measure.mean,) if section.kind == "top1" else ("mPC AP", "rPC AP"):
        columns = []
        every = [
            [numbers.cell(model, which, name, severity=severity) for model in numbers.models]
            for severity in (*severities, _ALL)
        ]
        decimals = common_decimals((cell for cells in every for cell in cells), measure.decimals)
        for cells in every:
            best = ranked(cells, measure.direction, decimals, reasons)
            columns.append([replace(cell, decimals=decimals) for cell in best])
        if any(cell.value is not None for cells in columns for cell in cells):
            groups.append(Group(_rows(numbers, columns), "" if section.kind == "top1" else name))
    column = Column("", decimals=measure.decimals, direction=measure.direction)
    shown = [replace(column, heading=str(severity), span="severity", arrow_on_span=True) for severity in severities]
    title = "mean error (%) at each severity" if section.kind == "top1" else "mPC and rPC (%) at each severity"
    return Table(
        table_name(report, section, "severities", which),
        table_title(section, title, which),
        "Model",
        (*shown, replace(column, heading="mean")),
        tuple(groups),
        shared_note(numbers.models),
        (),
        footer(report),
    )


def _rows(numbers: Numbers, columns: list[list[Cell]]) -> tuple[Row, ...]:
    rows = []
    for model, cells in zip(numbers.models, zip(*columns, strict=True), strict=True):
        # The last one, the mean over severities, tells how many cells are missing in all.
        own = tuple(replace(cell, note="") for cell in cells)
        rows.append(Row(model.name, own, joined_notes(cells[-1].note, model_note(model, numbers.models))))
    return tuple(rows)
