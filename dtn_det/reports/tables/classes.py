"""The tables of the classes of which a model loses most and least under corruption."""

from __future__ import annotations

import math

from dtn_det.reports.classes import LEAST_IMAGES, SHOWN
from dtn_det.reports.contents import Direction, ReportModel
from dtn_det.reports.labels import one_line
from dtn_det.reports.numbers import SETS, Numbers
from dtn_det.reports.tables.table import (
    Column,
    Group,
    Table,
    TableCell,
    TableRow,
    section_table,
    supported_decimals,
)

_TITLES = {"most": "Lose most", "least": "Lose least", "all": "All classes"}


def class_table(numbers: Numbers, model: ReportModel, name: str) -> Table | None:
    """Make the table of the classes of which a model loses most and least; None if it has no such numbers.

    Args:
        name: Name of the table's files, as the names of models may not be valid in file names.
    """
    frame = numbers.section.classes
    own = frame[frame["model"] == model.name]
    if own.empty:
        return None
    span: str = "error"
    direction: Direction = "down"
    if numbers.section.kind != "top1":
        span, direction = "AP", "up"
    columns = (
        Column("clean", "%", direction=direction, span=span),
        Column("corrupted", "%", direction=direction, span=span),
        Column("difference", "%", direction=direction, signed=True, with_interval=True),
        Column("images", decimals=0),
    )
    groups = []
    for end, title in _TITLES.items():
        rows = []
        for row in own[own["end"] == end].itertuples():
            ends = None if math.isnan(row.low) else (row.low, row.high)
            difference = TableCell(row.difference, ends, decimals=supported_decimals(ends, 1))
            cells = (TableCell(row.clean), TableCell(row.corrupted), difference, TableCell(float(row.images)))
            rows.append(TableRow(one_line(row.name), cells))
        if rows:
            groups.append(Group(tuple(rows), title))
    notes = (
        "Corrupted: mean over corruptions and severities. Difference: corrupted minus clean, in percentage points; its "
        f"interval is over {'the images of the class' if span == 'error' else 'all images'}.",
        f"Classes of at least {LEAST_IMAGES} images. The first and the last {SHOWN} of many classes are extreme by "
        "chance too: other images of them would differ less.",
    )
    text = f"classes of {model.name}"
    return section_table(numbers, name, text, SETS[0], "Class", columns, groups, notes, models=[model])
