"""The table of the differences of two models, with paired intervals and p-values."""

from __future__ import annotations

import math

from dtn_det.metrics.cells import CorruptionSet
from dtn_det.reports.changes import Change, Family, families, is_least, least_p_value, p_decimals
from dtn_det.reports.labels import model_note
from dtn_det.reports.measures import corruption_measure
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.tables.table import (
    Column,
    Group,
    Mark,
    Table,
    TableCell,
    TableRow,
    section_table,
    supported_decimals,
)

_DECIMALS = 2


def pair_table(numbers: Numbers, pair: tuple[str, str], which: CorruptionSet, name: str) -> Table:
    """Make the table of differences, second minus first: overall, groups, corruptions, and for detectors other APs.

    Args:
        name: Name of the table's files, as the names of models may not be valid in file names.
    """
    direction = corruption_measure(numbers, which).direction
    found = families(numbers, pair, which)
    digits = p_decimals(numbers.report.provenance.replicates)
    columns = (
        *(Column(model, direction=direction) for model in pair),
        Column("difference", decimals=_DECIMALS, direction=direction, signed=True, with_interval=True),
        Column("p", decimals=digits),
        Column("p (Holm)", decimals=digits),
    )
    groups = tuple(
        Group(tuple(_row(numbers, change, family) for change in family.changes), family.title) for family in found
    )
    text = f"{pair[1]} minus {pair[0]}"
    return section_table(numbers, name, text, which, "", columns, groups, _notes(numbers, pair, found))


def _row(numbers: Numbers, change: Change, family: Family) -> TableRow:
    about = numbers.report.provenance
    decimals = supported_decimals(change.interval, _DECIMALS)
    plain = [TableCell(value, decimals=min(decimals, 1)) for value in (change.first, change.second)]
    marks: set[Mark] = {"significant"} if change.significant(about.level) else set()
    if change.partial:
        marks.add("partial")
    difference = TableCell(change.value, change.interval, frozenset(marks), decimals=decimals)
    least = change.p_value is not None and is_least(change.p_value, about.replicates)
    bound: frozenset[Mark] = frozenset({"bound"} if least else ())
    adjusted = TableCell(change.adjusted, marks=bound) if family.adjusted_together else TableCell()
    cells = (*plain, difference, TableCell(change.p_value, marks=bound), adjusted)
    return TableRow(change.label, cells, change.partial)


def _notes(numbers: Numbers, pair: tuple[str, str], found: tuple[Family, ...]) -> tuple[str, ...]:
    about = numbers.report.provenance
    own = {name: model_note(numbers.report.model(name), numbers.models) for name in pair}
    notes = [f"{name}: {note}." for name, note in own.items() if note]
    percent = f"{100 * about.level:g} %"
    each = [f"{len(one.changes)} {one.title.lower()}" for one in found if not one.adjusted_together]
    together = [f"{len(one.changes)} {one.title.lower()}" for one in found if one.adjusted_together]
    compared = [f"{', '.join(each)}, each for itself"] if each else []
    if together:
        compared.append(f"{', '.join(together)}, with Holm's adjustment within each block")
    notes += [
        f"Differences in percentage points with paired {percent} intervals; p: two-sided, not below "
        f"{least_p_value(about.replicates):.{p_decimals(about.replicates)}f} with {about.replicates:,} replicates.",
        f"Comparisons: {'; '.join(compared)}. * significant at {100 * (1 - about.level):g} %, "
        "adjusted where there is an adjustment.",
    ]
    largest = max((len(one.changes) for one in found if one.adjusted_together), default=1)
    needed = math.ceil(2 * largest / (1 - about.level))
    if about.replicates < needed:
        notes.append(
            f"With {about.replicates:,} replicates no one of {largest} differences can be significant after the "
            f"adjustment: that takes {needed:,}."
        )
    return tuple(notes)
