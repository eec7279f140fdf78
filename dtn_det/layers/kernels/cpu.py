"""DTN on a CPU: calls the compiled C++ kernels.

``setup.py`` builds ``csrc/dtn_cpu.cpp`` for several instruction sets into plain shared libraries without any dependency
on PyTorch's ABI; this file picks the best one for the processor. :mod:`dtn_det.layers.kernels.operator` makes PyTorch
operators of these functions. Without the library (no compiler at installation), and for all that it does not cover, the
layer runs :mod:`dtn_det.layers.plain`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor

from dtn_det.layers.kernels import KernelStatus

# Instruction sets in the order of `dtn_processor_level`: see setup.py.
VARIANTS = ("baseline", "avx2", "avx512")
LIBRARY_PREFIX = "_dtn_cpu_"
# Below this many elements starting a thread costs more than it saves.
ELEMENTS_PER_THREAD = 1 << 14


class _DtnShape(ctypes.Structure):
    """``DtnShape`` of ``csrc/dtn_cpu.cpp``."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("prefix", ctypes.c_int64),
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
        _share_threads(library)
    except (OSError, AttributeError) as error:
        detail = f"cannot be loaded ({error})"
        warnings.warn(f"DTN's compiled CPU kernels {detail}: install dtn-det again", RuntimeWarning, stacklevel=2)
        return None, detail
    return library, f"{found[best].name} ({best})"


def _share_threads(library: ctypes.CDLL) -> None:
    """Let the library run on the threads of PyTorch's OpenMP where that can be found; it starts its own otherwise."""
    if sys.platform != "linux":
        return
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if parallel is not None:
        library.dtn_use_openmp(ctypes.cast(parallel, ctypes.c_void_p))


# Loaded with the module, for torch.compile can read a variable but not follow a search for files.
_LIBRARY, _DETAIL = _load()


def status() -> KernelStatus:
    """Whether the compiled kernels are in use on this machine, and why not."""
    return KernelStatus(_LIBRARY is not None, _DETAIL)


def is_usable(x: Tensor) -> bool:
    """Whether :func:`forward` and :func:`backward` cover this input.

    Args:
        x: ``(B, N, C)`` or ``(B, H, W, C)``.
    """
    if x.device.type != "cpu" or x.numel() == 0:
        return False
    # An exported graph must run where this library is not.
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    return _LIBRARY is not None


def forward(
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
    """:func:`dtn_det.layers.plain.dynamic_token_norm` without a mask, by the compiled kernels.

    Args:
        x: ``(B, N, C)``, the last ``height * width`` tokens of which are the grid, or ``(B, H, W, C)``; those in front
            of the grid get LayerNorm's statistics. Converted to the dtype of the parameters first.
        coefficients: ``(G, 3)``; the parameters are float32 or float64, all of one dtype.
        mean_gate: ``(G,)`` or None.
        var_gate: ``(G,)``.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Added to variances and mean squares.
        head_rms: Divide each group by its root mean square first.
        unbiased: Unbiased intra-token variance.
        out_dtype: The dtype of the output.
        height: ``H``.
        width: ``W``.

    Returns:
        Of the shape of ``x``, contiguous.

    Raises:
        RuntimeError: The kernels are not there.
        MemoryError: Their work space cannot be had.
    """
    x = x.to(coefficients.dtype)
    inputs = [_dense(tensor) for tensor in (x, coefficients, mean_gate, var_gate, weight, bias)]
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    _call("forward", x, coefficients, mean_gate, eps, head_rms, unbiased, (height, width), [*inputs, y])
    return y.to(out_dtype)


def backward(
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
    """The gradients of :func:`forward` by its six tensors, in their dtypes; an empty one stands for that of None."""
    dtype = x.dtype
    x, grad_y = x.to(coefficients.dtype), grad_y.to(coefficients.dtype)
    inputs = [_dense(tensor) for tensor in (x, coefficients, mean_gate, var_gate, weight, bias, grad_y)]
    outputs = empty_gradients(x, coefficients, mean_gate, var_gate, weight, bias)
    _call("backward", x, coefficients, mean_gate, eps, head_rms, unbiased, (height, width), [*inputs, *outputs])
    return [outputs[0].to(dtype), *outputs[1:]]


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def empty_gradients(x: Tensor, *parameters: Tensor | None) -> list[Tensor]:
    """One tensor for each argument; an empty one stands for None."""
    return [
        x.new_empty(0) if tensor is None else torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor in (x, *parameters)
    ]


def _call(
    name: str,
    x: Tensor,
    coefficients: Tensor,
    mean_gate: Tensor | None,
    eps: float,
    head_rms: bool,
    unbiased: bool,
    hw_shape: tuple[int, int],
    tensors: list[Tensor | None],
) -> None:
    """Run ``dtn_{forward,backward}_{f32,f64}`` on the tensors in the order of its pointers."""
    if _LIBRARY is None:
        raise RuntimeError(f"expected DTN's compiled CPU kernels, but they are {_DETAIL}")
    function = getattr(_LIBRARY, f"dtn_{name}_{'f64' if x.dtype == torch.float64 else 'f32'}")
    threads = max(1, min(torch.get_num_threads(), x.numel() // ELEMENTS_PER_THREAD))
    batch, channels = x.shape[0], x.shape[-1]
    prefix = x.shape[1:-1].numel() - hw_shape[0] * hw_shape[1]
    groups = coefficients.shape[0]
    _check_sizes(tensors, (x.numel(), 3 * groups, groups, groups, channels, channels, x.numel()))
    shape = _DtnShape(batch, prefix, *hw_shape, channels, groups, eps, head_rms, unbiased, mean_gate is None, threads)
    pointers = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
    if function(ctypes.byref(shape), *pointers) != 0:
        raise MemoryError(f"expected memory for DTN on tokens of shape {tuple(x.shape)}, got none: use smaller images")


def _check_sizes(tensors: list[Tensor | None], sizes: tuple[int, ...]) -> None:
    """See that the kernels will find what they read at each address."""
    names = ("x", "coefficients", "mean_gate", "var_gate", "weight", "bias", "the output or its gradient")
    dtype = None if tensors[0] is None else tensors[0].dtype
    for name, tensor, size in zip(names, tensors, sizes, strict=False):
        if tensor is not None and (tensor.numel() != size or tensor.dtype != dtype):
            raise ValueError(
                f"expected {name} of DTN to hold {size} values of {dtype}, got {tensor.numel()} of {tensor.dtype}: "
                "give the layer the number of channels of its input, and all parameters one dtype"
            )
