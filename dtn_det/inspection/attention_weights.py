"""Attention weights, recomputed from the inputs of attention modules, with the places of the tokens that they connect.

Swin, PVT and ViT do not return their attention weights. This module yields them in pieces, so that maps of any size fit
into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtn_det.layers.lsa import diagonal_mask

PIECE_SIZE = 2**24
"""Largest number of weights in a piece, 64 MB in float32."""


@dataclass(frozen=True)
class Tokens:
    """Where tokens lie: ``N`` tokens in each of ``P`` windows, or in one if attention is global.

    Attributes:
        position: ``(P, N, 2)``, row and column of each token's centre, in units of the grid of the queries.
        place: ``(P, N)``, index of each token in its map in row-major order; -1 for padding and prefix tokens, which
            are on no map.
    """

    position: Tensor
    place: Tensor


@dataclass(frozen=True)
class AttentionPiece:
    """Some rows of an attention matrix.

    Attributes:
        weights: ``(P, heads, Q, K)``, which sum to 1 over the keys; ``P`` windows, or 1 where attention is global.
        queries: The places of the ``Q`` tokens that attend.
        keys: The places of the ``K`` tokens that are attended to.
        allowed: Booleans that broadcast to ``(P, Q, K)``: False where a mask keeps a query from attending to a key.
        class_first: Whether the first query is the class token.
    """

    weights: Tensor
    queries: Tokens
    keys: Tokens
    allowed: Tensor
    class_first: bool = False


def grid_tokens(grid: tuple[int, int], device: torch.device, step: int = 1) -> Tokens:
    """Return the places of all tokens of a grid, in row-major order.

    Args:
        grid: ``(H, W)``.
        device: Device of the tensors.
        step: Side of a token in units of the grid of the queries; for keys the ratio of their spatial reduction.
    """
    height, width = grid
    place = torch.arange(height * width, device=device).unsqueeze(0)
    centre = torch.stack([place // width, place % width], dim=-1) * step + (step - 1) / 2
    return Tokens(centre, place)


def learned_scale(attention: Any) -> Tensor | None:
    """Return the scale of each head of Locality Self-Attention, ``(heads, 1, 1)``; None for any other attention."""
    scale = getattr(attention, "scale", None)
    return scale[:, None, None] if isinstance(scale, nn.Parameter) else None


def attention_weights(q: Tensor, k: Tensor, scale: float | Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``softmax(scale q k^T + bias)`` over the keys.

    Args:
        q: ``(..., Q, D)``.
        k: ``(..., K, D)``.
        scale: Factor on the queries; a tensor broadcasts to them.
        bias: Broadcastable to ``(..., Q, K)``.

    Returns:
        ``(..., Q, K)``.
    """
    logits = (q * scale) @ k.transpose(-2, -1)
    return (logits if bias is None else logits + bias).softmax(dim=-1)


def slices(count: int, row_size: int) -> Iterator[slice]:
    """Yield slices of the rows of a matrix, each of at most :data:`PIECE_SIZE` elements but at least one row.

    Args:
        count: Number of rows.
        row_size: Number of elements of a row.
    """
    step = max(1, PIECE_SIZE // max(1, row_size))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def window_pieces(
    attention: Any, windows: Tensor, mask: Tensor | None, grid: tuple[int, int]
) -> Iterator[AttentionPiece]:
    """Compute the attention weights of all windows of one image.

    Args:
        attention: MMDetection's ``ShiftWindowMSA``.
        windows: ``(P, M * M, C)``, the input of its ``w_msa``: the windows of the padded map, which is also shifted
            if there is a mask.
        mask: ``(P, M * M, M * M)`` or None: 0 where both tokens are from the same part of the map, negative where
            only the shift has brought them into one window.
        grid: ``(H, W)`` before padding.

    Yields:
        Some of the windows at a time. Tokens have the places that they had before the shift.
    """
    size = attention.window_size
    tokens = window_tokens(grid, size, 0 if mask is None else attention.shift_size, windows.device)
    heads = attention.w_msa.num_heads
    for part in slices(len(windows), heads * size**4):
        part_mask = None if mask is None else mask[part]
        weights = window_weights(attention.w_msa, windows[part], part_mask)
        inside = Tokens(tokens.position[part], tokens.place[part])
        allowed = torch.ones_like(weights[:, 0], dtype=torch.bool) if part_mask is None else part_mask == 0
        if learned_scale(attention.w_msa) is not None:
            allowed = allowed & ~torch.eye(size * size, dtype=torch.bool, device=allowed.device)
        yield AttentionPiece(weights, inside, inside, allowed)


def window_weights(w_msa: Any, windows: Tensor, mask: Tensor | None) -> Tensor:
    """Compute Swin's attention within windows: the softmax of scaled products plus relative position bias and mask.

    The source is Liu et al., arXiv:2103.14030, Eq. 4.

    Args:
        w_msa: MMDetection's ``WindowMSA``.
        windows: ``(P, N, C)``, ``N`` tokens of a window.
        mask: ``(P, N, N)`` or None.

    Returns:
        ``(P, heads, N, N)``.
    """
    count, length, channels = windows.shape
    heads = w_msa.num_heads
    qkv = w_msa.qkv(windows).reshape(count, length, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    table = w_msa.relative_position_bias_table[w_msa.relative_position_index.flatten()]
    bias = table.view(length, length, heads).permute(2, 0, 1)  # (heads, N, N)
    if mask is not None:
        bias = bias + mask.unsqueeze(1)
    learned = learned_scale(w_msa)
    if learned is None:
        return attention_weights(qkv[0], qkv[1], w_msa.scale, bias)
    return attention_weights(qkv[0], qkv[1], learned, bias + diagonal_mask(length, bias.dtype, bias.device))


def window_tokens(grid: tuple[int, int], size: int, shift: int, device: torch.device) -> Tokens:
    """Return the tokens of each window of a padded and shifted map, with their places in the map itself.

    Args:
        grid: ``(H, W)`` before padding on the right and at the bottom.
        size: Side ``M`` of a window.
        shift: Tokens by which the map is rolled up and to the left.
        device: Device of the tensors.

    Returns:
        ``P`` windows of ``M * M`` tokens; padding has the place -1.
    """
    height, width = grid
    rows = torch.arange(height + -height % size, device=device).roll(-shift)
    columns = torch.arange(width + -width % size, device=device).roll(-shift)
    position = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    # (H / M, M, W / M, M, 2)
    position = position.reshape(len(rows) // size, size, len(columns) // size, size, 2)
    position = position.transpose(1, 2).reshape(-1, size * size, 2)
    row, column = position.unbind(-1)
    place = torch.where((row < height) & (column < width), row * width + column, -1)
    return Tokens(position, place)


def reduced_pieces(attention: Any, x: Tensor, grid: tuple[int, int]) -> Iterator[AttentionPiece]:
    """Compute the attention weights of PVT: every token attends to a grid that a strided convolution has reduced.

    Args:
        attention: MMDetection's ``SpatialReductionAttention`` (Wang et al., arXiv:2102.12122).
        x: ``(1, H * W, C)``.
        grid: ``(H, W)``.

    Yields:
        Some rows of the matrix at a time; a key lies at the centre of the tokens that it was made of.
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
    """Compute the attention weights of ViT: every token attends to every token.

    Args:
        attention: timm's ``Attention`` or mmpretrain's ``MultiheadAttention``.
        x: ``(1, num_prefix + H * W, C)``.
        grid: ``(H, W)``.
        num_prefix: Number of class, distillation and register tokens, which come first and have no position.
        class_first: Whether the first token is the class token.

    Yields:
        Some rows of the matrix at a time.
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
    """Split the channels of ``(1, N, C)`` into heads: returns ``(1, heads, N, D)``."""
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
    """Yield some rows of the matrix at a time; if attention is `local`, no token attends to itself."""
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
