"""The measures that the page's figures can show, and where each is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dtn_det.metrics import METRICS
from dtn_det.reports.contents import Kind
from dtn_det.reports.numbers import Numbers

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Measure:
    """One way to tell how well a model does.

    Attributes:
        cell: Name of the number of a cell and of the clean images, empty if there are none.
        corruption: Name of the number of a corruption.
        mean: Name of its mean over corruptions.
        title: For readers, with the unit.
        better: Which is the better end.
        decimals: That are shown.
    """

    cell: str
    corruption: str
    mean: str
    title: str
    better: Better
    decimals: int = 1


def measures_of(numbers: Numbers) -> tuple[Measure, ...]:
    """Those that a section has numbers of, most important first."""
    kind = numbers.section.kind
    listed = _classification(numbers.report.baseline) if kind == "top1" else _detection(kind)
    having = {name for _, _, name, _, _ in numbers.found}
    return tuple(measure for measure in listed if {measure.corruption, measure.cell} & having)


def _classification(baseline: str | None) -> Iterator[Measure]:
    for name, title, decimals in (("error", "Top-1 error, %", 1), ("top-5 error", "Top-5 error, %", 1)):
        yield Measure(name, f"mean {name}", f"mean {name}", title, "lower", decimals)
    against = "AlexNet" if baseline == "alexnet" else baseline
    yield Measure("", "CE", "mCE", f"Corruption error, % of {against}", "lower")
    yield Measure("", "relative CE", "relative mCE", f"Relative corruption error, % of {against}", "lower")
    for name, title, decimals in (("ECE", "ECE, %", 1), ("NLL", "NLL, nats", 2), ("Brier", "Brier score", 3)):
        yield Measure(name, f"mean {name}", f"mean {name}", title, "lower", decimals)


def _detection(kind: Kind) -> Iterator[Measure]:
    what = {"bbox": "Box", "segm": "Mask"}[kind]
    for name in METRICS:
        yield Measure(name, f"mPC {name}", f"mPC {name}", f"{what} {name}, %", "higher")
    yield Measure("", "rPC AP", "rPC AP", f"{what} rPC (AP under corruption, % of clean)", "higher")
