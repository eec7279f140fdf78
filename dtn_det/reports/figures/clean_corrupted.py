"""The figure of the clean against the corrupted performance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtn_det.errors import NothingToDrawError
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.layout import grid, model_legend, page, plain_ticks
from dtn_det.reports.figures.notes import caption
from dtn_det.reports.figures.subject import Subject
from dtn_det.system.drawing import GREY, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawing()
def draw_clean_corrupted(report: Report, section: Section) -> Figure:
    """A point a model with both intervals, and an arrow from the first to the second of each pair of twins.

    Raises:
        NothingToDrawError: No model has both numbers.
    """
    subject = Subject.of(report, section)
    points = {
        model: (clean, mean)
        for model in subject.models
        if (clean := subject.clean(model)) is not None and (mean := subject.mean(model)) is not None
    }
    if not points:
        raise NothingToDrawError("no model has numbers of clean and of corrupted images")
    figure = page(2.1, caption(subject, "bars"), model_legend(subject, "point"))
    axis: Any = figure.subplots()
    for model, (clean, mean) in points.items():
        mark = subject.marks[model]
        bars = {"xerr": [[end] for end in clean.reach], "yerr": [[end] for end in mean.reach]}
        axis.errorbar([clean.value], [mean.value], **bars, **mark.point, ecolor=(mark.colour, 0.5), elinewidth=0.6)
    for first, second in section.pairs:
        # Twins alone: the arrows from a baseline to all others say nothing.
        if not subject.marks[first].filled and first in points and second in points:
            ends = [tuple(number.value for number in points[name]) for name in (second, first)]
            style = {"arrowstyle": "-|>,head_width=0.12,head_length=0.25", "color": GREY, "linewidth": 0.6}
            axis.annotate("", *ends, arrowprops={**style, "shrinkA": 3, "shrinkB": 3}, zorder=1.8)
    axis.set_xlabel(subject.measure.label("clean"))
    axis.set_ylabel(subject.measure.label("mean corrupted"))
    plain_ticks(axis.xaxis, 6)
    plain_ticks(axis.yaxis, 6)
    grid(axis, "both")
    return figure
