"""Attention weights with the places of the tokens that they connect, in pieces small enough for any map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PIECE_SIZE = 2**24
"""Most weights that a piece has, 64 MB in float32."""


@dataclass(frozen=True)
class Tokens:
    """Where tokens lie.

    Attributes:
        position: ``(P, N, 2)``, row and column of the token's centre, in units of the grid of the queries.
        place: ``(P, N)``, index of the token in its map in row-major order; -1 for one that is on no map: padding, a
            class token.
    """

    position: Tensor
    place: Tensor


@dataclass(frozen=True)
class AttentionPiece:
    """Some rows of an attention matrix.

    Attributes:
        weights: ``(P, heads, Q, K)``, sums of 1 over the keys: ``P`` windows, or 1 where attention is global.
        queries: Of the ``Q`` tokens that attend.
        keys: Of the ``K`` tokens that are attended to.
        allowed: ``(P, Q, K)``, or what broadcasts to it: False where a mask keeps a query from a key.
        class_first: Whether the first query is the class token.
    """

    weights: Tensor
    queries: Tokens
    keys: Tokens
    allowed: Tensor
    class_first: bool = False


def grid_tokens(grid: tuple[int, int], device: torch.device, step: int = 1) -> Tokens:
    """All tokens of a grid, in row-major order.

    Args:
        grid: ``(H, W)``.
        device: Where the tensors are made.
        step: Side of a token in units of the grid of the queries: the ratio of a spatial reduction.
    """
    height, width = grid
    place = torch.arange(height * width, device=device).unsqueeze(0)
    centre = torch.stack([place // width, place % width], dim=-1) * step + (step - 1) / 2
    return Tokens(centre, place)


def learned_scale(attention: Any) -> Tensor | None:
    """The scale per head of Locality Self-Attention, ``(heads, 1, 1)``; None for any other attention."""
    scale = getattr(attention, "scale", None)
    return scale[:, None, None] if isinstance(scale, nn.Parameter) else None


def attention_weights(q: Tensor, k: Tensor, scale: float | Tensor, bias: Tensor | None = None) -> Tensor:
    """``softmax(scale q k^T + bias)`` over the keys.

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
    """The rows of a matrix in parts of at most :data:`PIECE_SIZE` elements, one row at least.

    Args:
        count: Rows.
        row_size: Elements of a row.
    """
    step = max(1, PIECE_SIZE // max(1, row_size))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
