"""The figure of the performance along the severities of each corruption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtn_det.drawing import PAGE, drawing
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.curves import corruption_points, draw_curve, has_curve, severity_axis
from dtn_det.reports.figures.layout import grid, model_legend, page, plain_ticks
from dtn_det.reports.figures.notes import caption
from dtn_det.reports.figures.scopes import groups_of, title
from dtn_det.reports.figures.subject import NothingToDrawError, Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL = 1.05
"""Inches of height."""


@drawing()
def draw_corruptions(report: Report, section: Section) -> Figure:
    """A panel for each corruption, a row for each group: performance against severity, clean images at 0.

    Raises:
        NothingToDrawError: No model has numbers of two severities of a corruption, or of one and of the clean images.
    """
    subject = Subject.of(report, section)
    curves = {
        (model, corruption): points
        for corruption in subject.corruptions
        for model in subject.models
        if has_curve(points := corruption_points(subject, model, corruption))
    }
    if not curves:
        raise NothingToDrawError("there are no numbers of single severities, or of one alone")
    groups = groups_of({corruption for _, corruption in curves})
    columns = max(map(len, groups.values()))
    wide = PAGE * min(1.0, (columns + 0.3) / 4.3)
    figure = page(
        0.3 + _PANEL * len(groups), caption(subject, "bands"), model_legend(subject, "curve", wide), width_inches=wide
    )
    panels = figure.subplots(len(groups), columns, sharex=True, sharey=True, squeeze=False)
    with_clean = any(0 in points for points in curves.values())
    for row, (names, axes) in enumerate(zip(groups.values(), panels, strict=True)):
        for axis in axes[len(names) :]:
            axis.remove()
        for axis, corruption in zip(axes, names, strict=False):
            for model in subject.models:
                if (model, corruption) in curves:
                    draw_curve(axis, subject, model, curves[model, corruption])
            axis.set_title(title(corruption))
            severity_axis(axis, with_clean)
            plain_ticks(axis.yaxis, 4)
            grid(axis, "y")
            below = [group for group in list(groups.values())[row + 1 :] if len(group) > names.index(corruption)]
            axis.tick_params(labelbottom=not below)
            axis.set_xlabel("" if below else "severity")
    figure.supylabel(subject.measure.label())
    return figure
