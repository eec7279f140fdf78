"""Makes the tables of an overview: the numbers of each model, and the differences of each pair."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from dtn_det.reports.changes import is_least, least_p_value, p_decimals
from dtn_det.reports.labels import ARROWS
from dtn_det.reports.numbers import Number
from dtn_det.reports.overview.coco_o import SLOPE
from dtn_det.reports.overview.contents import EFFECTIVE, MEAN_AP, Overview, OverviewColumn
from dtn_det.reports.tables.published import PublishedRow, published_group
from dtn_det.reports.tables.table import (
    Column,
    Group,
    Mark,
    Table,
    TableCell,
    TableRow,
    common_decimals,
    explained,
    intervals_line,
    ranked,
    supported_decimals,
)

_DECIMALS = 1
_CERTAIN = 1e-9


def overview_tables(overview: Overview, published: Sequence[PublishedRow] = ()) -> tuple[Table, ...]:
    """Make the table of all numbers and, if models were compared, that of their differences.

    Args:
        published: Rows of published numbers to add below the numbers as a group of their own; see
            :func:`dtn_det.reports.tables.published.rows_of_sets`.
    """
    tables = [overview_table(overview, published)]
    if overview.differences:
        tables.append(difference_table(overview))
    return tuple(map(explained, tables))


def overview_table(overview: Overview, published: Sequence[PublishedRow] = ()) -> Table:
    """Make the table with a row for each model and the columns of all sets, and published rows below."""
    shared = {column.key: _shared(overview, column) for column in overview.columns}
    columns, cells = [], []
    for column in overview.columns:
        own = [_cell(overview, model.name, column, shared[column.key]) for model in overview.models]
        decimals = common_decimals(own, _DECIMALS)
        note = shared[column.key]
        columns.append(
            Column(
                column.measure,
                column.unit,
                decimals,
                column.direction,
                span=column.title,
                note=note,
                with_interval=True,
            )
        )
        cells.append(ranked(own, column.direction, decimals))
    rows = tuple(
        TableRow(model.name, own) for model, own in zip(overview.models, zip(*cells, strict=True), strict=True)
    )
    groups, notes = [Group(rows)], _notes(overview)
    # A published row that shares only the clean accuracy with the models says nothing about robustness.
    telling = {column.known for column in overview.columns if column.measure != "clean top-1"} - {"", "imagenet/top-1"}
    fitting = [row for row in published if telling & row.values.keys()]
    if fitting:
        below, sources = published_group(fitting, [column.known for column in overview.columns])
        groups.append(below)
        notes += sources
    return Table("overview", "Overview", "Model", tuple(columns), tuple(groups), "", notes, footer(overview))


def _shared(overview: Overview, column: OverviewColumn) -> str:
    """Return the note that the numbers of all models in a column have; empty if they have several or none."""
    keys = [(model.name, column.key) for model in overview.models if (model.name, column.key) in overview.numbers]
    notes = {overview.notes.get(key, "") for key in keys}
    return notes.pop() if len(notes) == 1 else ""


def _cell(overview: Overview, model: str, column: OverviewColumn, shared: str) -> TableCell:
    number = overview.numbers.get((model, column.key))
    if number is None:
        return TableCell()
    note = overview.notes.get((model, column.key), "")
    marks: frozenset[Mark] = frozenset({"partial"} if note else ())
    return TableCell(number.value, _interval(number), marks, "" if note == shared else note)


def _interval(number: Number) -> tuple[float, float] | None:
    return (number.low, number.high) if number.has_interval and number.high - number.low > _CERTAIN else None


def difference_table(overview: Overview) -> Table:
    """Make the table of differences, second minus first, with a group of rows for each pair."""
    about = overview.some_report.provenance
    digits = p_decimals(about.replicates)
    columns = (
        Column("first"),
        Column("second"),
        Column("difference", decimals=2, signed=True, with_interval=True),
        Column("p", decimals=digits),
        Column("p (Holm)", decimals=digits),
    )
    groups = []
    for first, second in overview.pairs:
        rows = tuple(_difference_rows(overview, first, second))
        if rows:
            groups.append(Group(rows, f"{second} minus {first}"))
    most = max(len(group.rows) for group in groups)
    notes = [
        "Differences in points with paired intervals, on the same images of each set; of drops on the same classes. "
        f"p: two-sided, not below {least_p_value(about.replicates):.{digits}f} with {about.replicates:,} replicates.",
        "The p-values of a pair are adjusted together, over all its rows, by Holm's method. * significant at "
        f"{100 * (1 - about.level):g} % after the adjustment.",
    ]
    needed = math.ceil(2 * most / (1 - about.level))
    if about.replicates < needed:
        notes.append(
            f"With {about.replicates:,} replicates no one of {most} differences can be significant after the "
            f"adjustment: that takes {needed:,}."
        )
    return Table(
        "overview-differences",
        "Overview: differences",
        "Set and measure",
        columns,
        tuple(groups),
        "",
        tuple(notes),
        footer(overview),
    )


def _difference_rows(overview: Overview, first: str, second: str) -> Iterator[TableRow]:
    about = overview.some_report.provenance
    for column in overview.columns:
        change = overview.differences.get((first, second, column.key))
        if change is None or math.isnan(change.p_value):
            continue
        decimals = supported_decimals((change.low, change.high), 2)
        plain = [
            TableCell(overview.numbers[model, column.key].value, decimals=min(decimals, 1)) for model in (first, second)
        ]
        marks: set[Mark] = {"significant"} if change.p_adjusted < 1 - about.level else set()
        difference = TableCell(change.value, (change.low, change.high), frozenset(marks), decimals=decimals)
        bound: frozenset[Mark] = frozenset({"bound"} if is_least(change.p_value, about.replicates) else ())
        cells = (*plain, difference, TableCell(change.p_value, marks=bound), TableCell(change.p_adjusted, marks=bound))
        note = overview.notes.get((second, column.key), "")
        label = " ".join(filter(None, (column.title, column.measure, ARROWS[column.direction])))
        yield TableRow(label, cells, note)


def _notes(overview: Overview) -> tuple[str, ...]:
    measures = {column.measure for column in overview.columns}
    said = []
    if measures & {"mCE", "mCE_3d"}:
        baselines = {
            report.baseline
            for name, report in overview.reports.items()
            if any(column.name == name and column.measure.startswith("mCE") for column in overview.columns)
        }
        named = sorted("AlexNet's published ones" if one == "alexnet" else f"those of {one}" for one in baselines)
        said.append(f"mCE: errors divided by {' or '.join(named)}, mean over the corruptions.")
    if "mCE_3d" in measures:
        said.append("mCE_3d is the mCE of ImageNet-3DCC.")
    if "mean error" in measures:
        said.append("mean error: top-1 error, mean over corruptions and severities.")
    if "drop" in measures:
        said.append(
            "drop: top-1 on the clean images of the same classes minus top-1 on the set, with intervals of a bootstrap "
            "over the classes, the same ones for both sets."
        )
    if any(measure.endswith("mPC") for measure in measures):
        said.append("mPC: AP, mean over corruptions of the mean over severities.")
    if MEAN_AP in measures:
        said.append(f"{MEAN_AP}: AP of boxes, mean over the six domains of COCO-O, with draws of each domain's own.")
    if EFFECTIVE in measures and overview.some_report.task == "detection":
        said.append(
            f"{EFFECTIVE}: the mean over COCO-O's domains minus {SLOPE:g} x the AP on COCO's validation images (Mao et "
            "al. 2023)."
        )
    elif EFFECTIVE in measures:
        said.append(
            f"{EFFECTIVE}: top-1 on the set beyond that of timm's models of the same clean top-1 that were trained on "
            "ImageNet-1k alone (Taori et al. 2020), with intervals over the classes; beyond the fit: none of these "
            "models has such a clean top-1."
        )
    return tuple(said)


def footer(overview: Overview) -> tuple[str, ...]:
    """Return the lines below a table on the data of all sets, intervals, versions and date."""
    lines = []
    for name, report in overview.reports.items():
        about = report.provenance
        chosen = "all" if about.selection == "all" else f"selection {about.selection}"
        images = f", {about.num_images:,} images ({chosen})" if about.num_images else ""
        made = f"; corruptions: {about.corruption}" if report.is_corrupted else ""
        lines.append(f"{overview.titles[name]}: {about.data}{images}{made}.")
    some = overview.some_report
    lines.append(intervals_line(some))
    versions: dict[str, dict[str, None]] = {}
    for report in overview.reports.values():
        for library, version in report.provenance.versions.items():
            versions.setdefault(library, {})[version] = None
    told = ", ".join(f"{library} {', '.join(found)}" for library, found in versions.items())
    return (*lines, f"Versions: {told}. Report of {some.provenance.date}.")
