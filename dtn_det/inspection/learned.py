"""What a DTN layer has learned: the gates of its groups and the weights that each gives to neighbouring tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dtn_det.layers import DTN
from dtn_det.layers.positions import axis_attention

SMALLEST_SIDE = 15
"""Of the grid that kernels are read on."""


@dataclass(frozen=True)
class Gates:
    """Shares of the within-token statistics in what normalises a group, in [0, 1]: 1 is LayerNorm, 0 the neighbours'.

    Attributes:
        mean: ``(G,)``, or None where the mean is LayerNorm's alone (``only_var``).
        var: ``(G,)``.
    """

    mean: NDArray[np.float64] | None
    var: NDArray[np.float64]


@dataclass(frozen=True)
class Kernels:
    """The weights by which the token in the middle of a grid mixes tokens, for each group.

    The kernel over the grid is the product of the two axes' (Shao et al., arXiv:2112.02624, Eq. 6).

    Attributes:
        coefficients: ``(G, 3)``: ``a_x``, ``a_y``, ``a_d``.
        rows: ``(G, H)``, weights over the rows, with sums of 1.
        columns: ``(G, W)``, weights over the columns, with sums of 1.
        row_offsets: ``(H,)``, rows from the token to the one that is mixed in; below is positive.
        column_offsets: ``(W,)``; to the right is positive.
    """

    coefficients: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    row_offsets: NDArray[np.int64]
    column_offsets: NDArray[np.int64]

    def window(self, radius: int) -> NDArray[np.float64]:
        """The two-dimensional kernels around the token, ``(G, 2 radius + 1, 2 radius + 1)``; 0 beyond the grid."""
        rows = _around(self.rows, self.row_offsets, radius)
        columns = _around(self.columns, self.column_offsets, radius)
        return rows[:, :, None] * columns[:, None, :]


def read_gates(norm: DTN) -> Gates:
    """The gates of a layer."""
    mean = norm.mean_norm_weight
    return Gates(
        None if mean is None else mean.detach().double().sigmoid().cpu().numpy(),
        norm.var_norm_weight.detach().double().sigmoid().cpu().numpy(),
    )


def read_kernels(norm: DTN, grid: tuple[int, int]) -> Kernels:
    """The kernels of a layer on a grid, for the token at ``(H // 2, W // 2)``.

    Args:
        norm: The layer.
        grid: ``(H, W)``. Kernels that are wide reach its borders, and depend on it; for those that are not, it counts
            as at least 15 x 15, lest the borders of a small map cut them off.
    """
    coefficients = norm.pos_proj.weight.detach().double().cpu()
    a_x, a_y, a_d = coefficients.unbind(1)
    height, width = (max(side, SMALLEST_SIDE) for side in grid)
    return Kernels(
        coefficients=coefficients.numpy(),
        rows=axis_attention(a_y, a_d, height)[:, height // 2].numpy(),
        columns=axis_attention(a_x, a_d, width)[:, width // 2].numpy(),
        row_offsets=(torch.arange(height) - height // 2).numpy(),
        column_offsets=(torch.arange(width) - width // 2).numpy(),
    )


def moments(
    weights: NDArray[np.float64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of the offsets under weights ``(G, L)``, each ``(G,)``."""
    mean = weights @ offsets
    return mean, np.sqrt((weights * (offsets - mean[:, None]) ** 2).sum(axis=1))


def _around(weights: NDArray[np.float64], offsets: NDArray[np.int64], radius: int) -> NDArray[np.float64]:
    out = np.zeros((len(weights), 2 * radius + 1))
    near = np.abs(offsets) <= radius
    out[:, offsets[near] + radius] = weights[:, near]
    return out
