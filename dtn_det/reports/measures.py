"""The measures of tables, figures and pages, such as top-1 error or mCE, and the names of their values in reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dtn_det.metrics import LVIS_METRICS, METRICS
from dtn_det.metrics.error_costs import ERROR_METRICS
from dtn_det.reports.contents import SELECTIVE, Direction, Kind
from dtn_det.reports.labels import ARROWS
from dtn_det.reports.numbers import Numbers

_DETECTORS = {"bbox": "box", "segm": "mask"}


@dataclass(frozen=True)
class Measure:
    """A measure of performance: its texts for readers, and the names of its values in a section of a report.

    Attributes:
        name: Name for readers, as written in the middle of a sentence: ``top-1 error``, ``box AP``.
        unit: Unit of the values, such as ``%``; empty if they have none.
        cell: Name of the values of single cells, including the clean cell; empty if there are none.
        corruption: Name of the values of corruptions, over all severities.
        mean: Name of the means over all corruptions, and over the corruptions of a group.
        direction: Whether higher or lower values are better.
        decimals: Number of decimals that papers give.
        short: Shorter name for titles that name boxes or masks already, such as ``AP``; empty if `name` is used.
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
        """The text for the measure in the title of a table: ``top-1 error (%)``, ``AP (%)``."""
        return f"{self.short or self.name} (%)"

    @property
    def title(self) -> str:
        """The text for the measure as a title of its own: ``Top-1 error, %``."""
        return ", ".join(filter(None, (self.name[:1].upper() + self.name[1:], self.unit)))

    @property
    def mean_title(self) -> str:
        """The text for the mean over all corruptions at the start of a line: ``Mean error``, ``mCE``."""
        return self.mean.capitalize() if self.mean.startswith("mean ") else self.mean

    @property
    def is_lower_better(self) -> bool:
        """Whether smaller numbers are better."""
        return self.direction == "down"

    def axis_label(self, what: str = "") -> str:
        """Return the label of an axis, which begins with ``what`` if given. As in papers, AP has no unit there."""
        unit = f"({self.unit})" if self.unit and self.is_lower_better else ""
        return " ".join(filter(None, (what, self.name, unit, ARROWS[self.direction])))


_TOP1_ERROR = Measure("top-1 error", "%", "error", "mean error", "mean error")
_CORRUPTION_ERROR = Measure("corruption error", "%", "", "CE", "mCE", short="CE")


def performance_measure(kind: Kind) -> Measure:
    """Return the measure that needs no baseline: the top-1 error of classifiers, the AP of detectors."""
    return _TOP1_ERROR if kind == "top1" else _average_precision(kind, METRICS[0])


def corruption_measure(numbers: Numbers, which: str) -> Measure:
    """Return the measure to show for corruptions: the corruption error if the set has an mCE, else the error or AP."""
    return _CORRUPTION_ERROR if numbers.has("mCE", which) else performance_measure(numbers.section.kind)


def measures_of(numbers: Numbers) -> tuple[Measure, ...]:
    """Return all measures of which a section has numbers, the most important first.

    Measures of which only the clean images have a number are left out, if others have numbers of corruptions.
    """
    kind = numbers.section.kind
    listed = _classification(numbers.report.baseline) if kind == "top1" else _detection(kind)
    having = {name for _, _, name, _, _ in numbers.found}
    found = tuple(measure for measure in listed if {measure.corruption, measure.cell} & having)
    return tuple(measure for measure in found if measure.corruption in having) or found


def _classification(baseline: str | None) -> Iterator[Measure]:
    yield _TOP1_ERROR
    yield Measure("top-5 error", "%", "top-5 error", "mean top-5 error", "mean top-5 error")
    against = f"% of {'AlexNet' if baseline == 'alexnet' else baseline}"
    yield replace(_CORRUPTION_ERROR, unit=against)
    yield Measure("relative corruption error", against, "", "relative CE", "relative mCE")
    yield Measure("ECE", "%", "ECE", "mean ECE", "mean ECE")
    yield Measure("NLL", "nats", "NLL", "mean NLL", "mean NLL", decimals=2)
    yield Measure("Brier score", "", "Brier", "mean Brier", "mean Brier", decimals=3)
    for name in SELECTIVE.values():
        direction: Direction = "up" if name.startswith("coverage") else "down"
        yield Measure(name, "%", name, f"mean {name}", f"mean {name}", direction)


def _detection(kind: Kind) -> Iterator[Measure]:
    for metric in LVIS_METRICS:
        yield _average_precision(kind, metric)
    relative = f"{_DETECTORS[kind]} rPC (AP under corruption, % of clean)"
    yield Measure(relative, "", "", "rPC AP", "rPC AP", "up")
    for cost in ERROR_METRICS:
        yield Measure(f"{_DETECTORS[kind]} {cost}", "points", cost, f"mean {cost}", f"mean {cost}", decimals=2)


def _average_precision(kind: Kind, metric: str) -> Measure:
    name = f"{_DETECTORS[kind]} {metric}"
    return Measure(name, "%", metric, f"mPC {metric}", f"mPC {metric}", "up", short=metric)
