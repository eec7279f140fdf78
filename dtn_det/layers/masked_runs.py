"""DTN on padded sequences: a mask that keeps a run of tokens is the layer on that run alone.

With a mask the plain form needs an ``L x L`` matrix for every sequence. The tokens that count being neighbours of each
other, the same numbers come from the kernels, which take no mask and time and memory in proportion to ``L``. The tokens
around a run get LayerNorm's statistics, from the same kernels with gates of 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from dtn_det.layers import plain
from dtn_det.layers.kernels import operator

Runs = tuple[tuple[int, int], ...]
_Options = tuple[float, bool, bool]  # eps, head_rms, unbiased
# A logit with a sigmoid of 1 in any precision.
_SHUT = 1e4


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
    x: Tensor,
    runs: Runs,
    coefficients: Tensor,
    mean_gate: Tensor | None,
    var_gate: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    head_rms: bool,
    unbiased: bool,
    out_dtype: torch.dtype,
) -> Tensor:
    """The layer on the runs, and LayerNorm's statistics around them.

    Args:
        x: ``(B, 1, L, C)``, for which :func:`dtn_det.layers.kernels.operator.is_usable` says that there are kernels.
        runs: Of :func:`valid_runs`.
        coefficients: As are the others, see :func:`dtn_det.layers.kernels.operator.dynamic_token_norm`.
        mean_gate: ``(G,)`` or None.
        var_gate: ``(G,)``.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Added to variances and mean squares.
        head_rms: Divide each group by its root mean square first.
        unbiased: Unbiased intra-token variance.
        out_dtype: The dtype of the result.

    Returns:
        ``(B, 1, L, C)``.
    """
    tensors = (coefficients, mean_gate, var_gate, weight, bias)
    if all(run == (0, x.shape[2]) for run in runs):
        return operator.dynamic_token_norm(
            x, *tensors, eps=eps, head_rms=head_rms, unbiased=unbiased, out_dtype=out_dtype, hw_shape=(1, x.shape[2])
        )
    result: Tensor = _NormalizeRuns.apply(x, *tensors, runs, (eps, head_rms, unbiased), out_dtype)  # type: ignore[no-untyped-call]
    return result


class _NormalizeRuns(torch.autograd.Function):
    """All pieces of a batch in one node of the graph, which keeps the inputs alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        coefficients: Tensor,
        mean_gate: Tensor | None,
        var_gate: Tensor,
        weight: Tensor,
        bias: Tensor,
        runs: Runs,
        options: _Options,
        out_dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(x, coefficients, mean_gate, var_gate, weight, bias)
        ctx.runs, ctx.options = runs, options
        gates = (coefficients, mean_gate, var_gate)
        own = layer_norm_gates(*gates)
        y = torch.empty_like(x, dtype=out_dtype, memory_format=torch.contiguous_format)
        for where, inside in _pieces(runs, x.shape[2]):
            y[where] = torch.ops.dtn_det.dynamic_token_norm(
                x[where],
                *(gates if inside else own),
                weight,
                bias,
                *options,
                out_dtype,
                1,
                where[2].stop - where[2].start,
            )
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_y,) = grad_outputs
        x, *tensors = ctx.saved_tensors
        if operator.needs_plain_form(grad_y):
            return (*_differentiable_gradients(grad_y, ctx.saved_tensors, ctx.runs, ctx.options), None, None, None)
        own = (*layer_norm_gates(*tensors[:3]), *tensors[3:])
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        sums = [None if tensor is None else torch.zeros_like(tensor) for tensor in tensors]
        for where, inside in _pieces(ctx.runs, x.shape[2]):
            grad_x[where], *rest = torch.ops.dtn_det.dynamic_token_norm_backward(
                grad_y[where], x[where], *(tensors if inside else own), *ctx.options, 1, where[2].stop - where[2].start
            )
            # Weight and bias are those of all pieces, what comes before them is that of the runs.
            for total, gradient in list(zip(sums, rest, strict=True))[0 if inside else 3 :]:
                if total is not None:
                    total += gradient
        return (grad_x, *sums, None, None, None)


def _pieces(runs: Runs, length: int) -> Iterator[tuple[tuple[slice, slice, slice], bool]]:
    """Where all pieces are that are not empty, and whether they are runs."""
    for index, (start, stop) in enumerate(runs):
        for first, end, inside in ((0, start, False), (start, stop, True), (stop, length, False)):
            if first < end:
                yield (slice(index, index + 1), slice(None), slice(first, end)), inside


def _differentiable_gradients(
    grad_y: Tensor, tensors: tuple[Tensor | None, ...], runs: Runs, options: _Options
) -> list[Tensor | None]:
    """The plain form's gradients, whose own gradients autograd knows."""
    x, *parameters = cast("list[Tensor]", tensors)  # whose mean gate may be None
    eps, head_rms, unbiased = options
    mask = torch.zeros(x.shape[:3], dtype=torch.bool, device=x.device)
    for where, inside in _pieces(runs, x.shape[2]):
        mask[where] = inside
    with torch.enable_grad():
        tokens = x.to(parameters[0].dtype)
        y = plain.dynamic_token_norm(tokens, *parameters, eps=eps, head_rms=head_rms, unbiased=unbiased, mask=mask)
    return operator.gradients_of(y, tensors, grad_y)
