"""A model's performance along the severities, in one panel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dtn_det.corruptions.catalog import SEVERITIES
from dtn_det.reports.figures.subject import Number, Subject

Points = Mapping[int, Number]
"""By severity; 0 is clean."""


def overall_points(subject: Subject, model: str) -> Points:
    """Means over the corruptions at each severity."""
    return _points(subject.clean(model), {severity: subject.mean(model, "", severity) for severity in SEVERITIES})


def corruption_points(subject: Subject, model: str, corruption: str) -> Points:
    """The cells of one corruption."""
    name = subject.measure.cell
    cells = {severity: subject.get(model, name, corruption, severity) for severity in SEVERITIES}
    return _points(subject.clean(model), cells)


def has_curve(points: Points) -> bool:
    """Whether there is a corrupted point, and another one to join it with."""
    return len(points) > 1


def draw_curve(axis: Any, subject: Subject, model: str, points: Points) -> None:
    """Add a curve and, for a highlighted model, the band of its intervals.

    Args:
        axis: Of matplotlib.
        subject: What is drawn.
        model: Whose points.
        points: In the order of the severities.
    """
    mark = subject.marks[model]
    places = list(points)
    axis.plot(places, [number.value for number in points.values()], **mark.curve)
    if mark.highlighted and all(number.has_interval for number in points.values()):
        low, high = ([getattr(number, end) for number in points.values()] for end in ("low", "high"))
        alpha = 0.15 if len(subject.models) <= 4 else 0.08
        axis.fill_between(places, low, high, color=mark.colour, alpha=alpha, linewidth=0, zorder=2)


def severity_axis(axis: Any, curves: Iterable[Points]) -> None:
    """Ticks at the severities that some curve has; 0 is clean."""
    ticks = sorted({severity for points in curves for severity in points})
    axis.set_xlim(ticks[0] - 0.2, ticks[-1] + 0.2)
    axis.set_xticks(ticks, ["clean" if tick == 0 else str(tick) for tick in ticks])


def _points(clean: Number | None, corrupted: Mapping[int, Number | None]) -> Points:
    kept = {severity: number for severity, number in corrupted.items() if number is not None}
    return {0: clean, **kept} if clean is not None and kept else kept
