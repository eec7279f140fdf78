"""What a figure is drawn from: the numbers of one section by what they are, and how its models look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from dtn_det.corruptions.catalog import ALL, EXTRA
from dtn_det.errors import NothingToDrawError
from dtn_det.metrics import CLEAN
from dtn_det.reports.contents import Kind, Report, Section
from dtn_det.reports.figures.marks import Mark, marks_of
from dtn_det.reports.numbers import SETS


class Number(NamedTuple):
    """A number and its interval, whose ends are NaN where there is none."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether there are ends."""
        return self.low == self.low and self.high == self.high

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval goes to each side, (0, 0) without one; never negative, as bars want it."""
        if not self.has_interval:
            return 0.0, 0.0
        return max(0.0, self.value - self.low), max(0.0, self.high - self.value)


@dataclass(frozen=True)
class Measure:
    """The performance that the figures of a section show.

    Attributes:
        cell: Name of the number of one corruption and severity, and of the clean images.
        mean: Name of its mean.
        title: For readers.
        unit: For readers, in parentheses if any.
        better: ``lower`` or ``higher``.
    """

    cell: str
    mean: str
    title: str
    unit: str
    better: str

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↓" if self.better == "lower" else "↑"

    def label(self, what: str = "") -> str:
        """Of an axis."""
        return " ".join(filter(None, (what, self.title, self.unit, self.arrow)))


MEASURES: Mapping[Kind, Measure] = MappingProxyType(
    {
        "top1": Measure("error", "mean error", "top-1 error", "(%)", "lower"),
        "bbox": Measure("AP", "mPC AP", "box AP", "", "higher"),
        "segm": Measure("AP", "mPC AP", "mask AP", "", "higher"),
    }
)


@dataclass(frozen=True)
class Subject:
    """A section of a report, ready to be drawn.

    Attributes:
        report: The report.
        section: One of its sections.
        measure: What is shown.
        models: That have numbers, in the report's order.
        marks: How each of them looks.
        numbers: By model, set of corruptions, name, scope and severity.
        cells: By model and set of corruptions: conditions behind the mean over all, and those of the whole set.
    """

    report: Report
    section: Section
    measure: Measure
    models: tuple[str, ...]
    marks: Mapping[str, Mark]
    numbers: Mapping[tuple[str, str, str, str, int], Number]
    cells: Mapping[tuple[str, str], tuple[int, int]]

    @classmethod
    def of(cls, report: Report, section: Section) -> Subject:
        """Sort the numbers of a section.

        Raises:
            NothingToDrawError: It has none.
        """
        measure = MEASURES[section.kind]
        numbers: dict[tuple[str, str, str, str, int], Number] = {}
        cells: dict[tuple[str, str], tuple[int, int]] = {}
        shown = (measure.cell, measure.mean, "CE", "mCE")
        for row in section.numbers[section.numbers["name"].isin(shown)].itertuples(index=False):
            model, which, name, scope, severity, value, low, high, had, wanted = row
            numbers[model, which, name, scope, int(severity)] = Number(float(value), float(low), float(high))
            if (name, scope, severity) == (measure.mean, "", 0):
                cells[model, which] = (int(had), int(wanted))
        having = {key[0] for key in numbers}
        models = tuple(model.name for model in report.models if model.name in having)
        if not models:
            raise NothingToDrawError("there are no numbers")
        return cls(report, section, measure, models, marks_of(models, section.pairs), numbers, cells)

    @property
    def main_set(self) -> str:
        """The benchmark's corruptions, or the others where there are no numbers of those."""
        return SETS[0] if any(which == SETS[0] for _, which in self.cells) else SETS[1]

    @property
    def corruptions(self) -> set[str]:
        """Those of which some model has the mean over severities."""
        return {scope for _, _, name, scope, _ in self.numbers if name == self.measure.mean and scope in ALL}

    def get(self, model: str, name: str, scope: str = "", severity: int = 0) -> Number | None:
        """A number of a model, or None; means over everything are those of :attr:`main_set`."""
        which = self.main_set
        if scope:
            which = SETS[1] if scope in (*EXTRA, "extra") else SETS[0]
        if scope == CLEAN[0]:
            found = (self.numbers.get((model, one, name, scope, severity)) for one in SETS)
            return next((number for number in found if number is not None), None)
        return self.numbers.get((model, which, name, scope, severity))

    def clean(self, model: str) -> Number | None:
        """The performance of a model on the clean images."""
        return self.get(model, self.measure.cell, *CLEAN)

    def mean(self, model: str, scope: str = "", severity: int = 0) -> Number | None:
        """The mean performance of a model under all corruptions, one, or those of a group."""
        return self.get(model, self.measure.mean, scope, severity)

    def everywhere(self, name: str) -> bool:
        """Whether each model has a number of this name for all corruptions together."""
        return all(self.get(model, name) is not None for model in self.models)

    def with_intervals(self) -> Iterator[str]:
        """Models whose mean has an interval."""
        for model in self.models:
            number = self.mean(model)
            if number is not None and number.has_interval:
                yield model
