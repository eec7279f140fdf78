"""One PyTorch operator for DTN's kernels: compiled C++ on a CPU, Triton on a CUDA device.

Being ``torch.library`` operators with shapes and gradients registered, the kernels work under autograd,
``torch.compile`` and DistributedDataParallel like any other. Only the operator's inputs are kept for the backward pass.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dtn_det.layers import plain
from dtn_det.layers.kernels import cpu, gpu


def is_usable(x: Tensor, num_groups: int, head_rms: bool, only_var: bool) -> bool:
    """Whether :func:`dynamic_token_norm` covers this input on its device.

    Args:
        x: ``(B, H, W, C)``, or ``(B, N, C)`` with tokens in front of the grid.
        num_groups: ``G``.
        head_rms: As for the layer.
        only_var: As for the layer.
    """
    if _is_transformed():
        return False
    if x.device.type == "cpu":
        return cpu.is_usable(x)
    # An exported graph must run where the kernels are not.
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    return x.dim() == 4 and gpu.is_usable(x, num_groups, head_rms, only_var)


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
    hw_shape: tuple[int, int],
) -> Tensor:
    """:func:`dtn_det.layers.plain.dynamic_token_norm` without a mask, by the kernels of the device.

    Args:
        x: ``(B, H, W, C)`` of any floating-point dtype; it is not converted in memory on a CUDA device. On a CPU also
            ``(B, N, C)``: the last ``H * W`` tokens are the grid, those in front of it get LayerNorm's statistics.
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
        hw_shape: ``(H, W)``.

    Returns:
        Of the shape of ``x``.
    """
    tensors = (coefficients, mean_gate, var_gate, weight, bias)
    _check_devices(x, tensors)
    run = _PlainTensors.apply if _is_plain(x, *tensors) else _forward
    result: Tensor = run(x, *tensors, eps, head_rms, unbiased, out_dtype, *hw_shape)  # type: ignore[no-untyped-call]
    return result


def _check_devices(x: Tensor, parameters: tuple[Tensor | None, ...]) -> None:
    """Kernels read whatever lies at an address, so they must not get one of another device."""
    for parameter in parameters:
        if parameter is not None and parameter.device != x.device:
            raise ValueError(
                f"expected tokens and parameters of DTN on one device, got {x.device} and {parameter.device}: move the "
                "model to the device of its input"
            )


def _is_plain(x: Tensor, *others: Tensor | None) -> bool:
    """Whether the CPU kernels may be called past PyTorch's dispatcher: nothing records, fakes or compiles the call."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.is_neg():
        return False
    if torch._C._len_torch_dispatch_stack():
        return False
    return all(tensor is None or type(tensor) in (Tensor, torch.nn.Parameter) for tensor in (x, *others))


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
    height: int,
    width: int,
) -> Tensor:
    tensors = (coefficients, mean_gate, var_gate, weight, bias)
    return cpu.forward(x, *tensors, eps, head_rms, unbiased, out_dtype, height, width)


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
    height: int,
    width: int,
) -> list[Tensor]:
    """The gradients by the six tensors; an empty one stands for that of None."""
    tensors = (coefficients, mean_gate, var_gate, weight, bias)
    return cpu.backward(grad_y, x, *tensors, eps, head_rms, unbiased, height, width)


@_forward.register_kernel("cuda")
def _forward_cuda(*arguments: Any) -> Tensor:
    return gpu.forward(*arguments[:-2])


@_backward.register_kernel("cuda")
def _backward_cuda(*arguments: Any) -> list[Tensor]:
    return gpu.backward(*arguments[:-2])


@_forward.register_fake
def _forward_fake(x: Tensor, *arguments: Any) -> Tensor:
    return torch.empty_like(x, dtype=arguments[8], memory_format=torch.contiguous_format)


@_backward.register_fake
def _backward_fake(grad_y: Tensor, *arguments: Any) -> list[Tensor]:
    return cpu.empty_gradients(*arguments[:6])


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.options = (*inputs[6:9], *inputs[10:])  # type: ignore[attr-defined]


def _autograd(ctx: torch.autograd.function.FunctionCtx, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    tensors: tuple[Tensor | None, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
    options = ctx.options  # type: ignore[attr-defined]
    if needs_plain_form(grad_y):
        gradients = _differentiable_gradients(grad_y, tensors, *options)
    else:
        run = cpu.backward if _is_plain(grad_y, *tensors) else _backward
        found = list(run(grad_y, *tensors, *options))  # type: ignore[arg-type]
        gradients = [None if tensor is None else gradient for tensor, gradient in zip(tensors, found, strict=True)]
    return (*gradients, *(None,) * 6)


def needs_plain_form(grad_y: Tensor) -> bool:
    """Whether a backward pass is differentiated itself, or runs for many `grad_y` at once (`is_grads_batched=True`)."""
    if torch.compiler.is_compiling():
        return False
    return torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(grad_y)


def _differentiable_gradients(
    grad_y: Tensor,
    tensors: tuple[Tensor | None, ...],
    eps: float,
    head_rms: bool,
    unbiased: bool,
    height: int,
    width: int,
) -> list[Tensor | None]:
    """The plain form's gradients, whose own gradients autograd knows."""
    x, *parameters = cast("list[Tensor]", tensors)  # whose mean gate may be None
    coefficients, _, _, weight, bias = parameters
    batch, channels = x.shape[0], x.shape[-1]
    options: dict[str, Any] = {"eps": eps, "head_rms": head_rms, "unbiased": unbiased}
    with torch.enable_grad():
        sequence = x.reshape(batch, -1, channels).to(coefficients.dtype)
        prefix, tokens = sequence.split_with_sizes([sequence.shape[1] - height * width, height * width], dim=1)
        grid = plain.dynamic_token_norm(tokens.reshape(batch, height, width, channels), *parameters, **options)
        y = grid.reshape(tokens.shape)
        if prefix.shape[1]:
            own = plain.layer_norm(prefix, weight, bias, coefficients.shape[0], **options)
            y = torch.cat([own, y], dim=1)
        y = y.reshape(x.shape)
    return gradients_of(y, tensors, grad_y)


def gradients_of(y: Tensor, tensors: tuple[Tensor | None, ...], grad_y: Tensor) -> list[Tensor | None]:
    """The gradients by the tensors that want one, differentiable in their turn if that is asked for; else None."""
    wanted = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
    create = torch.is_grad_enabled()
    gradients = iter(torch.autograd.grad(y, wanted, grad_y.to(y.dtype), create_graph=create, allow_unused=True))
    return [next(gradients) if tensor is not None and tensor.requires_grad else None for tensor in tensors]


_forward.register_autograd(_autograd, setup_context=_setup_context)


class _PlainTensors(torch.autograd.Function):
    """The operator without the dispatcher, whose way to a Python kernel takes as long as that of a small layer."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        return cpu.forward(*inputs)

    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_autograd)
