"""The whole attention matrix of a map, put together from pieces."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from dtn_det.inspection.attention import AttentionPiece


def dense(pieces: Iterable[AttentionPiece], num_queries: int, num_keys: int) -> Tensor:
    """``(heads, num_queries, num_keys)``: weights of the tokens on the map, at their places."""
    out = None
    for piece in pieces:
        count, heads, rows, columns = piece.weights.shape
        if out is None:
            out = torch.zeros(heads, num_queries + 1, num_keys + 1, dtype=piece.weights.dtype)
        query = piece.queries.place.expand(count, rows)
        key = piece.keys.place.expand(count, columns)
        # Tokens on no map go to the last row and column.
        query, key = torch.where(query < 0, num_queries, query), torch.where(key < 0, num_keys, key)
        for index in range(count):
            out[:, query[index][:, None], key[index][None, :]] = piece.weights[index]
    assert out is not None
    return out[:, :num_queries, :num_keys]


def heads_of(x: Tensor, heads: int) -> Tensor:
    """``(1, N, C)`` to ``(heads, N, D)``."""
    return x[0].reshape(x.shape[1], heads, -1).transpose(0, 1)


def joined(x: Tensor) -> Tensor:
    """``(heads, N, D)`` to ``(1, N, C)``."""
    return x.transpose(0, 1).reshape(1, x.shape[1], -1)
