"""Numbers that others published, each with its source, to be shown next to measured ones but never among them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from dtn_det.reports.contents import Kind, Report
from dtn_det.reports.tables.table import Group, TableCell, TableRow

_FILE = "published.json"
_BENCHMARKS: Mapping[Kind, str] = {"top1": "ImageNet-C", "bbox": "COCO-C", "segm": "COCO-C"}


@dataclass(frozen=True)
class PublishedRow:
    """The numbers of a model that somebody else measured.

    Attributes:
        model: Name of the model as its authors call it.
        kind: Kind of the numbers.
        values: Numbers by name as in :attr:`dtn_det.reports.contents.Section.numbers` (``error`` is that of the clean
            images), in percent, and ``FLOPs`` in billions of multiply-adds; no value has more digits than were
            published.
        source: Paper or repository, and the place in it.
    """

    model: str
    kind: Kind
    values: Mapping[str, float]
    source: str

    @property
    def benchmark(self) -> str:
        """The benchmark that the numbers were measured on."""
        return _BENCHMARKS[self.kind]


@lru_cache(maxsize=1)
def published_rows() -> tuple[PublishedRow, ...]:
    """Return all published numbers that the package knows."""
    told = json.loads(resources.files("dtn_det.reports").joinpath(_FILE).read_text(encoding="utf-8"))
    return tuple(PublishedRow(**{**row, "source": told["sources"][row["source"]]}) for row in told["rows"])


def published_for(report: Report) -> tuple[PublishedRow, ...]:
    """Return the published rows that may stand below the measured numbers of a report.

    Rows of ImageNet-C say nothing about classifiers of other classes, whose reports get none.
    """
    kinds = {section.kind for section in report.sections}
    classes = report.provenance.settings.get("classes", "imagenet")
    fitting = kinds if report.task == "detection" or classes == "imagenet" else set()
    return tuple(row for row in published_rows() if row.kind in fitting)


def published_group(published: Sequence[PublishedRow], names: Sequence[str]) -> tuple[Group, tuple[str, ...]]:
    """Make a group of rows without ranks, each with the number of its source, and notes that list the sources.

    Args:
        published: At least one row.
        names: Name of the number that each column shows.
    """
    sources = list(dict.fromkeys(row.source for row in published))
    rows = []
    for one in published:
        values = (one.values.get(name) for name in names)
        cells = (
            TableCell()
            if value is None
            else TableCell(value, marks=frozenset({"published"}), decimals=_decimals(value))
            for value in values
        )
        rows.append(TableRow(one.model, tuple(cells), f"[{sources.index(one.source) + 1}]", source=one.source))
    notes = (
        f"Published rows are for {published[0].benchmark} or its clean images, were not measured here, and are not "
        "ranked.",
        *(f"[{number}] {source}" for number, source in enumerate(sources, 1)),
    )
    return Group(tuple(rows), "Published, not measured here"), notes


def _decimals(value: float) -> int:
    """Return the decimals that a value was written with."""
    return len(repr(value).partition(".")[2])
