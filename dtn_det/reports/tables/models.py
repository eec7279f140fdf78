"""What was evaluated: sources, sizes, training, settings and weights of the models."""

from __future__ import annotations

from collections.abc import Mapping

from dtn_det.reports.contents import Report, ReportModel
from dtn_det.reports.tables.footer import footer
from dtn_det.reports.tables.numbers import model_note, shared_note
from dtn_det.reports.tables.summary import size_columns
from dtn_det.reports.tables.table import Cell, Column, Group, Row, Table

# Longer ones, such as whole pipelines, are in the report's JSON.
_LONGEST_SETTING = 40
_HASH_DIGITS = 12
_FLOPS = "FLOPs are multiply-adds for one image of the size that is named."


def model_table(report: Report) -> Table:
    """One row a model."""
    sizes = size_columns(report.models)
    known = (
        ("FLOPs at", [model.flops_at or None for model in report.models]),
        ("training", [_settings(model.training) for model in report.models]),
    )
    told = [(heading, texts) for heading, texts in known if any(texts)]
    columns = (
        Column("source", align="left"),
        *(column for column, _ in sizes),
        *(Column(heading, align="left") for heading, _ in told),
        Column("settings", align="left"),
        Column("SHA-256 of weights", align="left"),
    )
    rows = []
    for place, model in enumerate(report.models):
        cells = (
            Cell(_source(model)),
            *(own[place] for _, own in sizes),
            *(Cell(texts[place]) for _, texts in told),
            Cell(_settings(model.settings)),
            Cell(model.weights_hash[:_HASH_DIGITS] or None),
        )
        rows.append(Row(model.name, cells, model_note(model, report.models)))
    groups = (Group(tuple(rows)),)
    notes = (_FLOPS,) if any(model.flops_at for model in report.models) else ()
    return Table("models", "Models", "Model", columns, groups, shared_note(report.models), notes, footer(report))


def _source(model: ReportModel) -> str:
    return model.source if model.origin == "measured" else f"imported from {model.source}"


def _settings(settings: Mapping[str, str]) -> str | None:
    return ", ".join(f"{key} {value}" for key, value in settings.items() if len(value) <= _LONGEST_SETTING) or None
