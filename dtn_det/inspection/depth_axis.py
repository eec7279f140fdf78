"""An axis along the depth of a network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtn_det.inspection.look import BlockLook
from dtn_det.system.drawing import COLOURS, GREY


def stage_colour(block: BlockLook) -> str:
    """The colour of a block's stage."""
    return COLOURS[(block.stage - 1) % len(COLOURS)]


def side_by_side(count: int) -> NDArray[np.float64]:
    """Places of the groups or heads of a layer around its own place, so that they do not hide one another."""
    return 0.6 * ((np.arange(count) + 0.5) / count - 0.5)


def stage_axis(axis: Any, blocks: Sequence[BlockLook]) -> None:
    """Name the stages below an axis, or the blocks of a network that has one stage, and part the stages by lines.

    Args:
        axis: Its places 0, 1, 2, ... stand for the blocks.
        blocks: In the order of depth; one may stand there several times.
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
