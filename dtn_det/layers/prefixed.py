"""DTN's CPU kernels on tokens behind class tokens: one operator, so that autograd copies nothing in between."""

from __future__ import annotations

import torch
from torch import Tensor

from dtn_det.layers import native, operators, separable
from dtn_det.layers.sequences import layer_norm_gates


def is_usable(x: Tensor, num_groups: int, head_rms: bool, only_var: bool) -> bool:
    """Whether :func:`prefixed_token_norm` covers tokens ``(B, N, C)`` on their device."""
    return x.device.type == "cpu" and operators.is_usable(x, num_groups, head_rms, only_var, None)


def prefixed_token_norm(
    x: Tensor,
    coefficients: Tensor,
    mean_gate: Tensor | None,
    var_gate: Tensor,
    weight: Tensor,
    bias: Tensor,
    hw_shape: tuple[int, int],
    *,
    eps: float,
    head_rms: bool,
    unbiased: bool,
    out_dtype: torch.dtype,
) -> Tensor:
    """DTN on a grid of tokens, LayerNorm's statistics for those in front of it.

    Args:
        x: ``(B, N, C)``, the last ``H * W`` tokens of which are the grid.
        coefficients: ``(G, 3)``.
        mean_gate: ``(G,)`` logits, or None.
        var_gate: ``(G,)`` logits.
        weight: ``(C,)``.
        bias: ``(C,)``.
        hw_shape: ``(H, W)``.
        eps: Added to variances and mean squares.
        head_rms: Divide each group by its root mean square first.
        unbiased: Unbiased intra-token variance.
        out_dtype: The dtype of the result.

    Returns:
        ``(B, N, C)``.
    """
    tensors = (coefficients, mean_gate, var_gate, weight, bias)
    result: Tensor = _forward(x, *tensors, eps, head_rms, unbiased, out_dtype, *hw_shape)
    return result


def _split(x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """``(B, N, C)`` to the prefix tokens, each a grid of its own, ``(B N', 1, 1, C)``, and ``(B, H, W, C)``."""
    batch, length, channels = x.shape
    prefix, tokens = x.split_with_sizes([length - height * width, height * width], dim=1)
    return prefix.reshape(-1, 1, 1, channels), tokens.reshape(batch, height, width, channels)


def _joined(prefix: Tensor, tokens: Tensor, batch: int) -> Tensor:
    """The inverse of :func:`_split`."""
    channels = tokens.shape[-1]
    return torch.cat([prefix.view(batch, -1, channels), tokens.view(batch, -1, channels)], dim=1)


@torch.library.custom_op("dtn_det::prefixed_token_norm", mutates_args=(), device_types="cpu")
def _forward(
    x: Tensor,
    coefficients: Tensor,
    mean_gate: Tensor | None,
    var_gate: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    head_rms: bool,
    unbiased: bool,
    out_dtype: torch.dtype,
    height: int,
    width: int,
) -> Tensor:
    prefix, tokens = _split(x, height, width)
    own = layer_norm_gates(coefficients, mean_gate, var_gate)
    done = [
        native.forward(part, *gates, weight, bias, eps, head_rms, unbiased, out_dtype)
        for part, gates in ((prefix, own), (tokens, (coefficients, mean_gate, var_gate)))
    ]
    return _joined(done[0], done[1], x.shape[0])


@torch.library.custom_op("dtn_det::prefixed_token_norm_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad_y: Tensor,
    x: Tensor,
    coefficients: Tensor,
    mean_gate: Tensor | None,
    var_gate: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    head_rms: bool,
    unbiased: bool,
    height: int,
    width: int,
) -> list[Tensor]:
    """The gradients by the six tensors; an empty one stands for that of None."""
    prefix, tokens = _split(x, height, width)
    grad_prefix, grad_tokens = _split(grad_y, height, width)
    own = layer_norm_gates(coefficients, mean_gate, var_gate)
    of_prefix = native.backward(grad_prefix, prefix, *own, weight, bias, eps, head_rms, unbiased)
    of_tokens = native.backward(
        grad_tokens, tokens, coefficients, mean_gate, var_gate, weight, bias, eps, head_rms, unbiased
    )
    affine = [one + other for one, other in zip(of_prefix[4:], of_tokens[4:], strict=True)]
    return [_joined(of_prefix[0], of_tokens[0], x.shape[0]), *of_tokens[1:4], *affine]


@_forward.register_fake
def _forward_fake(x: Tensor, *arguments: object) -> Tensor:
    out_dtype = arguments[8]
    assert isinstance(out_dtype, torch.dtype)
    return torch.empty_like(x, dtype=out_dtype, memory_format=torch.contiguous_format)


@_backward.register_fake
def _backward_fake(grad_y: Tensor, *arguments: object) -> list[Tensor]:
    x, *parameters = arguments[:6]
    return native.empty_gradients(x, *parameters)  # type: ignore[arg-type]


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:6])  # type: ignore[arg-type]
    ctx.options = (*inputs[6:9], *inputs[10:12])  # type: ignore[attr-defined]


def _autograd(ctx: torch.autograd.function.FunctionCtx, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    tensors: tuple[Tensor | None, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
    options = ctx.options  # type: ignore[attr-defined]
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        gradients = _differentiable_gradients(grad_y, tensors, *options)
    else:
        found = list(_backward(grad_y, *tensors, *options))
        gradients = [None if tensor is None else gradient for tensor, gradient in zip(tensors, found, strict=True)]
    return (*gradients, *(None,) * 6)


def _differentiable_gradients(
    grad_y: Tensor,
    tensors: tuple[Tensor | None, ...],
    eps: float,
    head_rms: bool,
    unbiased: bool,
    height: int,
    width: int,
) -> list[Tensor | None]:
    """The gradients under ``create_graph=True``: the plain form, whose own gradients autograd knows."""
    x, coefficients, mean_gate, var_gate, weight, bias = tensors
    assert x is not None and coefficients is not None and var_gate is not None and weight is not None  # noqa: PT018
    assert bias is not None
    prefix, tokens = _split(x.to(coefficients.dtype), height, width)
    if head_rms:
        prefix = separable.group_rms_normalize(prefix, coefficients.shape[0], eps)
    moments = separable.intra_token_moments(prefix, unbiased)
    y = torch.cat(
        [
            separable.normalize(prefix, moments, weight, bias, eps).reshape(x.shape[0], -1, x.shape[2]),
            separable.dynamic_token_norm(
                tokens, coefficients, mean_gate, var_gate, weight, bias, eps=eps, head_rms=head_rms, unbiased=unbiased
            ).reshape(x.shape[0], -1, x.shape[2]),
        ],
        dim=1,
    )
    return operators.gradients_of(y, tensors, grad_y)


_forward.register_autograd(_autograd, setup_context=_setup_context)
