"""Numbers that others published, each with its source, to be shown apart from measured ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from dtn_det.corruptions.catalog import IMAGENET_C_CATALOG
from dtn_det.datasets.coco.known_sets import COCO
from dtn_det.datasets.sets import set_name
from dtn_det.reports.contents import Kind, Report
from dtn_det.reports.tables.table import Group, TableCell, TableRow

_FILE, _SETS_FILE = "published.json", "published_sets.json"
_BENCHMARKS: Mapping[Kind, str] = {"top1": "ImageNet-C", "bbox": "COCO-C", "segm": "COCO-C"}
_OF_SETS = {"top-1": "error", "mce": "mCE", "mce_3d": "mCE", "mean-error": "mean error"}
"""The name of a number in a report, by the last part of the key of an overview. Top-1 becomes the error."""


@dataclass(frozen=True)
class PublishedRow:
    """The numbers of a model that others measured and published.

    Attributes:
        model: Name of the model as its authors call it.
        kind: Kind of the numbers: ``top1``, ``bbox`` or ``segm``.
        values: Numbers in percent, by names as in :attr:`dtn_det.reports.contents.Section.numbers`, where ``error`` is
            the error on clean images; and ``FLOPs`` in billions of multiply-adds. Of :func:`rows_of_sets`, by the keys
            of an overview, such as ``imagenet-r/top-1``. All have the digits that were published.
        source: Paper or repository, and the place of the numbers in it.
        of: Name of the set on which the numbers were measured; empty for the benchmark of the kind.
    """

    model: str
    kind: Kind
    values: Mapping[str, float]
    source: str
    of: str = ""

    @property
    def benchmark(self) -> str:
        """Name of the benchmark on which the numbers were measured."""
        return self.of or _BENCHMARKS[self.kind]


@lru_cache(maxsize=1)
def published_rows() -> tuple[PublishedRow, ...]:
    """Return all published numbers of ImageNet-C and COCO-C that the package knows."""
    told = _read(_FILE)
    return tuple(PublishedRow(**{**row, "source": told["sources"][row["source"]]}) for row in told["rows"])


@lru_cache(maxsize=1)
def rows_of_sets() -> tuple[PublishedRow, ...]:
    """Return the published numbers of classifiers on several sets, by the keys of an overview.

    The rows of :func:`published_rows` are among them, but for those of repositories that tell more here.
    """
    told = _read(_SETS_FILE)
    found = [
        PublishedRow(row["model"], "top1", row["values"], told["sources"][row["source"]], "the sets above")
        for row in told["rows"]
    ]
    known = {_place(row.source) for row in found}
    for row in published_rows():
        values = {"imagenet-c/mce": row.values["mCE"]} if "mCE" in row.values else {}
        if row.kind == "top1" and values and _place(row.source) not in known:
            if "error" in row.values:
                values["imagenet/top-1"] = _complement(row.values["error"])
            found.append(PublishedRow(row.model, "top1", values, row.source, "the sets above"))
    return tuple(found)


def _read(file: str) -> Any:
    return json.loads(resources.files("dtn_det.reports").joinpath(file).read_text(encoding="utf-8"))


def _place(source: str) -> str:
    """Return the repository or the first author of a source."""
    return source.partition(",")[0]


def _complement(value: float) -> float:
    """Return 100 minus a percentage, with as many digits."""
    return round(100 - value, decimals_of(value))


def published_for(report: Report, title: str = "") -> tuple[PublishedRow, ...]:
    """Return the published rows that may be shown with the measured numbers of a report.

    Args:
        title: Title of the set of the report, such as ``ImageNet-R``; empty if nothing tells it. Without it, rows of
            classifiers are those of ImageNet-C, and a report on other classes than ImageNet's gets none. Rows of
            detectors are those of COCO-C.
    """
    kinds = {section.kind for section in report.sections}
    if report.task == "classification" and title not in ("", IMAGENET_C_CATALOG.title):
        return _of_set(title)
    if report.task == "detection" and title not in ("", COCO, f"{COCO}-C"):
        return ()
    classes = report.provenance.settings.get("classes", "imagenet")
    fitting = kinds if report.task == "detection" or classes == "imagenet" else set()
    return tuple(row for row in published_rows() if row.kind in fitting)


def _of_set(title: str) -> tuple[PublishedRow, ...]:
    """Return the published rows of one set, by the names of the numbers of a report."""
    found = []
    for row in rows_of_sets():
        values = {}
        for key, value in row.values.items():
            name, _, measure = key.partition("/")
            if name == set_name(title) and measure in _OF_SETS:
                values[_OF_SETS[measure]] = _complement(value) if measure == "top-1" else value
        if values:
            found.append(PublishedRow(row.model, "top1", values, row.source, title))
    return tuple(found)


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
            else TableCell(value, marks=frozenset({"published"}), decimals=decimals_of(value))
            for value in values
        )
        rows.append(TableRow(one.model, tuple(cells), f"[{sources.index(one.source) + 1}]", source=one.source))
    notes = (
        f"Published rows are for {published[0].benchmark}{_clean(published[0])}, were not measured here, and are not "
        "ranked.",
        *(f"[{number}] {source}" for number, source in enumerate(sources, 1)),
    )
    return Group(tuple(rows), "Published, not measured here"), notes


def _clean(row: PublishedRow) -> str:
    """Return the words on the clean images of a benchmark."""
    return "" if row.of else " or its clean images"


def decimals_of(value: float) -> int:
    """Return the number of decimals with which a value was written."""
    return len(repr(value).partition(".")[2])
