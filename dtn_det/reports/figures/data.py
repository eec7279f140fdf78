"""The data of a figure: the numbers of one section, the measure that is shown, and the style of its models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtn_det.corruptions.catalog import EVERY
from dtn_det.errors import NothingToDrawError
from dtn_det.metrics import CLEAN
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.metrics.error_types import ERROR_TYPES
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.measures import Measure, performance_measure
from dtn_det.reports.numbers import SETS, Number, Numbers, set_of
from dtn_det.system.drawing import COLOURS, GREY, MARKERS, PALE

ERROR_COLOURS = dict(zip(ERROR_TYPES, COLOURS, strict=False))
"""The colour of each error type of detectors."""

MOST_HIGHLIGHTED = 8
"""Largest number of models whose curves are coloured; the curves of further models are grey."""
_LINES = ("-", (0, (4, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)))


@dataclass(frozen=True)
class Mark:
    """Colour, marker and line of a model.

    Attributes:
        marker: A marker of matplotlib; no two models have the same colour, marker and filling.
        filled: Whether the marker is filled; the first model of two twins has an open marker.
        line: Style of the line; the first model of two twins has a dashed line.
        highlighted: Whether the model has its colour in figures with room for few colours; other models are grey there.
    """

    colour: str
    marker: str
    filled: bool = True
    line: Any = "-"
    highlighted: bool = True

    @property
    def point(self) -> dict[str, Any]:
        """Arguments of a matplotlib line that shows the markers only."""
        face = self.colour if self.filled else "white"
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": face,
            "markeredgecolor": self.colour,
            "linestyle": "none",
        }

    @property
    def curve(self) -> dict[str, Any]:
        """Arguments of a matplotlib line: with markers if the model is highlighted, else thin and grey."""
        if not self.highlighted:
            return {"color": PALE, "linestyle": "-", "linewidth": 0.7, "zorder": 1.5}
        return {**self.point, "linestyle": self.line, "zorder": 2.5}

    @property
    def shade(self) -> str:
        """The colour of the model in figures with room for few colours; grey unless highlighted."""
        return self.colour if self.highlighted else GREY


def marks_of(models: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Mapping[str, Mark]:
    """Choose a mark for each model.

    Twins are two models that are compared with each other and with no third one. They differ in filling and line, and
    share a colour if there are more models than colours. The first models in the report's order are highlighted. Of
    twins, both are highlighted or neither is.

    Args:
        models: Names of the models in the report's order.
    """
    times = Counter(name for pair in pairs for name in pair)
    twins = [pair for pair in pairs if all(times[name] == 1 and name in models for name in pair)]
    of = {name: pair for pair in twins for name in pair}
    families = list(dict.fromkeys(of.get(name, (name,)) for name in models))
    shared = len(models) > len(COLOURS)
    found: dict[str, Mark] = {}
    for number, family in enumerate(families):
        highlighted = len(found) + len(family) <= MOST_HIGHLIGHTED or len(models) <= MOST_HIGHLIGHTED
        for place, name in enumerate(family):
            style = number if shared else len(found)
            turn, colour = divmod(style, len(COLOURS))
            twin = len(family) == 2
            found[name] = Mark(
                COLOURS[colour],
                MARKERS[(colour + turn) % len(MARKERS)],
                filled=not twin or place == 1,
                line=_LINES[1 - place] if twin else _LINES[turn % len(_LINES)],
                highlighted=highlighted,
            )
    return {name: found[name] for name in models}


@dataclass(frozen=True)
class FigureData:
    """A section of a report, ready to be drawn.

    Attributes:
        measure: The measure that is shown: the top-1 error or AP.
        models: Names of the models that have numbers of the measure, in the report's order.
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
        return {scope for _, _, name, scope, _ in self.numbers.found if name == self.measure.mean and scope in EVERY}

    def get(self, model: str, name: str, scope: str = "", severity: int = 0) -> Number | None:
        """Return a model's number; None if there is none. An empty scope means all corruptions of :attr:`main_set`."""
        return self.numbers.get(model, set_of(scope) if scope else self.main_set, name, scope, severity)

    def clean(self, model: str) -> Number | None:
        """Return the number of a model on the clean images; None if there is none."""
        return self.get(model, self.measure.cell, *CLEAN)

    def mean(self, model: str, scope: str = "", severity: int = 0) -> Number | None:
        """Return a model's mean over a corruption or group, by default over all corruptions; None if there is none."""
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
