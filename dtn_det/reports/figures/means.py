"""Figures of means: one by group of corruptions, and one of corrupted against clean performance."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from dtn_det.corruptions.catalog import EVERY_GROUP
from dtn_det.errors import NothingToDrawError
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.data import FigureData
from dtn_det.reports.figures.layout import caption, labels, model_legend, page, plain_ticks
from dtn_det.reports.labels import title
from dtn_det.reports.numbers import Number
from dtn_det.system.drawing import GREY, PAGE, drawing

MOST_SIDE_BY_SIDE = 4
"""Largest number of models whose points share a line of the figure; more models get a line each."""
_NAME = 100
"""Largest width of a model's name, in points."""

_Rows = dict[str, dict[str, Number]]
"""Numbers by the title of their row, then by the name of the model."""


@drawing()
def draw_groups(report: Report, section: Section) -> Figure:
    """Draw a dot with its interval for the clean images, each group of corruptions, and the mean over all corruptions.

    Up to :data:`MOST_SIDE_BY_SIDE` models are drawn in one panel with a line for each group. For more models, each
    group has a panel with a line for each model.

    Raises:
        NothingToDrawError: There are no means of groups.
    """
    data = FigureData.of(report, section)
    rows = _rows(data)
    if not any(title(group) in rows for group in EVERY_GROUP):
        raise NothingToDrawError("there are no numbers of groups of corruptions")
    few = len(data.models) <= MOST_SIDE_BY_SIDE
    return _side_by_side(data, rows) if few else _panels(data, rows)


def _rows(data: FigureData) -> _Rows:
    wanted = {
        "Clean": {model: data.clean(model) for model in data.models},
        **{title(group): {model: data.mean(model, group) for model in data.models} for group in EVERY_GROUP},
        "Mean": {model: data.mean(model) for model in data.models},
    }
    rows = {
        name: {model: number for model, number in numbers.items() if number is not None}
        for name, numbers in wanted.items()
    }
    return {name: numbers for name, numbers in rows.items() if numbers}


def _side_by_side(data: FigureData, rows: _Rows) -> Figure:
    models = data.models
    step = 0.62 / max(2, len(models))
    height = len(rows) * (0.12 + 0.08 * len(models)) + 0.3
    figure = page(height, _caption(data), model_legend(data, "point"))
    axis = figure.subplots()
    for place, numbers in enumerate(rows.values()):
        for number, model in enumerate(models):
            if model in numbers:
                _dot(axis, data, model, numbers[model], place + (number - (len(models) - 1) / 2) * step)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    for place in range(1, len(rows)):
        axis.axhline(place - 0.5, color="#e4e4e4", linewidth=0.4, zorder=0)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(data.measure.axis_label())
    axis.grid(visible=True, axis="x")
    return figure


def _panels(data: FigureData, rows: _Rows) -> Figure:
    models = data.models
    figure = page(0.4 + 0.145 * len(models), _caption(data), width_inches=PAGE, label=data.measure.axis_label())
    panels = figure.subplots(1, len(rows), sharey=True)
    names = labels(data, _NAME)
    for axis, (group, numbers) in zip(panels, rows.items(), strict=True):
        for place, model in enumerate(models):
            if model in numbers:
                _dot(axis, data, model, numbers[model], place)
        axis.set_title(group)
        axis.tick_params(axis="y", length=0)
        plain_ticks(axis.xaxis, 3)
        axis.grid(visible=True, axis="both")
    panels[0].set_yticks(range(len(models)), [names[model] for model in models])
    panels[0].set_ylim(len(models) - 0.5, -0.5)
    return figure


def _caption(data: FigureData) -> str:
    return caption(data, "bars", "Mean: over all corruptions")


def _dot(axis: Any, data: FigureData, model: str, number: Number, place: float) -> None:
    mark = data.marks[model]
    low, high = number.reach
    axis.errorbar([number.value], [place], xerr=[[low], [high]], **{**mark.point, "color": mark.colour}, elinewidth=0.8)


@drawing()
def draw_clean_corrupted(report: Report, section: Section) -> Figure:
    """Draw a point with both intervals for each model: the mean under corruption against the number on clean images.

    An arrow leads from the first to the second of two twins, see :func:`~dtn_det.reports.figures.data.marks_of`.

    Raises:
        NothingToDrawError: No model has both numbers.
    """
    data = FigureData.of(report, section)
    points = {
        model: (clean, mean)
        for model in data.models
        if (clean := data.clean(model)) is not None and (mean := data.mean(model)) is not None
    }
    if not points:
        raise NothingToDrawError("no model has numbers of clean and of corrupted images")
    figure = page(2.1, caption(data, "bars"), model_legend(data, "point"))
    axis: Any = figure.subplots()
    for model, (clean, mean) in points.items():
        mark = data.marks[model]
        bars = {"xerr": [[end] for end in clean.reach], "yerr": [[end] for end in mean.reach]}
        axis.errorbar([clean.value], [mean.value], **bars, **mark.point, ecolor=(mark.colour, 0.5), elinewidth=0.6)
    for first, second in section.pairs:
        # Only twins get an arrow; arrows from a baseline to all other models would be clutter.
        if not data.marks[first].filled and first in points and second in points:
            ends = [tuple(number.value for number in points[name]) for name in (second, first)]
            style = {"arrowstyle": "-|>,head_width=0.12,head_length=0.25", "color": GREY, "linewidth": 0.6}
            axis.annotate("", *ends, arrowprops={**style, "shrinkA": 3, "shrinkB": 3}, zorder=1.8)
    axis.set_xlabel(data.measure.axis_label("clean"))
    axis.set_ylabel(data.measure.axis_label("mean corrupted"))
    plain_ticks(axis.xaxis, 6)
    plain_ticks(axis.yaxis, 6)
    axis.grid(visible=True, axis="both")
    return figure
