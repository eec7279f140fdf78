"""The layout that all figures share: a legend above the panels, a caption below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dtn_det.reports.figures.data import FigureData
from dtn_det.reports.figures.text import MINUS, fitted, signs, width, wrapped
from dtn_det.system.drawing import COLUMN, GREY, PALE, TEXT, new_figure

Entry = tuple[Any, str]
"""A line or patch of a legend, and the text beside it."""

_INCH = 72.0
_LINE = 1.22 * TEXT / _INCH
"""Height of a line of text in inches."""
_HANDLE_LENGTH = 2.2
_HANDLE, _GAP = (_HANDLE_LENGTH + 0.4) * TEXT, 1.2 * TEXT
"""Width in points of a line's sample in the legend with the space after it, and of the space between two columns."""
_MARGIN = 6.0


def page(
    body: float, caption: str, legend: Sequence[Entry] = (), width_inches: float = COLUMN, label: str = ""
) -> Figure:
    """Make a figure with its legend and caption; the caller adds the panels.

    Args:
        body: Height of the space for the panels, in inches.
        caption: Text below the panels, of characters that the font has.
        legend: Entries of the legend above the panels.
        width_inches: Width of the figure, in inches.
        label: One label for the horizontal axes of all panels.
    """
    points = width_inches * _INCH - _MARGIN
    columns = _columns([width(label) for _, label in legend], points)
    text = wrapped(caption, points)
    under_label = _LINE * (text.count("\n") + 1) + 3 / _INCH if text else 0.0
    below = under_label + (_LINE if label else 0.0)
    height = body + 1.15 * _LINE * -(-len(legend) // columns) + below
    figure = new_figure(height, width_inches)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, below / height, 1, 1 - below / height))
    left = _MARGIN / 2 / _INCH / width_inches
    figure.text(left, 2 / _INCH / height, text, color=GREY, linespacing=1.1, in_layout=False)
    figure.text(0.5, (under_label + 2 / _INCH) / height, label, ha="center", in_layout=False)
    if legend:
        _add_legend(figure, legend, columns)
    return figure


def labels(data: FigureData, points: float) -> dict[str, str]:
    """Return the name of each model, shortened to fit, with a sign if the model is partial or imported.

    Args:
        data: The data of the figure.
        points: Largest width of a name with its signs, in points.
    """
    behind = signs(data)
    names = fitted(data.models, points - max(width(sign) for sign in behind.values()))
    return {name: names[name] + behind[name] for name in data.models}


def model_legend(data: FigureData, style: str, width_inches: float = COLUMN) -> list[Entry]:
    """Make the legend's entries of the models.

    Args:
        data: The data of the figure.
        style: ``curve`` for lines, with one entry for all grey ones, or ``point`` for markers.
        width_inches: Width of the figure, in inches.
    """
    names = labels(data, width_inches * _INCH - _MARGIN - _HANDLE)
    shown = [name for name in data.models if style == "point" or data.marks[name].highlighted]
    found = [(Line2D([], [], **getattr(data.marks[name], style)), names[name]) for name in shown]
    others = len(data.models) - len(shown)
    if others:
        found.append((Line2D([], [], color=PALE, linewidth=0.7), f"{others} other models"))
    return found


def grid(axis: Any, which: str) -> None:
    """Add faint lines at the ticks of an axis: ``x``, ``y`` or ``both``."""
    axis.grid(visible=True, axis=which)


def plain_ticks(axis: Any, most: int) -> None:
    """Put about `most` ticks along an axis, at round numbers."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))


def handle(**style: Any) -> Any:
    """Make a line without data, to be shown in a legend."""
    return Line2D([], [], **style)


def pair_titles(data: FigureData, points: float) -> Mapping[tuple[str, str], str]:
    """Return the title `second minus first` of each pair, on two lines if it is wider than ``points``."""
    names = labels(data, points - width(f"{MINUS} "))
    found = {}
    for first, second in data.section.pairs:
        whole = f"{names[second]} {MINUS} {names[first]}"
        found[first, second] = whole if width(whole) <= points else f"{names[second]}\n{MINUS} {names[first]}"
    return found


def _add_legend(figure: Figure, entries: Sequence[Entry], columns: int) -> None:
    handles = [handle for handle, _ in entries]
    lines = any(handle.get_linestyle() != "None" for handle in handles)
    # matplotlib leaves labels that begin with an underscore out of a legend, so set the texts afterwards.
    legend = figure.legend(
        handles,
        ["x"] * len(entries),
        loc="outside upper left",
        ncols=columns,
        handlelength=_HANDLE_LENGTH if lines else 1,
    )
    for text, (_, label) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(label)


def _columns(widths: Sequence[float], points: float) -> int:
    """Return how many columns of the legend fit into a width; entries run down each column."""
    for rows in range(1, len(widths)):
        columns = -(-len(widths) // rows)
        parts = [max(part) for part in np.array_split(widths, columns)]
        if sum(parts) + columns * _HANDLE + (columns - 1) * _GAP <= points:
            return columns
    return 1
