"""Attention weights and their statistics: how far and to which tokens each head attends, also from the class token.

Swin, PVT and ViT do not return their attention weights, so the weights are recomputed from the inputs of attention
modules, together with the places of queries and keys. The weights of a map are computed in pieces, so that maps of any
size fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dtn_det.errors import InputError
from dtn_det.layers.lsa import diagonal_mask

PIECE_SIZE = 2**24
"""Largest number of weights in a piece, 64 MB in float32."""


@dataclass(frozen=True)
class Tokens:
    """Where tokens lie: ``N`` tokens in each of ``P`` windows, or in one if attention is global.

    Attributes:
        position: ``(P, N, 2)``, row and column of each token's centre, in units of the grid of the queries.
        place: ``(P, N)``, index of each token in its map in row-major order; -1 for padding and prefix tokens, which
            have no place on the map.
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
        step: Side of a token, in tokens of the queries' grid. For keys, this is the ratio of the spatial reduction.
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
    """Yield slices of the rows of a matrix, each of at most :data:`PIECE_SIZE` elements but at least one row."""
    step = max(1, PIECE_SIZE // max(1, row_size))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def window_pieces(
    attention: Any, windows: Tensor, mask: Tensor | None, grid: tuple[int, int]
) -> Iterator[AttentionPiece]:
    """Compute the attention weights of all windows of one image.

    Args:
        attention: MMDetection's ``ShiftWindowMSA``.
        windows: ``(P, M * M, C)``, the input of its ``w_msa``: ``P`` windows of ``M`` by ``M`` tokens of the padded
            map, which is also shifted if there is a mask.
        mask: ``(P, M * M, M * M)`` or None: 0 where both tokens are from the same part of the map. Negative where only
            the shift has brought them into one window.
        grid: ``(H, W)`` before padding.

    Yields:
        Some of the windows at a time. The places of tokens are those before the shift.
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
        Some rows of the matrix at a time; the place of a key is the centre of the tokens that were reduced to it.
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
    q, k = getattr(attention, "q_norm", nn.Identity())(q), getattr(attention, "k_norm", nn.Identity())(k)
    patches = grid_tokens(grid, x.device)
    position = F.pad(patches.position, (0, 0, num_prefix, 0))
    tokens = Tokens(position, F.pad(patches.place, (num_prefix, 0), value=-1))
    yield from _pieces(q, k, scale, tokens, tokens, class_first, local=learned is not None)


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
    """Yield some rows of the attention matrix at a time; if attention is `local`, no token attends to itself."""
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


@dataclass(frozen=True)
class AttentionLook:
    """The attention of one block on one image.

    Padding and prefix tokens have no position on the map. For all attributes but ``on_map``, a query's weights for
    tokens on the map are therefore scaled to a sum of 1.

    Attributes:
        distance: ``(heads,)``, mean attention distance in tokens: the distance between a query and the keys, weighted
            by the attention, averaged over the queries (Dosovitskiy et al., arXiv:2010.11929, appendix D.7; Raghu et
            al., arXiv:2108.08810).
        uniform_distance: Mean attention distance in tokens under uniform weights: each query attends equally to all its
            allowed keys.
        on_map: ``(heads,)``, mean share of the attention that goes to tokens on the map, in [0, 1].
        received: ``(heads, h, w)`` on the map of the keys: the attention that a token receives, divided by the
            attention that it would receive under uniform weights.
        class_map: ``(heads, h, w)``, the class token's attention divided by its mean over the map; None without a class
            token.
    """

    distance: NDArray[np.float64]
    uniform_distance: float
    on_map: NDArray[np.float64]
    received: NDArray[np.float64]
    class_map: NDArray[np.float64] | None


def look_at_attention(pieces: Iterable[AttentionPiece], key_grid: tuple[int, int], inside: Tensor) -> AttentionLook:
    """Compute the statistics of the attention of a block.

    Args:
        pieces: All rows of the block's attention matrix.
        key_grid: ``(h, w)``, the size of the map of the keys.
        inside: ``(H, W)`` booleans on the map of the queries: True for tokens of the image, False for tokens of the
            padding around it, which are left out.

    Raises:
        InputError: No query is inside the image.
    """
    height, width = key_grid
    queries = inside.flatten()
    distance = uniform_distance = on_map = torch.zeros(())
    received = uniform_received = torch.zeros(())
    class_map = None
    count = 0
    for piece in pieces:
        on_grid = piece.keys.place >= 0  # (P, K)
        allowed = piece.allowed & on_grid.unsqueeze(1)  # (P, Q or 1, K)
        weights = piece.weights * allowed.unsqueeze(1)
        share = weights.sum(-1, keepdim=True)  # (P, heads, Q, 1)
        weights = weights / share.clamp_min(torch.finfo(weights.dtype).tiny)
        uniform = allowed / allowed.sum(-1, keepdim=True).clamp_min(1)
        place = piece.queries.place
        valid = (place >= 0) & queries.to(place.device)[place.clamp_min(0)]  # (P, Q)
        counted = valid.to(weights.dtype)
        count += int(valid.sum())

        between = torch.cdist(piece.queries.position.to(weights.dtype), piece.keys.position.to(weights.dtype))
        distance = distance + torch.einsum("phqk,pqk,pq->h", weights, between, counted).cpu().double()
        uniform = uniform.to(weights.dtype).expand_as(between)
        uniform_distance = uniform_distance + torch.einsum("pqk,pqk,pq->", uniform, between, counted).cpu().double()
        on_map = on_map + torch.einsum("phq,pq->h", share.squeeze(-1), counted).cpu().double()
        received = received + _at_places(torch.einsum("phqk,pq->phk", weights, counted), piece, height * width)
        uniform_received = uniform_received + _at_places(
            torch.einsum("pqk,pq->pk", uniform, counted).unsqueeze(1), piece, height * width
        )
        if piece.class_first:
            row = weights[0, :, 0, on_grid[0]] * height * width
            class_map = row.cpu().double().reshape(-1, height, width).numpy()
    if count == 0:
        raise InputError("expected tokens inside the image, got none: name a larger image")
    ratio = received / uniform_received.clamp_min(torch.finfo(torch.float64).tiny)
    return AttentionLook(
        distance=(distance / count).numpy(),
        uniform_distance=float(uniform_distance) / count,
        on_map=(on_map / count).numpy(),
        received=ratio.reshape(-1, height, width).numpy(),
        class_map=class_map,
    )


def _at_places(sums: Tensor, piece: AttentionPiece, size: int) -> Tensor:
    """Sum the values ``(P, heads, K)`` of ``P`` windows by the places of their keys: ``(heads, size)`` in float64."""
    place = piece.keys.place
    out = sums.new_zeros(sums.shape[1], size + 1)
    # Keys without a place on the map go to the last column, which is cut off.
    out.index_add_(1, torch.where(place >= 0, place, size).flatten(), sums.transpose(0, 1).flatten(1))
    return out[:, :size].cpu().double()
