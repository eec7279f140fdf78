"""The figure of the performance along the severities of each corruption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dtn_det.errors import NothingToDrawError
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.curves import corruption_points, draw_curve, has_curve, severity_axis
from dtn_det.reports.figures.layout import grid, model_legend, page, plain_ticks
from dtn_det.reports.figures.notes import caption
from dtn_det.reports.figures.scopes import groups_of, title
from dtn_det.reports.figures.subject import Subject
from dtn_det.system.drawing import COLUMN, PAGE, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL = 1.05
"""Inches of height."""
_COLUMNS = 4


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
    rows = _rows(groups_of({corruption for _, corruption in curves}))
    columns = max(map(len, rows))
    wide = PAGE if columns > 2 else COLUMN
    legend = model_legend(subject, "curve", wide)
    figure = page(0.3 + _PANEL * len(rows), caption(subject, "bands"), legend, width_inches=wide)
    panels = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    for number, (names, axes) in enumerate(zip(rows, panels, strict=True)):
        for axis in axes[len(names) :]:
            axis.remove()
        for column, corruption in enumerate(names):
            axis = axes[column]
            for model in subject.models:
                if (model, corruption) in curves:
                    draw_curve(axis, subject, model, curves[model, corruption])
            axis.set_title(title(corruption))
            severity_axis(axis, curves.values())
            plain_ticks(axis.yaxis, 4)
            grid(axis, "y")
            lowest = not any(len(other) > column for other in rows[number + 1 :])
            axis.tick_params(labelbottom=lowest)
            axis.set_xlabel("severity" if lowest else "")
    figure.supylabel(subject.measure.label())
    return figure


def _rows(groups: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """A row for each group, or full rows where the groups are small."""
    if max(map(len, groups.values())) > 2:
        return [list(names) for names in groups.values()]
    every = [name for names in groups.values() for name in names]
    return [every[start : start + _COLUMNS] for start in range(0, len(every), _COLUMNS)]
