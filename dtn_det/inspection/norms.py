"""One norm of a network: the gates and positional kernels that DTN has learned, and sizes of tokens after norms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dtn_det.layers import DTN
from dtn_det.layers.plain import (
    DTNOptions,
    DTNParameters,
    Moments,
    dynamic_token_norm,
    intra_token_moments,
    normalize,
    split_groups,
)
from dtn_det.layers.positions import axis_attention

SMALLEST_SIDE = 15
"""Smallest side of the grid on which kernels are read, in tokens."""


@dataclass(frozen=True)
class Gates:
    """The gates of a DTN layer: the share, in [0, 1], of a token's own statistics in the statistics of the norm.

    At 1, the statistics are LayerNorm's; at 0, they come from the neighbouring tokens alone. ``G`` is the number of
    groups of channels.

    Attributes:
        mean: ``(G,)``, the gates of the mean; None if the mean is always LayerNorm's (``only_var``).
        var: ``(G,)``, the gates of the variance.
    """

    mean: NDArray[np.float64] | None
    var: NDArray[np.float64]


@dataclass(frozen=True)
class Kernels:
    """The weights with which all tokens enter the statistics of the middle token of a grid, for each of ``G`` groups.

    The kernel over the grid is the product of the kernels of the two axes (Shao et al., arXiv:2112.02624, Eq. 6).

    Attributes:
        coefficients: ``(G, 3)``; the columns are ``a_x``, ``a_y`` and ``a_d``.
        rows: ``(G, H)``, weights of the rows, which sum to 1.
        columns: ``(G, W)``, weights of the columns, which sum to 1.
        row_offsets: ``(H,)``, how many rows each row lies below the token; negative for rows above.
        column_offsets: ``(W,)``, how many columns each column lies to the right of the token; negative to its left.
    """

    coefficients: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    row_offsets: NDArray[np.int64]
    column_offsets: NDArray[np.int64]

    def window(self, radius: int) -> NDArray[np.float64]:
        """Return the two-dimensional kernels around the token, ``(G, 2 radius + 1, 2 radius + 1)``; 0 off the grid."""
        rows = _around(self.rows, self.row_offsets, radius)
        columns = _around(self.columns, self.column_offsets, radius)
        return rows[:, :, None] * columns[:, None, :]


def read_gates(norm: DTN) -> Gates:
    """Read the gates of a layer."""
    mean = norm.mean_norm_weight
    return Gates(
        None if mean is None else mean.detach().double().sigmoid().cpu().numpy(),
        norm.var_norm_weight.detach().double().sigmoid().cpu().numpy(),
    )


def read_kernels(norm: DTN, grid: tuple[int, int]) -> Kernels:
    """Read the kernels of a layer on a grid, for the token at ``(H // 2, W // 2)``.

    Args:
        grid: ``(H, W)``. Wide kernels reach the borders of the grid and depend on it. A side below 15 counts as 15, so
            that the borders of a small map do not cut off narrow kernels.
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


def offset_moments(
    weights: NDArray[np.float64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the weighted mean and deviation, ``(G,)`` each, of ``L`` offsets with the weights ``(G, L)``."""
    mean = weights @ offsets
    return mean, np.sqrt((weights * (offsets - mean[:, None]) ** 2).sum(axis=1))


def _around(weights: NDArray[np.float64], offsets: NDArray[np.int64], radius: int) -> NDArray[np.float64]:
    out = np.zeros((len(weights), 2 * radius + 1))
    near = np.abs(offsets) <= radius
    out[:, offsets[near] + radius] = weights[:, near]
    return out


@dataclass(frozen=True)
class Magnitudes:
    """The sizes of the same tokens before a norm and after each of three norms, ``(G, H, W)`` for ``G`` groups.

    The size is the root mean square over the channels of a group. Figure 1 of the paper (Shao et al., arXiv:2112.02624)
    draws the Euclidean norm of the token's embedding in each head instead. That norm is the size times the square root
    of the width of a head. The layer's learned scale and shift are left out, because only one of the three norms has
    them.

    Attributes:
        tokens: Sizes of the norm's input.
        layer_norm: Sizes after LayerNorm.
        instance_norm: Sizes after instance norm, whose statistics go over all tokens of each channel.
        dtn: Sizes after DTN with the layer's parameters.
    """

    tokens: NDArray[np.float32]
    layer_norm: NDArray[np.float32]
    instance_norm: NDArray[np.float32]
    dtn: NDArray[np.float32]


def token_magnitudes(tokens: Tensor, norm: nn.LayerNorm, num_groups: int) -> Magnitudes:
    """Normalise tokens in three ways and measure their sizes.

    Args:
        tokens: ``(H, W, C)``, the input of a norm, without prefix tokens.
        norm: The norm. For a LayerNorm, which has no gates and kernels, an untrained DTN (``init='local'``, gates at
            0.5) with the same ``eps`` is applied.
        num_groups: Number of groups of that untrained DTN; a trained DTN has its own number of groups.

    Returns:
        The sizes of each group of channels.
    """
    tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    dtn = norm if isinstance(norm, DTN) else DTN(norm.normalized_shape[0], num_groups, eps=norm.eps).to(tokens)
    groups = dtn.num_groups
    with torch.no_grad():
        one, zero = torch.ones_like(tokens[0, 0]), torch.zeros_like(tokens[0, 0])
        own = intra_token_moments(tokens, unbiased=False)
        channel_var, channel_mean = torch.var_mean(tokens, dim=(0, 1), correction=0)
        mean_gate = None if dtn.mean_norm_weight is None else dtn.mean_norm_weight.to(tokens)
        parameters = DTNParameters(dtn.pos_proj.weight.to(tokens), mean_gate, dtn.var_norm_weight.to(tokens), one, zero)
        options = DTNOptions(dtn.eps, dtn.head_rms, dtn.unbiased)
        mixed = dynamic_token_norm(tokens.unsqueeze(0), parameters, options)
        return Magnitudes(
            tokens=_sizes(tokens, groups),
            layer_norm=_sizes(normalize(tokens, own, one, zero, norm.eps), groups),
            instance_norm=_sizes(normalize(tokens, Moments(channel_mean, channel_var), one, zero, norm.eps), groups),
            dtn=_sizes(mixed[0], groups),
        )


def _sizes(tokens: Tensor, num_groups: int) -> NDArray[np.float32]:
    """Return the root mean square of each token in each group of channels: ``(H, W, C)`` becomes ``(G, H, W)``."""
    sizes = split_groups(tokens, num_groups).square().mean(dim=-1).sqrt()
    out: NDArray[np.float32] = sizes.permute(2, 0, 1).float().cpu().numpy()
    return out


def spread(sizes: NDArray[np.float32]) -> float:
    """Measure how unequal tokens are: the standard deviation of their sizes divided by the mean.

    Args:
        sizes: Positive numbers of any shape.

    Example:
        >>> spread(np.array([1.0, 1.0, 3.0, 3.0], dtype=np.float32))
        0.5
    """
    return float(sizes.std() / sizes.mean())
