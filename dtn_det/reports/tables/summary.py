"""Tables with one row for each model: its main numbers over all corruptions, and what was evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dtn_det.metrics import CLEAN, LVIS_METRICS, METRICS
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.reports.contents import SELECTIVE, Report, ReportModel
from dtn_det.reports.labels import joined_notes, model_note, shared_note
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.tables.published import PublishedRow, published_group
from dtn_det.reports.tables.table import (
    Column,
    Group,
    Table,
    TableCell,
    TableRow,
    common_decimals,
    footer,
    model_cell,
    ranked,
    section_table,
    without_baseline_marks,
    without_shared_note,
)

_MILLION, _BILLION = 1e6, 1e9
_ONE_DECIMAL_FROM = 10

# Longest text of a setting in the table of models, in characters. Longer settings, such as whole pipelines, are only in
# the report's JSON.
_LONGEST_SETTING = 40
_HASH_DIGITS = 12
_FLOPS_NOTE = "FLOPs are multiply-adds for one image of the size that is named."


@dataclass(frozen=True)
class _Shown:
    """A column of the summary, and the name and scope of the number that it shows."""

    column: Column
    name: str
    scope: str = ""


def summary_table(numbers: Numbers, which: CorruptionSet, published: Sequence[PublishedRow] = ()) -> Table:
    """Make the table of all models with their main numbers over a set of corruptions.

    Args:
        published: Rows of published numbers to add below as a group of their own.
    """
    shown = [one for one in _columns(numbers) if numbers.has(one.name, which) or one.scope]
    sizes = size_columns(numbers.models)
    columns, cells = _filled(numbers, which, shown)
    rows = _rows(numbers, [*(column_cells for _, column_cells in sizes), *cells])
    groups = [Group(rows)]
    notes: tuple[str, ...] = ()
    columns = (*(column for column, _ in sizes), *columns)
    if published:
        names = (*(column.heading for column, _ in sizes), *(one.name for one in shown))
        below, notes = published_group(published, names)
        groups.append(below)
    return section_table(numbers, "summary", "summary", which, "Model", columns, groups, notes)


def size_columns(models: Sequence[ReportModel]) -> list[tuple[Column, tuple[TableCell, ...]]]:
    """Return the columns of parameters and FLOPs with the cells of all models; a column without numbers is left out."""
    sizes = (
        ("params", "M", [model.num_parameters for model in models], _MILLION),
        ("FLOPs", "G", [model.flops for model in models], _BILLION),
    )
    found = []
    for heading, unit, values, scale in sizes:
        known = [value / scale for value in values if value is not None]
        if known:
            column = Column(heading, unit, 1 if min(known) >= _ONE_DECIMAL_FROM else 2)
            found.append((column, tuple(TableCell(None if value is None else value / scale) for value in values)))
    return found


def metrics_table(numbers: Numbers, which: CorruptionSet) -> Table | None:
    """Make the table of P, mPC and rPC of detectors, with a group of rows for each average precision.

    Returns:
        The table; None for a report on clean images only, whose summary has all average precisions.
    """
    groups: list[Group] = []
    columns: tuple[Column, ...] = ()
    for metric in LVIS_METRICS:
        if not numbers.has(f"mPC {metric}", which):
            continue
        columns, cells = _filled(numbers, which, _precision_columns(metric))
        # Set the decimals of each cell: the intervals of different groups support different numbers of digits.
        fitted = [
            tuple(replace(cell, decimals=column.decimals) for cell in own)
            for column, own in zip(columns, cells, strict=True)
        ]
        groups.append(Group(_rows(numbers, fitted), metric))
    if not groups:
        return None
    columns = tuple(replace(column, heading=column.heading.partition(" ")[0], decimals=1) for column in columns)
    return section_table(numbers, "metrics", "every average precision", which, "Model", columns, groups)


def calibration_table(numbers: Numbers, which: CorruptionSet) -> Table | None:
    """Make the table of calibration and selective classification, or return None if a section has no such numbers.

    It has a group of rows for the clean images, and one for the means over all corruptions if these were computed.
    """
    down = Column("ECE", "%", 2, "down", with_interval=True)
    names = ("ECE", *SELECTIVE.values())
    groups: list[Group] = []
    columns: tuple[Column, ...] = ()
    for title, prefix, scope in (("Clean images", "", CLEAN[0]), ("Mean over corruptions", "mean ", "")):
        if not any(numbers.get(model.name, which, prefix + "AURC", scope) for model in numbers.models):
            continue
        shown = [
            _Shown(
                replace(down, heading=name, direction="up" if name.startswith("coverage") else "down"),
                prefix + name,
                scope,
            )
            for name in names
        ]
        columns, cells = _filled(numbers, which, shown)
        fitted = [
            tuple(replace(cell, decimals=column.decimals) for cell in own)
            for column, own in zip(columns, cells, strict=True)
        ]
        groups.append(Group(_rows(numbers, fitted), title))
    if not groups:
        return None
    columns = tuple(replace(column, decimals=down.decimals) for column in columns)
    text = "calibration and selective classification"
    return section_table(numbers, "calibration", text, which, "Model", columns, groups)


def _columns(numbers: Numbers) -> tuple[_Shown, ...]:
    if numbers.section.kind != "top1":
        # Show the first average precision that is available: imported results may lack AP.
        found = {key[2] for key in numbers.found}
        having = [metric for metric in METRICS if {f"P {metric}", f"mPC {metric}"} & found] or [METRICS[0]]
        if not any(name.startswith("mPC ") for name in found):
            return tuple(
                _Shown(Column(metric, "%", 1, "up", with_interval=metric == having[0]), f"P {metric}")
                for metric in having
            )
        return _precision_columns(having[0])
    with_baseline = any(key[2] == "mCE" for key in numbers.found)
    down = Column("error", "%", 1, "down", span="corrupted")
    if not any(key[2] == "mean error" for key in numbers.found):
        return tuple(_of_clean_images(numbers, down))
    return (
        _Shown(replace(down, span="clean"), "error", CLEAN[0]),
        _Shown(replace(down, heading="mCE", unit="", with_interval=True), "mCE"),
        _Shown(replace(down, heading="rel. mCE", unit=""), "relative mCE"),
        _Shown(replace(down, with_interval=not with_baseline), "mean error"),
        _Shown(replace(down, heading="top-5 error"), "mean top-5 error"),
        _Shown(replace(down, heading="ECE"), "mean ECE"),
        _Shown(replace(down, heading="NLL", unit="", decimals=2), "mean NLL"),
        _Shown(replace(down, heading="Brier", unit="", decimals=3), "mean Brier"),
    )


def _of_clean_images(numbers: Numbers, down: Column) -> Iterator[_Shown]:
    """Yield the columns for a report on clean images only."""
    down = replace(down, span="clean")
    for column, name in (
        (replace(down, with_interval=True), "error"),
        (replace(down, heading="top-5 error"), "top-5 error"),
        (replace(down, heading="ECE"), "ECE"),
        (replace(down, heading="NLL", unit="", decimals=2), "NLL"),
        (replace(down, heading="Brier", unit="", decimals=3), "Brier"),
    ):
        if any(key[2:4] == (name, CLEAN[0]) for key in numbers.found):
            yield _Shown(column, name, CLEAN[0])


def _precision_columns(metric: str) -> tuple[_Shown, ...]:
    up = Column(f"P {metric}", "%", 1, "up")
    return (
        _Shown(up, f"P {metric}"),
        _Shown(replace(up, heading=f"mPC {metric}", with_interval=True), f"mPC {metric}"),
        _Shown(replace(up, heading=f"rPC {metric}", with_interval=True), f"rPC {metric}"),
    )


def _filled(
    numbers: Numbers, which: CorruptionSet, shown: Sequence[_Shown]
) -> tuple[tuple[Column, ...], list[tuple[TableCell, ...]]]:
    """Return the columns with the decimals that their intervals support, and their cells with the best value marked."""
    reasons = [model.partial for model in numbers.models]
    columns, filled = [], []
    for one in shown:
        cells = [model_cell(numbers, model, which, one.name, one.scope) for model in numbers.models]
        column = replace(one.column, decimals=common_decimals(cells, one.column.decimals + numbers.more_decimals))
        columns.append(column)
        ranks = ranked(cells, column.direction, column.decimals, reasons)
        filled.append(without_baseline_marks(numbers, one.name, ranks))
    return tuple(columns), filled


def _rows(numbers: Numbers, columns: Sequence[Sequence[TableCell]]) -> tuple[TableRow, ...]:
    rows = []
    for model, own in zip(numbers.models, zip(*columns, strict=True), strict=True):
        cells, note = without_shared_note(own, of_one_model=True)
        rows.append(TableRow(model.name, cells, joined_notes(note, model_note(model, numbers.models))))
    return tuple(rows)


def model_table(report: Report) -> Table:
    """Make the table that describes each model and its evaluation, with one row for each model."""
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
            TableCell(_source(model)),
            *(own[place] for _, own in sizes),
            *(TableCell(texts[place]) for _, texts in told),
            TableCell(_settings(model.settings)),
            TableCell(model.weights_hash[:_HASH_DIGITS] or None),
        )
        rows.append(TableRow(model.name, cells, model_note(model, report.models)))
    groups = (Group(tuple(rows)),)
    notes = (_FLOPS_NOTE,) if any(model.flops_at for model in report.models) else ()
    return Table("models", "Models", "Model", columns, groups, shared_note(report.models), notes, footer(report))


def _source(model: ReportModel) -> str:
    return model.source if model.origin == "measured" else f"imported from {model.source}"


def _settings(settings: Mapping[str, str]) -> str | None:
    return ", ".join(f"{key} {value}" for key, value in settings.items() if len(value) <= _LONGEST_SETTING) or None
