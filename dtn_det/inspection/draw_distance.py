"""The figure of the mean attention distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtn_det._optional import require
from dtn_det.inspection.depth_axis import side_by_side, stage_axis, stage_colour
from dtn_det.inspection.layout import ABOVE
from dtn_det.inspection.look import BlockLook, Looks
from dtn_det.system.drawing import GREY, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_distance(looks: Looks) -> Figure:
    """How far each head looks, in pixels of the network's input, along the depth of the network.

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
    line = require("matplotlib.lines", "report").Line2D
    marks = [
        line([], [], marker="o", linestyle="", color=GREY, label="a head"),
        line([], [], color=GREY, linewidth=0.8, label="uniform attention"),
    ]
    axis.legend(handles=marks, handletextpad=0.4, **ABOVE)
    return figure


def _highest(block: BlockLook) -> float:
    return block.stride * max(block.attention.uniform_distance, float(block.attention.distance.max()))
