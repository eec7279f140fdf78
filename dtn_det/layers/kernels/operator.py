"""One PyTorch operator for DTN's kernels: compiled C++ on a CPU, Triton on a CUDA device.

The kernels are ``torch.library`` operators with registered shapes and gradients, so they work under autograd,
``torch.compile`` and DistributedDataParallel like other operators. Only the inputs are kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dtn_det.layers import plain
from dtn_det.layers.kernels import cpu, empty_gradients, gpu
from dtn_det.layers.plain import DTNOptions, DTNParameters

# The fields of DTNParameters and DTNOptions in the language of PyTorch's operator schemas.
_LAYER = (
    "Tensor x, Tensor coefficients, Tensor? mean_gate, Tensor var_gate, Tensor weight, Tensor bias, "
    "float eps, bool head_rms, bool unbiased"
)
_GRID = "SymInt height, SymInt width"
# Number of tensor inputs, and number of all inputs. Three inputs follow the options: the output dtype, height and
# width.
_TENSORS = 1 + len(DTNParameters._fields)
_INPUTS = _TENSORS + len(DTNOptions._fields) + 3


def is_usable(x: Tensor, num_groups: int, head_rms: bool, only_var: bool) -> bool:
    """Return whether :func:`dynamic_token_norm` supports this input on its device.

    The input is ``(B, H, W, C)`` or, only on a CPU, ``(B, N, C)`` with tokens before the grid.
    """
    # An exported or traced graph must also run where the kernels are missing.
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    if _is_transformed():
        return False
    return cpu.is_usable(x) or (x.dim() == 4 and gpu.is_usable(x, num_groups, head_rms, only_var))


def _is_transformed() -> bool:
    """Return whether ``torch.func`` or forward-mode differentiation is active. The kernels have no rules for these."""
    if torch.compiler.is_compiling():
        return False
    # For an operator without a rule, PyTorch silently takes the forward-mode derivative to be 0.
    return forward_ad._current_level >= 0 or bool(torch._C._are_functorch_transforms_active())


def dynamic_token_norm(
    x: Tensor, parameters: DTNParameters, options: DTNOptions, out_dtype: torch.dtype, hw_shape: tuple[int, int]
) -> Tensor:
    """Compute :func:`dtn_det.layers.plain.dynamic_token_norm` without a mask, with the kernels of the device.

    Args:
        x: ``(B, H, W, C)`` of any floating-point dtype; on a CUDA device it is not copied to another dtype. On a CPU
            also ``(B, N, C)``: the grid is the last ``H * W`` tokens, and the tokens before it are normalised by
            LayerNorm's statistics.
        parameters: The tensors of the layer, float32, or float64 if ``x`` is float64.
        hw_shape: ``(H, W)``.

    Returns:
        A tensor of the shape of ``x``.

    Raises:
        ValueError: Tensors do not match, see :func:`dtn_det.layers.kernels.check_tensors`.
    """
    run = _PlainTensors.apply if _is_plain(x, *parameters) else _forward
    return run(x, *parameters, *options, out_dtype, *hw_shape)  # type: ignore[no-untyped-call]


def _is_plain(*tensors: Tensor | None) -> bool:
    """Return whether the CPU kernels can skip PyTorch's dispatcher: no subclass, mode or compiler needs it."""
    x = tensors[0]
    if torch.compiler.is_compiling() or x is None or x.device.type != "cpu" or x.is_neg():
        return False
    if torch._C._len_torch_dispatch_stack():
        return False
    return all(tensor is None or type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)


def _layer(inputs: tuple[Any, ...]) -> tuple[Tensor, DTNParameters, DTNOptions]:
    """Return tokens, parameters and options from the inputs of the forward operator."""
    return inputs[0], DTNParameters(*inputs[1:_TENSORS]), DTNOptions(*inputs[_TENSORS : _TENSORS + 3])


def _cpu_forward(*inputs: Any) -> Tensor:
    return cpu.forward(*_layer(inputs), inputs[-3], inputs[-2:])


def _cpu_backward(grad_y: Tensor, *inputs: Any) -> list[Tensor]:
    return cpu.backward(grad_y, *_layer(inputs), inputs[-2:])


_forward = torch.library.custom_op(
    "dtn_det::dynamic_token_norm",
    _cpu_forward,
    mutates_args=(),
    device_types="cpu",
    schema=f"({_LAYER}, ScalarType out_dtype, {_GRID}) -> Tensor",
)
_backward = torch.library.custom_op(
    "dtn_det::dynamic_token_norm_backward",
    _cpu_backward,
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor grad_y, {_LAYER}, {_GRID}) -> Tensor[]",
)


@_forward.register_kernel("cuda")
def _forward_cuda(*inputs: Any) -> Tensor:
    return gpu.forward(*_layer(inputs), inputs[-3])


@_backward.register_kernel("cuda")
def _backward_cuda(grad_y: Tensor, *inputs: Any) -> list[Tensor]:
    return gpu.backward(grad_y, *_layer(inputs))


@_forward.register_fake
def _forward_fake(x: Tensor, *inputs: Any) -> Tensor:
    return torch.empty_like(x, dtype=inputs[-3], memory_format=torch.contiguous_format)


@_backward.register_fake
def _backward_fake(grad_y: Tensor, *inputs: Any) -> list[Tensor]:
    return empty_gradients(*_layer(inputs)[:2])


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:_TENSORS])
    ctx.settings = (*inputs[_TENSORS:-3], *inputs[-2:])  # type: ignore[attr-defined]


def _autograd(ctx: torch.autograd.function.FunctionCtx, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    tensors: tuple[Tensor | None, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
    settings = ctx.settings  # type: ignore[attr-defined]
    if needs_plain_form(grad_y):
        gradients = _differentiable_gradients(grad_y, tensors, settings)
    else:
        run = _cpu_backward if _is_plain(grad_y, *tensors) else _backward
        found = run(grad_y, *tensors, *settings)
        gradients = [None if tensor is None else gradient for tensor, gradient in zip(tensors, found, strict=True)]
    return (*gradients, *(None,) * (_INPUTS - _TENSORS))


def needs_plain_form(grad_y: Tensor) -> bool:
    """Return whether only the plain form can run a backward pass.

    This is true for a backward pass that is itself differentiated, or that runs for many ``grad_y`` at once
    (``is_grads_batched=True``).
    """
    if torch.compiler.is_compiling():
        return False
    return torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(grad_y)


def _differentiable_gradients(
    grad_y: Tensor, tensors: tuple[Tensor | None, ...], settings: tuple[Any, ...]
) -> list[Tensor | None]:
    """Compute the gradients with the plain form, so that autograd can differentiate them again."""
    x, parameters, options = _layer((*tensors, *settings))
    height, width = settings[-2:]
    batch, channels = x.shape[0], x.shape[-1]
    with torch.enable_grad():
        sequence = x.reshape(batch, -1, channels).to(parameters.coefficients.dtype)
        prefix, tokens = sequence.split_with_sizes([sequence.shape[1] - height * width, height * width], dim=1)
        grid = plain.dynamic_token_norm(tokens.reshape(batch, height, width, channels), parameters, options)
        y = grid.reshape(tokens.shape)
        if prefix.shape[1]:
            groups = parameters.coefficients.shape[0]
            own = plain.layer_norm(prefix, parameters.weight, parameters.bias, groups, options)
            y = torch.cat([own, y], dim=1)
        y = y.reshape(x.shape)
    return gradients_of(y, tensors, grad_y)


def gradients_of(y: Tensor, tensors: tuple[Tensor | None, ...], grad_y: Tensor) -> list[Tensor | None]:
    """Compute the gradients with respect to the tensors that require a gradient; return None for other tensors.

    If gradients are enabled, the results can be differentiated again.
    """
    wanted = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
    create = torch.is_grad_enabled()
    gradients = iter(torch.autograd.grad(y, wanted, grad_y.to(y.dtype), create_graph=create, allow_unused=True))
    return [next(gradients) if tensor is not None and tensor.requires_grad else None for tensor in tensors]


_forward.register_autograd(_autograd, setup_context=_setup_context)


class _PlainTensors(torch.autograd.Function):
    """The operator without PyTorch's dispatcher: dispatching to a Python kernel takes as long as a small layer."""

    forward = staticmethod(_cpu_forward)
    setup_context = staticmethod(_setup_context)
    backward = staticmethod(_autograd)
