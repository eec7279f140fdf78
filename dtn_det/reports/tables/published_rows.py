"""Published numbers as rows below those that were measured."""

from __future__ import annotations

from collections.abc import Sequence

from dtn_det.reports.published import PublishedRow
from dtn_det.reports.tables.table import Cell, Group, Row


def published_group(published: Sequence[PublishedRow], names: Sequence[str]) -> tuple[Group, tuple[str, ...]]:
    """A group of rows without ranks, each with the number of its source, and the sources as notes.

    Args:
        published: At least one row.
        names: Of the number that each column shows.
    """
    sources = list(dict.fromkeys(row.source for row in published))
    rows = []
    for one in published:
        values = (one.values.get(name) for name in names)
        cells = (
            Cell() if value is None else Cell(value, marks=frozenset({"published"}), decimals=_decimals(value))
            for value in values
        )
        rows.append(Row(one.model, tuple(cells), f"[{sources.index(one.source) + 1}]", source=one.source))
    notes = (
        f"Published rows are for {published[0].benchmark} or its clean images, were not measured here, and are not "
        "ranked.",
        *(f"[{number}] {source}" for number, source in enumerate(sources, 1)),
    )
    return Group(tuple(rows), "Published, not measured here"), notes


def _decimals(value: float) -> int:
    """Decimals that a value was written with."""
    return len(repr(value).partition(".")[2])
