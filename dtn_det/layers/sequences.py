"""DTN on padded sequences: a mask that keeps a run of tokens is the layer on that run alone.

With a mask the plain form needs an ``L x L`` matrix for every sequence. The tokens that count being neighbours of each
other, the same numbers come from the kernels, which take no mask and time and memory in proportion to ``L``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# A logit with a sigmoid of 1 in any precision.
_SHUT = 1e4
Runs = tuple[tuple[int, int], ...]


def valid_runs(mask: Tensor) -> Runs | None:
    """First token and end of what counts in each sequence.

    Args:
        mask: ``(B, 1, L)`` booleans, with a True in each row.

    Returns:
        A pair for each sequence, or None where one has a gap, or the mask is that of a grid or of a graph that is being
        traced, which cannot follow its values.
    """
    if mask.shape[1] != 1 or torch.compiler.is_compiling():
        return None
    rows = mask[:, 0]
    length = rows.shape[1]
    counts = rows.sum(1)
    first = rows.int().argmax(1)
    end = length - rows.flip(1).int().argmax(1)
    bounds = torch.stack([first, end, counts], dim=1).tolist()
    if any(stop - start != count for start, stop, count in bounds):
        return None
    return tuple((start, stop) for start, stop, _ in bounds)


def layer_norm_gates(
    coefficients: Tensor, mean_gate: Tensor | None, var_gate: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Coefficients and gates with which the kernels give LayerNorm's statistics, as constants of the same shapes.

    The gates are 1 to the last bit, the kernels as narrow as they are at the start.
    """
    narrow = torch.zeros_like(coefficients)
    narrow[:, 2] = -1
    shut = torch.full_like(var_gate, _SHUT)
    return narrow, None if mean_gate is None else shut, shut


def normalize_runs(
    tokens: Tensor, runs: Runs, inside: Callable[[Tensor], Tensor], outside: Callable[[Tensor], Tensor]
) -> Tensor:
    """Normalise the runs, and the tokens around them, each in its own way.

    Args:
        tokens: ``(B, 1, L, C)``.
        runs: Of :func:`valid_runs`.
        inside: For a run, ``(1, 1, L', C)`` to the same shape; ``tokens`` themselves if all count.
        outside: For the tokens before and behind it, ``(1, 1, L', C)`` to the same shape.

    Returns:
        ``(B, 1, L, C)``.
    """
    batch, _, length, channels = tokens.shape
    if all(run == (0, length) for run in runs):
        return inside(tokens)
    sizes = [size for start, stop in runs for size in (start, stop - start, length - stop)]
    # One split and one concatenation, so that all pieces together are copied once on either way.
    pieces = tokens.reshape(1, 1, batch * length, channels).split_with_sizes(sizes, dim=2)
    done = [inside(piece) if i % 3 == 1 else outside(piece) for i, piece in enumerate(pieces) if sizes[i]]
    return torch.cat(done, dim=2).reshape(tokens.shape)
