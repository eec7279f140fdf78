"""Swin's attention weights, which its module does not hand out, recomputed from its input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dtn_det.inspection.pieces import AttentionPiece, Tokens, attention_weights, learned_scale, slices
from dtn_det.layers.lsa import diagonal_mask


def window_pieces(
    attention: Any, windows: Tensor, mask: Tensor | None, grid: tuple[int, int]
) -> Iterator[AttentionPiece]:
    """The weights of all windows of one image.

    Args:
        attention: MMDetection's ``ShiftWindowMSA``.
        windows: ``(P, M * M, C)``, what its ``w_msa`` is called with: the windows of the padded and, where there is a
            mask, shifted map.
        mask: ``(P, M * M, M * M)``, 0 within and negative between the parts that the shift brought together, or None.
        grid: ``(H, W)`` before padding.

    Yields:
        Windows and their tokens, with the shift undone.
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
    """Softmax of the scaled products, the relative position bias and the mask (Liu et al., arXiv:2103.14030, Eq. 4).

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
    """The tokens of each window of a padded and shifted map, where they lie in the map itself.

    Args:
        grid: ``(H, W)`` before padding on the right and at the bottom.
        size: Side ``M`` of a window.
        shift: Tokens by which the map is rolled up and to the left.
        device: Where the tensors are made.

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
