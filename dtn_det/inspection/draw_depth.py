"""Figures along the depth of a network: the gates of DTN and the mean attention distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from dtn_det.inspection.forward_pass import BlockLook, Looks
from dtn_det.system.drawing import COLOURS, GREY, MARKERS, new_figure

ABOVE: Final[Mapping[str, Any]] = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 0.98),
    "borderpad": 0,
    "columnspacing": 1,
    "ncols": 4,
}
"""Options that put a legend above its axes, in one line."""


def draw_gates(looks: Looks) -> Figure:
    """Draw the gates of every DTN layer along the depth of the network, a point for each group.

    Args:
        looks: What a model with DTN layers does with one image.
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
    names = list(dict.fromkeys(norm.name for _, norm in layers))
    marks = [
        Line2D([], [], marker=marker, linestyle="", color=GREY, label=name)
        for name, marker in zip(names, MARKERS, strict=False)
    ]
    axes[0].legend(handles=marks, handletextpad=0.2, **ABOVE)
    return figure


def draw_distance(looks: Looks) -> Figure:
    """Draw how far each head looks, in pixels of the network's input, along the depth of the network.

    As in Figure 7 of Dosovitskiy et al., arXiv:2010.11929, with the distance under uniform attention for comparison.
    """
    figure = new_figure(2.1)
    axis = figure.subplots()
    for place, block in enumerate(looks.blocks):
        pixels = block.attention.distance * block.stride
        uniform = block.attention.uniform_distance * block.stride
        axis.plot([place - 0.4, place + 0.4], [uniform, uniform], color=GREY, linewidth=0.8, zorder=1)
        places = place + side_by_side(len(pixels))
        axis.scatter(places, pixels, s=7, alpha=0.7, linewidths=0, color=stage_colour(block), zorder=2)
    axis.set_ylabel("mean attention distance (pixels)")
    axis.set_ylim(0, 1.05 * max(map(_highest, looks.blocks)))
    stage_axis(axis, looks.blocks)
    axis.set_xlabel("blocks, input to output")
    marks = [
        Line2D([], [], marker="o", linestyle="", color=GREY, label="a head"),
        Line2D([], [], color=GREY, linewidth=0.8, label="uniform attention"),
    ]
    axis.legend(handles=marks, handletextpad=0.4, **ABOVE)
    return figure


def _highest(block: BlockLook) -> float:
    return block.stride * max(block.attention.uniform_distance, float(block.attention.distance.max()))


def stage_colour(block: BlockLook) -> str:
    """Return the colour of a block's stage."""
    return COLOURS[(block.stage - 1) % len(COLOURS)]


def side_by_side(count: int) -> NDArray[np.float64]:
    """Return horizontal offsets of the groups or heads of a layer, so that their points do not hide one another."""
    return 0.6 * ((np.arange(count) + 0.5) / count - 0.5)


def stage_axis(axis: Any, blocks: Sequence[BlockLook]) -> None:
    """Label an axis with the stages, or with the blocks if there is one stage, and draw lines between stages.

    Args:
        axis: Axes of matplotlib, where 0, 1, 2, ... stand for the blocks.
        blocks: The blocks in the order of depth; a block may occur several times.
    """
    stages = [block.stage for block in blocks]
    several = len(set(stages)) > 1
    keys = [f"stage {block.stage}" if several else str(block.index) for block in blocks]
    names = list(dict.fromkeys(keys))
    axis.set_xticks([float(np.mean([place for place, key in enumerate(keys) if key == name])) for name in names], names)
    axis.tick_params(axis="x", length=0)
    for place, (left, right) in enumerate(pairwise(stages)):
        if left != right:
            axis.axvline(place + 0.5, color=GREY, linewidth=0.3)
    axis.set_xlim(-0.6, len(blocks) - 0.4)
