"""One PyTorch operator for DTN's kernels: compiled C++ on a CPU, Triton on a CUDA device.

Being ``torch.library`` operators with shapes and gradients registered, the kernels work under autograd,
``torch.compile`` and DistributedDataParallel like any other. Only the operator's inputs are kept for the backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dtn_det.layers import gpu, native, separable, triton_launch


def is_usable(x: Tensor, num_groups: int, head_rms: bool, only_var: bool, mask: Tensor | None) -> bool:
    """Whether :func:`dynamic_token_norm` covers this input on its device.

    Args:
        x: ``(B, H, W, C)``.
        num_groups: ``G``.
        head_rms: As for the layer.
        only_var: As for the layer.
        mask: ``(B, H, W)`` or None.
    """
    if _is_transformed():
        return False
    if x.device.type == "cpu":
        return native.is_usable(x, mask)
    # An exported graph must run where the kernels are not.
    if mask is not None or torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    return gpu.is_usable(x, num_groups, head_rms, only_var)


def _is_transformed() -> bool:
    """Whether ``torch.func`` or forward-mode differentiation is at work, which know the plain form's operators only."""
    if torch.compiler.is_compiling():
        return False
    # Without a rule for it PyTorch takes an operator's forward-mode derivative for 0 and says nothing.
    return forward_ad._current_level >= 0 or bool(torch._C._are_functorch_transforms_active())


def dynamic_token_norm(
    x: Tensor,
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
    """:func:`dtn_det.layers.separable.dynamic_token_norm` without a mask, by the kernels of the device.

    Args:
        x: ``(B, H, W, C)`` of any floating-point dtype; it is not converted in memory on a CUDA device.
        coefficients: ``(G, 3)``, the positional coefficients. Float32 as are the other parameters, or float64 when
            ``x`` is.
        mean_gate: ``(G,)`` logits, or None when the mean is LayerNorm's alone.
        var_gate: ``(G,)`` logits.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Added to variances and mean squares.
        head_rms: Divide each group by its root mean square first.
        unbiased: Unbiased intra-token variance.
        out_dtype: The dtype of the result.

    Returns:
        ``(B, H, W, C)``.
    """
    result: Tensor = _forward(x, coefficients, mean_gate, var_gate, weight, bias, eps, head_rms, unbiased, out_dtype)
    return result


@torch.library.custom_op("dtn_det::dynamic_token_norm", mutates_args=(), device_types="cpu")
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
) -> Tensor:
    return native.forward(x, coefficients, mean_gate, var_gate, weight, bias, eps, head_rms, unbiased, out_dtype)


@torch.library.custom_op("dtn_det::dynamic_token_norm_backward", mutates_args=(), device_types="cpu")
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
) -> list[Tensor]:
    """The gradients by the six tensors; an empty one stands for that of None."""
    return native.backward(grad_y, x, coefficients, mean_gate, var_gate, weight, bias, eps, head_rms, unbiased)


_forward.register_kernel("cuda")(triton_launch.forward)
_backward.register_kernel("cuda")(triton_launch.backward)


@_forward.register_fake
def _forward_fake(
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
) -> Tensor:
    return torch.empty_like(x, dtype=out_dtype, memory_format=torch.contiguous_format)


@_backward.register_fake
def _backward_fake(
    grad_y: Tensor,
    x: Tensor,
    coefficients: Tensor,
    mean_gate: Tensor | None,
    var_gate: Tensor,
    weight: Tensor,
    bias: Tensor,
    *_: object,
) -> list[Tensor]:
    return native.empty_gradients(x, coefficients, mean_gate, var_gate, weight, bias)


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:6])  # type: ignore[arg-type]
    ctx.options = inputs[6:9]  # type: ignore[attr-defined]


def _autograd(ctx: torch.autograd.function.FunctionCtx, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    tensors: tuple[Tensor | None, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
    eps, head_rms, unbiased = ctx.options  # type: ignore[attr-defined]
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        gradients = _differentiable_gradients(grad_y, tensors, eps, head_rms, unbiased)
    else:
        gradients = list(_backward(grad_y, *tensors, eps, head_rms, unbiased))
        gradients = [None if tensor is None else gradient for tensor, gradient in zip(tensors, gradients, strict=True)]
    return (*gradients, None, None, None, None)


def _differentiable_gradients(
    grad_y: Tensor, tensors: tuple[Tensor | None, ...], eps: float, head_rms: bool, unbiased: bool
) -> list[Tensor | None]:
    """The gradients under ``create_graph=True``: the plain form, whose own gradients autograd knows."""
    x, coefficients, mean_gate, var_gate, weight, bias = tensors
    assert x is not None and coefficients is not None and var_gate is not None and weight is not None  # noqa: PT018
    assert bias is not None
    y = separable.dynamic_token_norm(
        x.to(coefficients.dtype),
        coefficients,
        mean_gate,
        var_gate,
        weight,
        bias,
        eps=eps,
        head_rms=head_rms,
        unbiased=unbiased,
    )
    return gradients_of(y, tensors, grad_y)


def gradients_of(y: Tensor, tensors: tuple[Tensor | None, ...], grad_y: Tensor) -> list[Tensor | None]:
    """Differentiable gradients by the tensors that want one, None for the others."""
    wanted = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
    gradients = iter(torch.autograd.grad(y, wanted, grad_y.to(y.dtype), create_graph=True, allow_unused=True))
    return [next(gradients) if tensor is not None and tensor.requires_grad else None for tensor in tensors]


_forward.register_autograd(_autograd, setup_context=_setup_context)
