"""The data of a figure: the numbers of one section, the measure that is shown, and the style of its models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dtn_det.corruptions.catalog import ALL
from dtn_det.errors import NothingToDrawError
from dtn_det.metrics import CLEAN
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.marks import Mark, marks_of
from dtn_det.reports.measures import Measure, performance_measure
from dtn_det.reports.numbers import SETS, Number, Numbers, set_of


@dataclass(frozen=True)
class FigureData:
    """A section of a report, ready to be drawn.

    Attributes:
        numbers: All numbers of the section.
        measure: The measure that is shown: the top-1 error or AP.
        models: Names of the models that have numbers of the measure, in the report's order.
        marks: Colour, marker and line of each model.
        main_set: The set of corruptions that is shown: ``benchmark``, or ``extra`` if there are no numbers of
            ``benchmark``.
    """

    numbers: Numbers
    measure: Measure
    models: tuple[str, ...]
    marks: Mapping[str, Mark]
    main_set: CorruptionSet

    @classmethod
    def of(cls, report: Report, section: Section) -> FigureData:
        """Collect the data of a section for a figure.

        Raises:
            NothingToDrawError: The section has no numbers of the measure.
        """
        numbers = Numbers.of(report, section)
        measure = performance_measure(section.kind)
        shown = (measure.cell, measure.mean, "CE", "mCE")
        having = {model for model, _, name, _, _ in numbers.found if name in shown}
        models = tuple(model.name for model in report.models if model.name in having)
        if not models:
            raise NothingToDrawError("there are no numbers")
        benchmark = any(key[1:] == (SETS[0], measure.mean, "", 0) for key in numbers.found)
        return cls(numbers, measure, models, marks_of(models, section.pairs), SETS[0] if benchmark else SETS[1])

    @property
    def report(self) -> Report:
        """The report that has the section."""
        return self.numbers.report

    @property
    def section(self) -> Section:
        """The section whose numbers are drawn."""
        return self.numbers.section

    @property
    def corruptions(self) -> set[str]:
        """The corruptions for which some model has a mean over the severities."""
        return {scope for _, _, name, scope, _ in self.numbers.found if name == self.measure.mean and scope in ALL}

    def get(self, model: str, name: str, scope: str = "", severity: int = 0) -> Number | None:
        """Return a model's number, or None. Without a scope, the number is over the corruptions of :attr:`main_set`."""
        return self.numbers.get(model, set_of(scope) if scope else self.main_set, name, scope, severity)

    def clean(self, model: str) -> Number | None:
        """Return the number of a model on the clean images, or None."""
        return self.get(model, self.measure.cell, *CLEAN)

    def mean(self, model: str, scope: str = "", severity: int = 0) -> Number | None:
        """Return a model's mean over a corruption or a group, or over all corruptions if `scope` is empty; or None."""
        return self.get(model, self.measure.mean, scope, severity)

    def everywhere(self, name: str) -> bool:
        """Return whether each model has a number of this name over all corruptions."""
        return all(self.get(model, name) is not None for model in self.models)

    def with_intervals(self) -> Iterator[str]:
        """Yield the names of the models whose mean over all corruptions has an interval."""
        for model in self.models:
            number = self.mean(model)
            if number is not None and number.has_interval:
                yield model
