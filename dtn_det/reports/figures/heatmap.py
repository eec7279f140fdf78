"""The figure of every model under every corruption as a heat map with numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dtn_det.errors import NothingToDrawError
from dtn_det.reports.contents import Report, Section
from dtn_det.reports.figures.data import FigureData
from dtn_det.reports.figures.layout import caption, labels, page, printable
from dtn_det.reports.labels import groups_of, short, title
from dtn_det.reports.numbers import Number
from dtn_det.system.drawing import COLUMN, PAGE, drawing

_ROW = 0.165
"""Height of a model's row, in inches."""
_NAME, _CELL = 100, 18.6
"""Largest width of a model's name, and smallest width of a column of numbers, in points."""
_FEW = 5
"""Largest number of columns of numbers in one column of a paper; with more, the figure is as wide as the page."""
_COLOURS = "Blues"
_DARKEST = 0.85
"""Fraction of the colour map that is used, because text on darker colours would not be legible."""
_SPACE = 0.25
"""Space between two blocks, as a fraction of the width of a column."""


@dataclass(frozen=True)
class _HeatmapBlock:
    """Neighbouring columns of the heat map under one title.

    Attributes:
        values: Number of each model in each column, (models, columns); NaN if the number is missing.
        coloured: Whether the numbers have the same unit as the colour scale. If not, all cells have the palest colour.
    """

    title: str
    columns: list[str]
    values: NDArray[np.float64]
    coloured: bool = True


@drawing()
def draw_heatmap(report: Report, section: Section) -> Figure:
    """Draw the CE of each corruption, or the error or AP if some model has no mCE. Each column's best number is bold.

    Raises:
        NothingToDrawError: There are no numbers of corruptions.
    """
    data = FigureData.of(report, section)
    if not data.corruptions:
        raise NothingToDrawError("there are no numbers of corruptions")
    relative = data.everywhere("mCE")
    blocks = _blocks(data, relative)
    what = f"CE relative to {_baseline(report)}" if relative else "means over the severities"
    text = caption(data, "", what, *(["bold: best"] if len(data.models) > 1 else []))
    wide = PAGE if sum(len(block.columns) for block in blocks) > _FEW else COLUMN
    figure = page(0.68 + _ROW * len(data.models), text, width_inches=wide)
    axis = figure.subplots()
    colours = _range(blocks)
    start, ticks = 0.0, []
    for block in blocks:
        _draw_block(axis, block, start, colours, data.measure.is_lower_better)
        ticks += [(start + column, name) for column, name in enumerate(block.columns)]
        start += len(block.columns) + _SPACE
    names = labels(data, min(_NAME, 72 * wide - 12 - _CELL * (start - _SPACE)))
    axis.set_xlim(-0.5, start - _SPACE - 0.5)
    axis.set_ylim(len(data.models) - 0.5, -0.5)
    axis.set_yticks(range(len(data.models)), [names[model] for model in data.models])
    axis.set_xticks(*zip(*ticks, strict=True), rotation=45, ha="right", rotation_mode="anchor")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    unit = "CE (%) ↓" if relative else data.measure.axis_label()
    axis.annotate(unit, (0, 1), (-3, 3), xycoords="axes fraction", textcoords="offset points", ha="right")
    return figure


def _blocks(data: FigureData, relative: bool) -> list[_HeatmapBlock]:
    models, measure = data.models, data.measure

    def values(columns: Sequence[Sequence[Number | None]]) -> NDArray[np.float64]:
        rows = zip(*columns, strict=True)
        return np.array([[math.nan if number is None else number.value for number in row] for row in rows])

    found = []
    clean = [data.clean(model) for model in models]
    if any(number is not None for number in clean):
        found.append(_HeatmapBlock("", [f"Clean {measure.name.split()[-1]}"], values([clean]), not relative))
    cell, mean, title_of_mean = ("CE", "mCE", "mCE") if relative else (measure.mean, measure.mean, "Mean")
    found.append(_HeatmapBlock("", [title_of_mean], values([[data.get(model, mean) for model in models]])))
    for group, names in groups_of(data.corruptions).items():
        numbers = [[data.get(model, cell, name) for model in models] for name in names]
        found.append(_HeatmapBlock(title(group), [short(name) for name in names], values(numbers)))
    return found


def _range(blocks: Sequence[_HeatmapBlock]) -> tuple[float, float]:
    """Return the numbers at the two ends of the colour map."""
    values = np.concatenate([block.values.ravel() for block in blocks if block.coloured])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low, low + max(high - low, 1e-9) / _DARKEST


def _draw_block(axis: Any, block: _HeatmapBlock, start: float, colours: tuple[float, float], lower: bool) -> None:
    low, high = colours
    colour_map = colormaps[_COLOURS]
    rows, columns = block.values.shape
    shown = block.values if block.coloured else np.full_like(block.values, low)
    edges = start - 0.5 + np.arange(columns + 1)
    axis.pcolormesh(
        edges,
        np.arange(rows + 1) - 0.5,
        shown,
        cmap=_COLOURS,
        vmin=low,
        vmax=high,
        edgecolors="white",
        linewidth=0.5,
    )
    signed = block.values if lower else -block.values
    best = np.where(np.isnan(signed), math.inf, signed).min(0)
    for (row, column), value in np.ndenumerate(block.values):
        axis.text(
            start + column,
            row,
            "\N{EN DASH}" if math.isnan(value) else f"{value:.1f}" if value < 99.95 else f"{value:.0f}",
            ha="center",
            va="center_baseline",
            color=_ink(colour_map((shown[row, column] - low) / (high - low))),
            fontweight="bold" if rows > 1 and signed[row, column] == best[column] else "normal",
        )
    axis.annotate(block.title, (start + (columns - 1) / 2, -0.5), (0, 3), textcoords="offset points", ha="center")


def _ink(ground: Sequence[float]) -> str:
    """Choose black or white text, whichever has more contrast by WCAG's relative luminance."""
    linear = [(part + 0.055) ** 2.4 / 1.055**2.4 if part > 0.04 else part / 12.92 for part in ground[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def _baseline(report: Report) -> str:
    return "AlexNet" if report.baseline == "alexnet" else printable(str(report.baseline))
