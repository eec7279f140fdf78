"""DTN in plain PyTorch: two products with small matrices, one per axis; any device; differentiable by autograd.

The layer uses this form for masks, double gradients, ``torch.export`` and ONNX; :mod:`dtn_det.layers.kernels.cpu` and
:mod:`dtn_det.layers.kernels.gpu` compute the same numbers faster. All functions are pure.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dtn_det.layers.positions import axis_attention


class DTNParameters(NamedTuple):
    """The tensors of a DTN layer in the order in which its kernels take them, all of one dtype.

    Attributes:
        coefficients: ``(G, 3)``, the positional coefficients; the columns are ``a_x``, ``a_y``, ``a_d``.
        mean_gate: ``(G,)``, the logits of the gates of the mean; None if only LayerNorm's mean is used.
        var_gate: ``(G,)``, the logits of the gates of the variance.
        weight: ``(C,)``, the scale of each channel.
        bias: ``(C,)``, the shift of each channel.
    """

    coefficients: Tensor
    mean_gate: Tensor | None
    var_gate: Tensor
    weight: Tensor
    bias: Tensor


class DTNOptions(NamedTuple):
    """The options that change what a DTN layer computes.

    Attributes:
        eps: Added to variances and mean squares.
        head_rms: Divide each group of channels by its root mean square first.
        unbiased: Divide the sum of squares within a token by ``C - 1`` instead of ``C``.
    """

    eps: float
    head_rms: bool
    unbiased: bool


class Moments(NamedTuple):
    """A mean and a variance that broadcast against the tokens."""

    mean: Tensor
    var: Tensor


def group_rms_normalize(x: Tensor, num_groups: int, eps: float) -> Tensor:
    """Divide each group of channels of ``(..., C)`` by its root mean square; ``eps`` is added to the mean square."""
    grouped = split_groups(x, num_groups)
    return (grouped * torch.rsqrt(grouped.square().mean(-1, keepdim=True) + eps)).flatten(-2)


def split_groups(x: Tensor, num_groups: int) -> Tensor:
    """Split the channels of ``(..., C)`` into ``G`` groups of ``D = C / G``; returns ``(..., G, D)``."""
    return x.reshape(*x.shape[:-1], num_groups, x.shape[-1] // num_groups)


def intra_token_moments(x: Tensor, unbiased: bool) -> Moments:
    """Compute LayerNorm's statistics: mean and variance ``(..., 1)`` over the channels of each token of ``(..., C)``.

    The variance is divided by ``C``, or by ``C - 1`` with ``unbiased``.
    """
    var, mean = torch.var_mean(x, dim=-1, correction=int(unbiased), keepdim=True)
    return Moments(mean, var)


def inter_token_moments(x: Tensor, coefficients: Tensor, mask: Tensor | None = None) -> Moments:
    """Compute statistics over neighbouring tokens, weighted by the positional matrix of each group.

    The mean over the image is subtracted first, which does not change the variance; otherwise ``E[x^2] - E[x]^2`` could
    lose all its digits.

    Args:
        x: ``(B, H, W, C)``, float32 or float64.
        coefficients: ``(G, 3)``, the columns are ``a_x``, ``a_y``, ``a_d``.
        mask: ``(B, H, W)`` booleans, True for tokens that enter the statistics.

    Returns:
        Moments of shape ``(B, H, W, C)``.
    """
    _, height, width, _ = x.shape
    num_groups = coefficients.shape[0]
    a_x, a_y, a_d = coefficients.to(x.dtype).unbind(1)
    rows = axis_attention(a_y, a_d, height, None if mask is None else mask.any(dim=2))  # ([B,] G, H, H)
    cols = axis_attention(a_x, a_d, width, None if mask is None else mask.any(dim=1))  # ([B,] G, W, W)

    if mask is None:
        centre = x.mean(dim=(1, 2), keepdim=True).detach()
    else:
        weight = mask.unsqueeze(-1).to(x.dtype)  # (B, H, W, 1)
        # Fill with 0 instead of multiplying by 0, because padding may be NaN.
        x = x.masked_fill(~mask.unsqueeze(-1), 0)
        count = weight.sum(dim=(1, 2), keepdim=True).clamp_min(1)
        centre = (x.sum(dim=(1, 2), keepdim=True) / count).detach()
    centred = x - centre
    if mask is not None:
        centred = centred * weight
    # (B, H, W, C) -> (B, G, H, W, D)
    grouped = split_groups(centred, num_groups).permute(0, 3, 1, 2, 4)
    stacked = torch.cat([grouped, grouped.square()], dim=-1)  # (B, G, H, W, 2D)
    mixed = _mix(rows, cols, stacked)
    if mask is not None:
        share = _mix(rows, cols, weight.unsqueeze(1).expand(-1, num_groups, -1, -1, -1))  # (B, G, H, W, 1)
        mixed = mixed / share.clamp_min(torch.finfo(x.dtype).tiny)
    mean, square = mixed.chunk(2, dim=-1)
    var = (square - mean.square()).clamp_min(0)
    # (B, G, H, W, D) -> (B, H, W, C)
    mean = mean.permute(0, 2, 3, 1, 4).reshape(x.shape)
    var = var.permute(0, 2, 3, 1, 4).reshape(x.shape)
    return Moments(mean + centre, var)


def _mix(rows: Tensor, cols: Tensor, grouped: Tensor) -> Tensor:
    """Multiply ``(B, G, H, W, K)`` by ``rows`` ``([B,] G, H, H)`` over H and by ``cols`` ``([B,] G, W, W)`` over W."""
    mixed = cols.unsqueeze(-3) @ grouped  # over W: ([B,] G, 1, W, W) @ (B, G, H, W, K)
    return (rows @ mixed.flatten(-2)).reshape(mixed.shape)  # over H: ([B,] G, H, H) @ (B, G, H, W*K)


def expand_gate(gate: Tensor, channels: int) -> Tensor:
    """Apply the sigmoid to each group's gate, and repeat it for the group's channels: from ``(G,)`` to ``(C,)``."""
    return torch.sigmoid(gate).repeat_interleave(channels // gate.shape[0], output_size=channels)


def blend(intra: Moments, inter: Moments, mean_gate: Tensor | None, var_gate: Tensor) -> Moments:
    """Blend the two kinds of statistics with gates (Eq. 4 of the paper). Without ``mean_gate`` the mean is LayerNorm's.

    Args:
        intra: Moments ``(..., 1)`` within each token.
        inter: Moments ``(..., C)`` over the neighbouring tokens.
        mean_gate: ``(C,)`` in [0, 1], the share of the intra-token mean; or None.
        var_gate: ``(C,)`` in [0, 1], the share of the intra-token variance.
    """
    mean = intra.mean if mean_gate is None else torch.lerp(inter.mean, intra.mean.expand_as(inter.mean), mean_gate)
    return Moments(mean, torch.lerp(inter.var, intra.var.expand_as(inter.var), var_gate))


def normalize(x: Tensor, moments: Moments, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Compute ``weight (x - mean) / sqrt(var + eps) + bias`` (Eq. 1 of the paper)."""
    return (x - moments.mean) * torch.rsqrt(moments.var + eps) * weight + bias


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, options: DTNOptions) -> Tensor:
    """Normalise tokens ``(..., C)`` outside the grid by their own mean and variance.

    With ``head_rms``, each group of channels is divided by its root mean square first.
    """
    if options.head_rms:
        x = group_rms_normalize(x, num_groups, options.eps)
    return normalize(x, intra_token_moments(x, options.unbiased), weight, bias, options.eps)


def dynamic_token_norm(x: Tensor, parameters: DTNParameters, options: DTNOptions, mask: Tensor | None = None) -> Tensor:
    """Apply the whole layer to a grid of tokens.

    Args:
        x: ``(B, H, W, C)``, in the dtype of the parameters (float32 or float64). The result has the same shape and
            dtype.
        mask: ``(B, H, W)`` booleans, True for valid tokens. Invalid tokens are normalised by LayerNorm's statistics.
    """
    channels = x.shape[-1]
    coefficients, mean_gate, var_gate, weight, bias = parameters
    if options.head_rms:
        x = group_rms_normalize(x, coefficients.shape[0], options.eps)
    intra = intra_token_moments(x, options.unbiased)
    inter = inter_token_moments(x, coefficients, mask)
    blended = blend(
        intra, inter, None if mean_gate is None else expand_gate(mean_gate, channels), expand_gate(var_gate, channels)
    )
    if mask is not None:
        valid = mask.unsqueeze(-1)
        blended = Moments(*(torch.where(valid, mixed, own) for mixed, own in zip(blended, intra, strict=True)))
    return normalize(x, blended, weight, bias, options.eps)
