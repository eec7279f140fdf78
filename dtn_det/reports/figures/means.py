"""The figures of means: under each group of corruptions, and clean against corrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtn_det.corruptions.catalog import GROUPS
from dtn_det.errors import NothingToDrawError
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.data import Number, Subject
from dtn_det.reports.figures.layout import grid, labels, model_legend, page, plain_ticks
from dtn_det.reports.figures.text import caption
from dtn_det.reports.labels import title
from dtn_det.system.drawing import GREY, PAGE, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST_SIDE_BY_SIDE = 4
"""Models whose points share a line; more have lines of their own."""
_NAME = 100
"""Points for a model's name."""

_Rows = dict[str, dict[str, Number]]
"""By group, by model."""


@drawing()
def draw_groups(report: Report, section: Section) -> Figure:
    """Dots with intervals: clean images, each group of corruptions, and all corruptions.

    Few models share the line of a group; many have a line each, and a panel for each group.

    Raises:
        NothingToDrawError: There are no numbers of groups.
    """
    subject = Subject.of(report, section)
    rows = _rows(subject)
    if not any(title(group) in rows for group in GROUPS):
        raise NothingToDrawError("there are no numbers of groups of corruptions")
    few = len(subject.models) <= MOST_SIDE_BY_SIDE
    return _side_by_side(subject, rows) if few else _panels(subject, rows)


def _rows(subject: Subject) -> _Rows:
    wanted = {
        "Clean": {model: subject.clean(model) for model in subject.models},
        **{title(group): {model: subject.mean(model, group) for model in subject.models} for group in GROUPS},
        "Mean": {model: subject.mean(model) for model in subject.models},
    }
    rows = {
        name: {model: number for model, number in numbers.items() if number is not None}
        for name, numbers in wanted.items()
    }
    return {name: numbers for name, numbers in rows.items() if numbers}


def _side_by_side(subject: Subject, rows: _Rows) -> Figure:
    models = subject.models
    step = 0.62 / max(2, len(models))
    height = len(rows) * (0.12 + 0.08 * len(models)) + 0.3
    figure = page(height, _caption(subject), model_legend(subject, "point"))
    axis = figure.subplots()
    for place, numbers in enumerate(rows.values()):
        for number, model in enumerate(models):
            if model in numbers:
                _dot(axis, subject, model, numbers[model], place + (number - (len(models) - 1) / 2) * step)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
    for place in range(1, len(rows)):
        axis.axhline(place - 0.5, color="#e4e4e4", linewidth=0.4, zorder=0)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(subject.measure.label())
    grid(axis, "x")
    return figure


def _panels(subject: Subject, rows: _Rows) -> Figure:
    models = subject.models
    figure = page(0.4 + 0.145 * len(models), _caption(subject), width_inches=PAGE, label=subject.measure.label())
    panels = figure.subplots(1, len(rows), sharey=True)
    names = labels(subject, _NAME)
    for axis, (group, numbers) in zip(panels, rows.items(), strict=True):
        for place, model in enumerate(models):
            if model in numbers:
                _dot(axis, subject, model, numbers[model], place)
        axis.set_title(group)
        axis.tick_params(axis="y", length=0)
        plain_ticks(axis.xaxis, 3)
        grid(axis, "both")
    panels[0].set_yticks(range(len(models)), [names[model] for model in models])
    panels[0].set_ylim(len(models) - 0.5, -0.5)
    return figure


def _caption(subject: Subject) -> str:
    return caption(subject, "bars", "Mean: over all corruptions")


def _dot(axis: Any, subject: Subject, model: str, number: Number, place: float) -> None:
    mark = subject.marks[model]
    low, high = number.reach
    axis.errorbar([number.value], [place], xerr=[[low], [high]], **{**mark.point, "color": mark.colour}, elinewidth=0.8)


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
