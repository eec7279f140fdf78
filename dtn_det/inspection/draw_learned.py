"""Figures of what DTN has learned: gates and positional kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dtn_det._optional import require
from dtn_det.inspection.depth_axis import side_by_side, stage_axis, stage_colour
from dtn_det.inspection.layout import ABOVE, thin_bar
from dtn_det.inspection.learned import Kernels
from dtn_det.inspection.look import BlockLook, Looks
from dtn_det.system.drawing import COLOURS, COLUMN, GREY, MARKERS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_GROUPS = 24
"""Groups of a layer whose kernels are drawn; the tables have all."""
COLUMNS = 8
MARGIN = 0.35
"""Inches to the left of the panels, for names."""
COLOUR_MAP = "Blues"


def draw_gates(looks: Looks) -> Figure:
    """The gates of every DTN layer along the depth of the network, a point for each group.

    Args:
        looks: With DTN layers.
    """
    layers = [(block, norm) for block, norm in looks.norms if norm.gates is not None]
    figure = new_figure(2.3)
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    for field, title, axis in zip(("mean", "var"), ("mean", "variance"), axes, strict=True):
        axis.axhline(0.5, color=GREY, linewidth=0.5, linestyle=":", zorder=0)
        for place, (block, norm) in enumerate(layers):
            gates = getattr(norm.gates, field)
            if gates is None:
                axis.text(place, 0.5, "LN", ha="center", va="center", color=GREY, fontsize=5)
                continue
            marker = MARKERS[list(block.norms).index(norm.name)]
            places = place + side_by_side(len(gates))
            axis.scatter(places, gates, s=5, alpha=0.7, linewidths=0, marker=marker, color=stage_colour(block))
        axis.set_ylabel(f"{title} gate")
        stage_axis(axis, [block for block, _ in layers])
    axes[1].set_xlabel("norm layers, input to output")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(min(low, 0.45), max(high, 0.55))
    axes[0].set_title("1: within token, 0: across tokens", loc="left", color=GREY, fontsize=6.5)
    line = require("matplotlib.lines", "report").Line2D
    names = list(dict.fromkeys(norm.name for _, norm in layers))
    marks = [
        line([], [], marker=marker, linestyle="", color=GREY, label=name)
        for name, marker in zip(names, MARKERS, strict=False)
    ]
    axes[0].legend(handles=marks, handletextpad=0.2, **ABOVE)
    return figure


def draw_kernels(chosen: Sequence[BlockLook], norm_name: str, radius: int) -> Figure:
    """The weights of the neighbouring tokens, a map for each group of the chosen layers.

    Args:
        chosen: Blocks; those without DTN are passed over.
        norm_name: Which of their norms.
        radius: Tokens to each side.
    """
    layers = _with_kernels(chosen, norm_name)
    maps = [kernels.window(radius)[:MOST_GROUPS] for _, kernels in layers]
    rows = sum(-(-len(groups) // COLUMNS) for groups in maps)
    figure = new_figure(rows * ((COLUMN - MARGIN) / COLUMNS + 0.02) + 0.5)
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    highest = max(float(groups.max()) for groups in maps)
    image: Any = None
    row = 0
    for (block, _), groups in zip(layers, maps, strict=True):
        axes[row, 0].set_ylabel(_short(block), rotation=0, ha="right", va="center")
        lines = -(-len(groups) // COLUMNS)
        for axis, weights in zip(axes[row : row + lines].flat, groups, strict=False):
            image = axis.imshow(weights, cmap=COLOUR_MAP, vmin=0, vmax=highest)
            axis.plot(radius, radius, marker="+", color=COLOURS[1], markersize=3.5, markeredgewidth=0.6)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set(visible=True, linewidth=0.3, color=GREY)
        for axis in axes[row : row + lines].flat[len(groups) :]:
            axis.set_visible(False)
        row += lines
    side = 2 * radius + 1
    thin_bar(figure, image, axes, f"weight of each of the {side} x {side} tokens around +, {norm_name}")
    return figure


def draw_axis_kernels(chosen: Sequence[BlockLook], norm_name: str, radius: int) -> Figure:
    """The weights along each axis, a line of cells for each group of the chosen layers.

    Args:
        chosen: Blocks; those without DTN are passed over.
        norm_name: Which of their norms.
        radius: Tokens to each side.
    """
    layers = _with_kernels(chosen, norm_name)
    counts = [min(len(kernels.coefficients), MOST_GROUPS) for _, kernels in layers]
    heights = [max(count, 3.5) for count in counts]
    figure = new_figure(0.085 * sum(heights) + 0.1 * len(heights) + 0.75)
    axes = figure.subplots(len(layers), 2, sharex=True, squeeze=False, height_ratios=heights)
    highest = max(float(max(kernels.rows.max(), kernels.columns.max())) for _, kernels in layers)
    image: Any = None
    for row, (block, kernels), count in zip(axes, layers, counts, strict=True):
        sides = ((kernels.columns, kernels.column_offsets), (kernels.rows, kernels.row_offsets))
        for axis, (weights, offsets) in zip(row, sides, strict=True):
            near = np.abs(offsets) <= radius
            extent = (offsets[near][0] - 0.5, offsets[near][-1] + 0.5, count + 0.5, 0.5)
            style = {"cmap": COLOUR_MAP, "vmin": 0, "vmax": highest, "aspect": "auto"}
            image = axis.imshow(weights[:count, near], extent=extent, **style)
            axis.axvline(0, color=COLOURS[1], linewidth=0.5, linestyle=":")
            axis.spines[:].set(visible=True, linewidth=0.3, color=GREY)
            axis.set_yticks([])
            axis.tick_params(axis="x", length=0)
        row[0].set_ylabel(_short(block), rotation=0, ha="right", va="center")
        row[0].set_xlim(-radius - 0.5, radius + 0.5)
    axes[-1, 0].set_xlabel("tokens to the right")
    axes[-1, 1].set_xlabel("tokens down")
    axes[-1, 0].set_xticks(range(-radius, radius + 1))
    thin_bar(figure, image, axes, f"weight of the tokens at each offset, {norm_name}")
    return figure


def _with_kernels(chosen: Sequence[BlockLook], norm_name: str) -> list[tuple[BlockLook, Kernels]]:
    return [(block, kernels) for block in chosen if (kernels := block.norms[norm_name].kernels) is not None]


def _short(block: BlockLook) -> str:
    return block.title.replace(", ", "\n")
