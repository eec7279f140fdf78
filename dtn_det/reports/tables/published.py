"""Numbers that others published, each with its source, to be shown apart from measured ones."""

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
    """The numbers of a model that others measured and published.

    Attributes:
        model: Name of the model as its authors call it.
        kind: Kind of the numbers: ``top1``, ``bbox`` or ``segm``.
        values: Numbers in percent, by their names in :attr:`dtn_det.reports.contents.Section.numbers`; ``error`` is the
            error on clean images. ``FLOPs`` are in billions of multiply-adds. All numbers have their published digits.
        source: Paper or repository, and the place of the numbers in it.
    """

    model: str
    kind: Kind
    values: Mapping[str, float]
    source: str

    @property
    def benchmark(self) -> str:
        """Name of the benchmark on which the numbers were measured."""
        return _BENCHMARKS[self.kind]


@lru_cache(maxsize=1)
def published_rows() -> tuple[PublishedRow, ...]:
    """Return all published numbers that the package knows."""
    told = json.loads(resources.files("dtn_det.reports").joinpath(_FILE).read_text(encoding="utf-8"))
    return tuple(PublishedRow(**{**row, "source": told["sources"][row["source"]]}) for row in told["rows"])


def published_for(report: Report) -> tuple[PublishedRow, ...]:
    """Return the published rows that may be shown with the measured numbers of a report.

    Published rows of classifiers are for ImageNet-C; a report on other classes than ImageNet's gets none.
    """
    kinds = {section.kind for section in report.sections}
    classes = report.provenance.settings.get("classes", "imagenet")
    fitting = kinds if report.task == "detection" or classes == "imagenet" else set()
    return tuple(row for row in published_rows() if row.kind in fitting)


def published_group(published: Sequence[PublishedRow], names: Sequence[str]) -> tuple[Group, tuple[str, ...]]:
    """Make a group of published rows, each marked with the number of its source.

    The rows are not ranked.

    Args:
        published: At least one row.
        names: For each column, the name of the number that it shows.

    Returns:
        The group, and notes that list the sources.
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
    """Return the number of decimals with which a value was written."""
    return len(repr(value).partition(".")[2])
