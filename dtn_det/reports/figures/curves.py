"""Figures of the performance against the severity: under each corruption, and averaged over all corruptions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from dtn_det.corruptions.catalog import SEVERITIES
from dtn_det.errors import NothingToDrawError
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.data import FigureData
from dtn_det.reports.figures.layout import caption, model_legend, page, plain_ticks
from dtn_det.reports.labels import groups_of, title
from dtn_det.reports.numbers import Number
from dtn_det.system.drawing import COLUMN, PAGE, drawing

Points = Mapping[int, Number]
"""Numbers by severity; severity 0 stands for the clean images."""

_PANEL = 1.05
"""Height of a panel, in inches."""
_COLUMNS = 4


def overall_points(data: FigureData, model: str) -> Points:
    """Return a model's mean over the corruptions at each severity; severity 0 is the value on the clean images."""
    return _points(data.clean(model), {severity: data.mean(model, "", severity) for severity in SEVERITIES})


def corruption_points(data: FigureData, model: str, corruption: str) -> Points:
    """Return a model's value for one corruption at each severity; severity 0 is the value on the clean images."""
    name = data.measure.cell
    cells = {severity: data.get(model, name, corruption, severity) for severity in SEVERITIES}
    return _points(data.clean(model), cells)


def has_curve(points: Points) -> bool:
    """Return whether there are at least two points, so that there is a line to draw."""
    return len(points) > 1


def draw_curve(axis: Any, data: FigureData, model: str, points: Points) -> None:
    """Draw a curve and, for a highlighted model, its confidence band."""
    mark = data.marks[model]
    places = list(points)
    axis.plot(places, [number.value for number in points.values()], **mark.curve)
    if mark.highlighted and all(number.has_interval for number in points.values()):
        low, high = ([getattr(number, end) for number in points.values()] for end in ("low", "high"))
        alpha = 0.15 if len(data.models) <= 4 else 0.08
        axis.fill_between(places, low, high, color=mark.colour, alpha=alpha, linewidth=0, zorder=2)


def severity_axis(axis: Any, curves: Iterable[Points]) -> None:
    """Put a tick at each severity that some curve has, and label severity 0 as clean."""
    ticks = sorted({severity for points in curves for severity in points})
    axis.set_xlim(ticks[0] - 0.2, ticks[-1] + 0.2)
    axis.set_xticks(ticks, ["clean" if tick == 0 else str(tick) for tick in ticks])


def _points(clean: Number | None, corrupted: Mapping[int, Number | None]) -> Points:
    kept = {severity: number for severity, number in corrupted.items() if number is not None}
    return {0: clean, **kept} if clean is not None and kept else kept


@drawing()
def draw_corruptions(report: Report, section: Section) -> Figure:
    """Draw the performance against the severity in a panel for each corruption, with clean images at severity 0.

    Each row of panels is a group of corruptions, unless all groups are small.

    Raises:
        NothingToDrawError: No curve has two points; a point is a number at a severity, or on the clean images.
    """
    data = FigureData.of(report, section)
    curves = {
        (model, corruption): points
        for corruption in data.corruptions
        for model in data.models
        if has_curve(points := corruption_points(data, model, corruption))
    }
    if not curves:
        raise NothingToDrawError("there are no numbers of single severities, or of one alone")
    rows = _rows(groups_of({corruption for _, corruption in curves}))
    columns = max(map(len, rows))
    wide = PAGE if columns > 2 else COLUMN
    legend = model_legend(data, "curve", wide)
    figure = page(0.3 + _PANEL * len(rows), caption(data, "bands"), legend, width_inches=wide)
    panels = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    for number, (names, axes) in enumerate(zip(rows, panels, strict=True)):
        for axis in axes[len(names) :]:
            axis.remove()
        for column, corruption in enumerate(names):
            axis = axes[column]
            for model in data.models:
                if (model, corruption) in curves:
                    draw_curve(axis, data, model, curves[model, corruption])
            axis.set_title(title(corruption))
            severity_axis(axis, curves.values())
            plain_ticks(axis.yaxis, 4)
            axis.grid(visible=True, axis="y")
            lowest = not any(len(other) > column for other in rows[number + 1 :])
            axis.tick_params(labelbottom=lowest)
            axis.set_xlabel("severity" if lowest else "")
    figure.supylabel(data.measure.axis_label())
    return figure


def _rows(groups: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Arrange corruptions in one row per group; if no group has more than two corruptions, fill the rows."""
    if max(map(len, groups.values())) > 2:
        return [list(names) for names in groups.values()]
    every = [name for names in groups.values() for name in names]
    return [every[start : start + _COLUMNS] for start in range(0, len(every), _COLUMNS)]


@drawing()
def draw_severities(report: Report, section: Section) -> Figure:
    """Draw the mean performance over the corruptions against the severity, with clean images at severity 0.

    Raises:
        NothingToDrawError: No curve has two points; a point is a mean at a severity, or a number on the clean images.
    """
    data = FigureData.of(report, section)
    points = {model: overall_points(data, model) for model in data.models}
    if not any(map(has_curve, points.values())):
        raise NothingToDrawError("there are no numbers of single severities, or of one alone")
    figure = page(1.9, caption(data, "bands"), model_legend(data, "curve"))
    axis = figure.subplots()
    for model, curve in points.items():
        draw_curve(axis, data, model, curve)
    severity_axis(axis, points.values())
    axis.set_xlabel("severity of the corruption")
    axis.set_ylabel(data.measure.axis_label("mean"))
    plain_ticks(axis.yaxis, 6)
    axis.grid(visible=True, axis="y")
    return figure
