"""The figure of the performance along the severities, all corruptions together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtn_det.errors import NothingToDrawError
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.curves import draw_curve, has_curve, overall_points, severity_axis
from dtn_det.reports.figures.layout import grid, model_legend, page, plain_ticks
from dtn_det.reports.figures.notes import caption
from dtn_det.reports.figures.subject import Subject
from dtn_det.system.drawing import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@drawing()
def draw_severities(report: Report, section: Section) -> Figure:
    """Mean performance over the corruptions against their severity, with the clean images at 0.

    Raises:
        NothingToDrawError: No model has numbers of two severities, or of one and of the clean images.
    """
    subject = Subject.of(report, section)
    points = {model: overall_points(subject, model) for model in subject.models}
    if not any(map(has_curve, points.values())):
        raise NothingToDrawError("there are no numbers of single severities, or of one alone")
    figure = page(1.9, caption(subject, "bands"), model_legend(subject, "curve"))
    axis = figure.subplots()
    for model, curve in points.items():
        draw_curve(axis, subject, model, curve)
    severity_axis(axis, points.values())
    axis.set_xlabel("severity of the corruption")
    axis.set_ylabel(subject.measure.label("mean"))
    plain_ticks(axis.yaxis, 6)
    grid(axis, "y")
    return figure
