"""DTN on padded sequences: a mask that keeps a run of tokens is the layer on that run alone.

With a mask the plain form needs an ``L x L`` matrix for every sequence. The tokens that count being neighbours of each
other, the same numbers come from the kernels, which take no mask and time and memory in proportion to ``L``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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


def normalize_runs(
    tokens: Tensor, runs: Runs, inside: Callable[[Tensor], Tensor], outside: Callable[[Tensor], Tensor]
) -> Tensor:
    """Normalise the runs, and the tokens around them, each in its own way.

    Args:
        tokens: ``(B, 1, L, C)``.
        runs: Of :func:`valid_runs`.
        inside: For a run, ``(1, 1, L', C)`` to the same shape.
        outside: For the tokens before and behind it, ``(1, 1, L', C)`` to the same shape.

    Returns:
        ``(B, 1, L, C)``.
    """
    length = tokens.shape[2]
    if all(run == (0, length) for run in runs):
        return inside(tokens)
    done = []
    for index, (start, stop) in enumerate(runs):
        sequence = tokens[index : index + 1]
        pieces = [
            outside(sequence[:, :, :start]) if start else None,
            inside(sequence[:, :, start:stop]),
            outside(sequence[:, :, stop:]) if stop < length else None,
        ]
        done.append(torch.cat([piece for piece in pieces if piece is not None], dim=2))
    return torch.cat(done)
