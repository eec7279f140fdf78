"""The measures of performance that tables, figures and the page show, and the numbers in which each is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dtn_det.metrics import METRICS
from dtn_det.reports.contents import Direction, Kind
from dtn_det.reports.labels import ARROWS
from dtn_det.reports.numbers import Numbers

_DETECTORS = {"bbox": "box", "segm": "mask"}


@dataclass(frozen=True)
class Measure:
    """A measure of performance: its texts, and the names of the numbers in which it is read.

    Attributes:
        name: What readers call it, in the middle of a sentence: ``top-1 error``, ``box AP``.
        unit: Unit of its numbers, such as ``%``; empty without one.
        cell: Name of the number of one corruption and severity, and of the clean images; empty if there are none.
        corruption: Name of the number of one corruption.
        mean: Name of its mean over all corruptions and over those of a group.
        direction: Which numbers are better.
        decimals: Decimals that papers give.
        short: What a title calls it that names the kind of results besides, such as ``AP``; empty for its name.
    """

    name: str
    unit: str
    cell: str
    corruption: str
    mean: str
    direction: Direction = "down"
    decimals: int = 1
    short: str = ""

    @property
    def heading(self) -> str:
        """The measure in the title of a table: ``top-1 error (%)``, ``AP (%)``."""
        return f"{self.short or self.name} (%)"

    @property
    def title(self) -> str:
        """The measure by itself: ``Top-1 error, %``."""
        return ", ".join(filter(None, (self.name[:1].upper() + self.name[1:], self.unit)))

    @property
    def mean_title(self) -> str:
        """The mean over all corruptions at the start of a line: ``Mean error``, ``mCE``."""
        return self.mean.capitalize() if self.mean.startswith("mean ") else self.mean

    @property
    def is_lower_better(self) -> bool:
        """Whether smaller numbers are better."""
        return self.direction == "down"

    def axis_label(self, what: str = "") -> str:
        """The measure at an axis, after a word on which numbers; AP stands there without its unit, as in papers."""
        unit = f"({self.unit})" if self.unit and self.is_lower_better else ""
        return " ".join(filter(None, (what, self.name, unit, ARROWS[self.direction])))


_TOP1_ERROR = Measure("top-1 error", "%", "error", "mean error", "mean error")
_CORRUPTION_ERROR = Measure("corruption error", "%", "", "CE", "mCE", short="CE")


def performance_measure(kind: Kind) -> Measure:
    """Return the measure of the performance itself, without a baseline: top-1 error or AP."""
    return _TOP1_ERROR if kind == "top1" else _average_precision(kind, METRICS[0])


def corruption_measure(numbers: Numbers, which: str) -> Measure:
    """Return the corruption error where a set of corruptions has it, and the performance otherwise."""
    return _CORRUPTION_ERROR if numbers.has("mCE", which) else performance_measure(numbers.section.kind)


def measures_of(numbers: Numbers) -> tuple[Measure, ...]:
    """Return all measures that a section has numbers of, the most important first."""
    kind = numbers.section.kind
    listed = _classification(numbers.report.baseline) if kind == "top1" else _detection(kind)
    having = {name for _, _, name, _, _ in numbers.found}
    return tuple(measure for measure in listed if {measure.corruption, measure.cell} & having)


def _classification(baseline: str | None) -> Iterator[Measure]:
    yield _TOP1_ERROR
    yield Measure("top-5 error", "%", "top-5 error", "mean top-5 error", "mean top-5 error")
    against = f"% of {'AlexNet' if baseline == 'alexnet' else baseline}"
    yield replace(_CORRUPTION_ERROR, unit=against)
    yield Measure("relative corruption error", against, "", "relative CE", "relative mCE")
    yield Measure("ECE", "%", "ECE", "mean ECE", "mean ECE")
    yield Measure("NLL", "nats", "NLL", "mean NLL", "mean NLL", decimals=2)
    yield Measure("Brier score", "", "Brier", "mean Brier", "mean Brier", decimals=3)


def _detection(kind: Kind) -> Iterator[Measure]:
    for metric in METRICS:
        yield _average_precision(kind, metric)
    relative = f"{_DETECTORS[kind]} rPC (AP under corruption, % of clean)"
    yield Measure(relative, "", "", "rPC AP", "rPC AP", "up")


def _average_precision(kind: Kind, metric: str) -> Measure:
    name = f"{_DETECTORS[kind]} {metric}"
    return Measure(name, "%", metric, f"mPC {metric}", f"mPC {metric}", "up", short=metric)
