"""The weights of PVT's spatial-reduction attention and of ViT's attention, recomputed from the input of the module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dtn_det.inspection.pieces import AttentionPiece, Tokens, attention_weights, grid_tokens, learned_scale, slices


def reduced_pieces(attention: Any, x: Tensor, grid: tuple[int, int]) -> Iterator[AttentionPiece]:
    """The weights of PVT: every token attends to a grid that a strided convolution has made smaller.

    Args:
        attention: MMDetection's ``SpatialReductionAttention`` (Wang et al., arXiv:2102.12122).
        x: ``(1, H * W, C)``.
        grid: ``(H, W)``.

    Yields:
        Rows of the matrix; a key lies at the centre of the tokens that it was made of.
    """
    ratio = attention.sr_ratio
    source = x
    if ratio > 1:
        source = attention.sr(x.transpose(1, 2).reshape(1, -1, *grid)).flatten(2).transpose(1, 2)
        source = attention.norm(source)
    projection = attention.attn  # torch's nn.MultiheadAttention
    channels, heads = projection.embed_dim, projection.num_heads
    weight, bias = projection.in_proj_weight, projection.in_proj_bias
    q = F.linear(x, weight[:channels], None if bias is None else bias[:channels])
    k = F.linear(source, weight[channels : 2 * channels], None if bias is None else bias[channels : 2 * channels])
    queries = grid_tokens(grid, x.device)
    keys = grid_tokens((grid[0] // ratio, grid[1] // ratio), x.device, step=ratio)
    learned = learned_scale(attention)
    scale = (channels // heads) ** -0.5 if learned is None else learned
    local = learned is not None and ratio == 1
    yield from _pieces(_split(q, heads), _split(k, heads), scale, queries, keys, local=local)


def vit_pieces(
    attention: Any, x: Tensor, grid: tuple[int, int], num_prefix: int, class_first: bool
) -> Iterator[AttentionPiece]:
    """The weights of ViT: every token attends to every token.

    Args:
        attention: timm's ``Attention`` or mmpretrain's ``MultiheadAttention``.
        x: ``(1, num_prefix + H * W, C)``.
        grid: ``(H, W)``.
        num_prefix: Class, distillation and register tokens, which come first and have no position.
        class_first: Whether the first of them is the class token.

    Yields:
        Rows of the matrix.
    """
    heads = attention.num_heads
    q, k, _ = attention.qkv(x).reshape(1, x.shape[1], 3, heads, -1).permute(2, 0, 3, 1, 4)
    learned = learned_scale(attention)
    scale = q.shape[-1] ** -0.5 if learned is None else learned
    # timm's models may normalise queries and keys.
    q, k = getattr(attention, "q_norm", _same)(q), getattr(attention, "k_norm", _same)(k)
    patches = grid_tokens(grid, x.device)
    position = F.pad(patches.position, (0, 0, num_prefix, 0))
    tokens = Tokens(position, F.pad(patches.place, (num_prefix, 0), value=-1))
    yield from _pieces(q, k, scale, tokens, tokens, class_first, local=learned is not None)


def _same(x: Tensor) -> Tensor:
    return x


def _split(x: Tensor, heads: int) -> Tensor:
    """``(1, N, C)`` to ``(1, heads, N, D)``."""
    return x.reshape(1, x.shape[1], heads, -1).transpose(1, 2)


def _pieces(
    q: Tensor,
    k: Tensor,
    scale: float | Tensor,
    queries: Tokens,
    keys: Tokens,
    class_first: bool = False,
    *,
    local: bool = False,
) -> Iterator[AttentionPiece]:
    """Rows of the matrix; where attention is `local`, no token attends to itself."""
    heads, length = k.shape[1], k.shape[2]
    allowed = torch.ones(1, 1, length, dtype=torch.bool, device=q.device)
    for part in slices(q.shape[2], heads * length):
        bias = None
        if local:
            rows = torch.arange(length, device=q.device)[part, None]
            allowed = (rows != torch.arange(length, device=q.device)).unsqueeze(0)
            bias = q.new_zeros(allowed.shape).masked_fill(~allowed, torch.finfo(q.dtype).min / 2)
        weights = attention_weights(q[:, :, part], k, scale, bias)
        some = Tokens(queries.position[:, part], queries.place[:, part])
        yield AttentionPiece(weights, some, keys, allowed, class_first and part.start == 0)
