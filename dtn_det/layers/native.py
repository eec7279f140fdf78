"""The compiled CPU kernels of DTN as PyTorch operators.

``setup.py`` builds ``csrc/dtn_cpu.cpp`` for several instruction sets into plain shared libraries without any dependency
on PyTorch's ABI; this file picks the best one for the processor and wraps it into ``torch.library`` operators, so that
autograd, ``torch.compile`` and DistributedDataParallel see ordinary operators. Without the library (no compiler at
installation), and for all that it does not cover, the layer runs :mod:`dtn_det.layers.separable`.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dtn_det.layers import separable

# Instruction sets in the order of `dtn_processor_level`: see setup.py.
VARIANTS = ("baseline", "avx2", "avx512")
LIBRARY_PREFIX = "_dtn_cpu_"
# Below this many elements starting a thread costs more than it saves.
ELEMENTS_PER_THREAD = 1 << 14


@dataclass(frozen=True)
class NativeStatus:
    """Whether the compiled kernels are in use.

    Attributes:
        available: They are.
        detail: The library and its instruction set, or what is wrong.
    """

    available: bool
    detail: str


class _Shape(ctypes.Structure):
    """``DtnShape`` of ``csrc/dtn_cpu.cpp``."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("groups", ctypes.c_int64),
        ("eps", ctypes.c_double),
        ("head_rms", ctypes.c_int32),
        ("unbiased", ctypes.c_int32),
        ("only_var", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    )


def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library for this processor, or None, and a line about it."""
    if os.environ.get("DTN_DET_NATIVE", "1") == "0":
        return None, "switched off by DTN_DET_NATIVE=0"
    found = {
        variant: path
        for variant in VARIANTS
        for path in sorted(Path(__file__).parent.glob(f"{LIBRARY_PREFIX}{variant}.*"))
        if path.suffix in (".so", ".dylib", ".pyd")
    }
    if "baseline" not in found:
        return None, "not built: no C++ compiler at installation"
    try:
        library = ctypes.CDLL(str(found["baseline"]))
        level = int(library.dtn_processor_level())
        best = next(variant for variant in reversed(VARIANTS[: level + 1]) if variant in found)
        if best != "baseline":
            library = ctypes.CDLL(str(found[best]))
    except (OSError, AttributeError) as error:
        detail = f"cannot be loaded ({error})"
        warnings.warn(f"DTN's compiled CPU kernels {detail}: install dtn-det again", RuntimeWarning, stacklevel=2)
        return None, detail
    return library, f"{found[best].name} ({best})"


# Loaded with the module, for torch.compile can read a variable but not follow a search for files.
_LIBRARY, _DETAIL = _load()


def status() -> NativeStatus:
    """Whether the compiled kernels are in use on this machine, and why not."""
    return NativeStatus(_LIBRARY is not None, _DETAIL)


def is_usable(grid: Tensor, mask: Tensor | None) -> bool:
    """Whether :func:`dynamic_token_norm` covers this input.

    Args:
        grid: ``(B, H, W, C)``.
        mask: ``(B, H, W)`` or None.
    """
    if mask is not None or grid.device.type != "cpu" or grid.numel() == 0:
        return False
    # An exported graph must run where this library is not.
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    return _LIBRARY is not None


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
    mask: Tensor | None = None,
) -> Tensor:
    """:func:`dtn_det.layers.separable.dynamic_token_norm` without a mask, by the compiled kernels.

    Raises:
        ValueError: A mask was given.
    """
    if mask is not None:
        raise ValueError("expected no mask for the compiled kernels, got one: use dtn_det.layers.separable")
    result: Tensor = _forward(x, coefficients, mean_gate, var_gate, weight, bias, eps, head_rms, unbiased)
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
) -> Tensor:
    inputs = [_dense(tensor) for tensor in (x, coefficients, mean_gate, var_gate, weight, bias)]
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    _call("forward", x, coefficients, mean_gate, eps, head_rms, unbiased, [*inputs, y])
    return y


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
    inputs = [_dense(tensor) for tensor in (x, coefficients, mean_gate, var_gate, weight, bias, grad_y)]
    outputs = _empty_gradients(x, coefficients, mean_gate, var_gate, weight, bias)
    _call("backward", x, coefficients, mean_gate, eps, head_rms, unbiased, [*inputs, *outputs])
    return outputs


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _empty_gradients(*inputs: Tensor | None) -> list[Tensor]:
    """One tensor for each input; an empty one stands for None."""
    like = next(tensor for tensor in inputs if tensor is not None)
    return [
        like.new_empty(0) if tensor is None else torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor in inputs
    ]


def _call(
    name: str,
    x: Tensor,
    coefficients: Tensor,
    mean_gate: Tensor | None,
    eps: float,
    head_rms: bool,
    unbiased: bool,
    tensors: list[Tensor | None],
) -> None:
    """Run ``dtn_{forward,backward}_{f32,f64}`` on the tensors in the order of its pointers."""
    if _LIBRARY is None:
        raise RuntimeError(f"expected DTN's compiled CPU kernels, but they are {_DETAIL}")
    function = getattr(_LIBRARY, f"dtn_{name}_{'f64' if x.dtype == torch.float64 else 'f32'}")
    threads = max(1, min(torch.get_num_threads(), x.numel() // ELEMENTS_PER_THREAD))
    shape = _Shape(*x.shape, coefficients.shape[0], eps, head_rms, unbiased, mean_gate is None, threads)
    pointers = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
    if function(ctypes.byref(shape), *pointers) != 0:
        raise MemoryError(f"expected memory for DTN on tokens of shape {tuple(x.shape)}, got none: use smaller images")


@_forward.register_fake
def _forward_fake(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


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
    return _empty_gradients(x, coefficients, mean_gate, var_gate, weight, bias)


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:6])  # type: ignore[arg-type]
    ctx.options = inputs[6:]  # type: ignore[attr-defined]


def _autograd(ctx: torch.autograd.function.FunctionCtx, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    tensors: tuple[Tensor | None, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
    eps, head_rms, unbiased = ctx.options  # type: ignore[attr-defined]
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return (*_differentiable_gradients(grad_y, tensors, eps, head_rms, unbiased), None, None, None)
    gradients = _backward(grad_y, *tensors, eps, head_rms, unbiased)
    return (
        *(None if tensor is None else gradient for tensor, gradient in zip(tensors, gradients, strict=True)),
        None,
        None,
        None,
    )


def _differentiable_gradients(
    grad_y: Tensor, tensors: tuple[Tensor | None, ...], eps: float, head_rms: bool, unbiased: bool
) -> list[Tensor | None]:
    """The gradients under ``create_graph=True``: the plain form, whose own gradients autograd knows."""
    x, coefficients, mean_gate, var_gate, weight, bias = tensors
    assert x is not None and coefficients is not None and var_gate is not None and weight is not None  # noqa: PT018
    assert bias is not None
    y = separable.dynamic_token_norm(
        x, coefficients, mean_gate, var_gate, weight, bias, eps=eps, head_rms=head_rms, unbiased=unbiased
    )
    wanted = [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]
    gradients = iter(torch.autograd.grad(y, wanted, grad_y, create_graph=True))
    return [next(gradients) if tensor is not None and tensor.requires_grad else None for tensor in tensors]


_forward.register_autograd(_autograd, setup_context=_setup_context)
