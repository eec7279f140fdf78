"""DTN on padded sequences: a run of valid tokens is normalised as if it were a sequence by itself.

With a mask, the plain form needs an ``L x L`` matrix for each sequence. But if the valid tokens of a sequence form one
run, they are neighbours only of each other. So the kernels, which support no mask, compute the same numbers from the
run alone, with time and memory proportional to ``L``. The tokens around a run are normalised by LayerNorm's statistics,
with the same kernels and gates of 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from dtn_det.layers.kernels import operator
from dtn_det.layers.plain import DTNOptions, DTNParameters, dynamic_token_norm

Runs = tuple[tuple[int, int], ...]
"""For each sequence the index of its first valid token, and the index after its last one."""

# A logit whose sigmoid is exactly 1 in any precision.
_SHUT = 1e4


def valid_runs(mask: Tensor) -> Runs | None:
    """Find the run of valid tokens in each sequence.

    Args:
        mask: ``(B, 1, L)`` booleans, with at least one True in each row.

    Returns:
        The runs; None if a sequence has a gap between valid tokens or the grid has several rows. The result is also
        None while a graph is compiled, because a graph cannot depend on the values of a tensor.
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


def layer_norm_parameters(parameters: DTNParameters) -> DTNParameters:
    """Return parameters with which the kernels use LayerNorm's statistics alone.

    The gates are exactly 1, so the positional kernels have no effect. Wide kernels would only cost time, so the kernels
    are as narrow as at initialisation.
    """
    narrow = torch.zeros_like(parameters.coefficients)
    narrow[:, 2] = -1
    shut = torch.full_like(parameters.var_gate, _SHUT)
    return DTNParameters(
        narrow, None if parameters.mean_gate is None else shut, shut, parameters.weight, parameters.bias
    )


def normalize_runs(
    x: Tensor, runs: Runs, parameters: DTNParameters, options: DTNOptions, out_dtype: torch.dtype
) -> Tensor:
    """Apply the layer to each run of tokens, and normalise the tokens around it by LayerNorm's statistics.

    Args:
        x: ``(B, 1, L, C)``; :func:`dtn_det.layers.kernels.operator.is_usable` must be True for it. The result has the
            same shape.
        runs: One run for each sequence, from :func:`valid_runs`.
    """
    if all(run == (0, x.shape[2]) for run in runs):
        return operator.dynamic_token_norm(x, parameters, options, out_dtype, (1, x.shape[2]))
    return _NormalizeRuns.apply(x, *parameters, runs, options, out_dtype)  # type: ignore[no-untyped-call]


class _NormalizeRuns(torch.autograd.Function):
    """Normalises all pieces of a batch as one node in autograd's graph, which stores only the inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *arguments: Any) -> Tensor:
        parameters = DTNParameters(*arguments[:5])
        runs, options, out_dtype = arguments[5:]
        ctx.save_for_backward(x, *parameters)
        ctx.runs, ctx.options = runs, options
        around = layer_norm_parameters(parameters)
        y = torch.empty_like(x, dtype=out_dtype, memory_format=torch.contiguous_format)
        for where, inside in _pieces(runs, x.shape[2]):
            length = where[2].stop - where[2].start
            y[where] = torch.ops.dtn_det.dynamic_token_norm(
                x[where], *(parameters if inside else around), *options, out_dtype, 1, length
            )
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_y,) = grad_outputs
        x, *tensors = ctx.saved_tensors
        if operator.needs_plain_form(grad_y):
            return (*_differentiable_gradients(grad_y, ctx.saved_tensors, ctx.runs, ctx.options), None, None, None)
        parameters = DTNParameters(*tensors)
        around = layer_norm_parameters(parameters)
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        sums = [None if tensor is None else torch.zeros_like(tensor) for tensor in parameters]
        for where, inside in _pieces(ctx.runs, x.shape[2]):
            length = where[2].stop - where[2].start
            grad_x[where], *rest = torch.ops.dtn_det.dynamic_token_norm_backward(
                grad_y[where], x[where], *(parameters if inside else around), *ctx.options, 1, length
            )
            # All pieces contribute to the gradients of weight and bias, which are the last two. Only runs contribute to
            # the gradients of the other parameters.
            for total, gradient in list(zip(sums, rest, strict=True))[0 if inside else 3 :]:
                if total is not None:
                    total += gradient
        return (grad_x, *sums, None, None, None)


def _pieces(runs: Runs, length: int) -> Iterator[tuple[tuple[slice, slice, slice], bool]]:
    """Yield the slices of each non-empty piece (before a run, the run, after it), and True if it is the run."""
    for index, (start, stop) in enumerate(runs):
        for first, end, inside in ((0, start, False), (start, stop, True), (stop, length, False)):
            if first < end:
                yield (slice(index, index + 1), slice(None), slice(first, end)), inside


def _differentiable_gradients(
    grad_y: Tensor, tensors: tuple[Tensor | None, ...], runs: Runs, options: DTNOptions
) -> list[Tensor | None]:
    """Compute the gradients with the plain form, so that autograd can differentiate them again."""
    x, *others = cast("list[Tensor]", tensors)
    parameters = DTNParameters(*others)
    mask = torch.zeros(x.shape[:3], dtype=torch.bool, device=x.device)
    for where, inside in _pieces(runs, x.shape[2]):
        mask[where] = inside
    with torch.enable_grad():
        y = dynamic_token_norm(x.to(parameters.coefficients.dtype), parameters, options, mask)
    return operator.gradients_of(y, tensors, grad_y)
