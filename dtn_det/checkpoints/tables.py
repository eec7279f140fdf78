"""Tables of positions, resized to the grid of a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from dtn_det.checkpoints.names import StateDict


def without_class_token(embedding: Tensor) -> Tensor:
    """Drop the first position of ``(1, 1 + S * S, C)``; a square number of positions stays."""
    positions = embedding.shape[1]
    if _side(positions) is None and _side(positions - 1) is not None:
        return embedding[:, 1:]
    return embedding


def resize_tables(
    state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], grids: Mapping[str, tuple[int, int]]
) -> StateDict:
    """Resize, bicubically, relative-position tables and position embeddings whose size differs from the model's.

    Args:
        state: Names and tensors in MMDetection's names.
        shapes: Shapes that the model has.
        grids: Grid ``(H, W)`` of each position embedding in the model.

    Returns:
        A new dict. A table that cannot be resized (other heads or width, not of a square grid) stays as it is.
    """
    out = dict(state)
    for key, value in state.items():
        shape = shapes.get(key)
        if shape is None or shape == value.shape:
            continue
        if key.endswith("relative_position_bias_table") and value.dim() == 2 and value.shape[1] == shape[1]:
            old, new = _side(value.shape[0]), _side(shape[0])
            if old is not None and new is not None:
                out[key] = resize_grid(value[None], (old, old), (new, new))[0]
        elif key in grids and value.dim() == 3 and value.shape[2] == shape[2]:
            old = _side(value.shape[1])
            if old is not None:
                out[key] = resize_grid(value, (old, old), grids[key])
    return out


def resize_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize a table of grid positions bicubically.

    Args:
        table: ``(1, old H * old W, C)``.
        old: Its grid ``(H, W)``.
        new: The grid wanted.

    Returns:
        ``(1, new H * new W, C)`` of the same dtype.
    """
    grid = table.float().transpose(1, 2).reshape(1, -1, *old)
    resized = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2).to(table.dtype)


def _side(area: int) -> int | None:
    side = round(area**0.5)
    return side if side * side == area else None
