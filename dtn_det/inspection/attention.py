"""Statistics of attention weights: how far each head looks, which tokens it looks at, what the class token sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtn_det.errors import InputError
from dtn_det.inspection.attention_weights import AttentionPiece


@dataclass(frozen=True)
class AttentionLook:
    """The attention of one block on one image.

    Padding and prefix tokens have no position on the map. For all attributes but ``on_map``, the weights that a query
    gives to tokens on the map are therefore scaled to a sum of 1.

    Attributes:
        distance: ``(heads,)``, mean attention distance in tokens: the distance between a query and the keys, weighted
            by the attention, averaged over the queries (Dosovitskiy et al., arXiv:2010.11929, appendix D.7; Raghu et
            al., arXiv:2108.08810).
        uniform_distance: The mean attention distance of a head that attends equally to all tokens that it may attend
            to, in tokens.
        on_map: ``(heads,)``, mean share of the attention that goes to tokens on the map, in [0, 1].
        received: ``(heads, h, w)`` on the map of the keys: the attention that a token receives, divided by the
            attention under uniform weights, for which each query attends equally to all tokens that it may attend to.
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
        pieces: All rows of its attention matrix.
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
    # Keys that are on no map go to the last column, which is cut off.
    out.index_add_(1, torch.where(place >= 0, place, size).flatten(), sums.transpose(0, 1).flatten(1))
    return out[:, :size].cpu().double()
