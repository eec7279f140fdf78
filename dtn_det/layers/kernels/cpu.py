"""DTN on a CPU: calls the compiled C++ kernels.

``setup.py`` compiles ``csrc/dtn_cpu.cpp`` for several instruction sets, into plain shared libraries that do not depend
on PyTorch's ABI. This module loads the best library for the processor, and :mod:`dtn_det.layers.kernels.operator` wraps
the library's functions as PyTorch operators. The layer runs :mod:`dtn_det.layers.plain` for unsupported inputs, and for
all inputs if the installation found no compiler.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor

from dtn_det.layers.kernels import KernelStatus, check_tensors, empty_gradients
from dtn_det.layers.plain import DTNOptions, DTNParameters

# Instruction sets of the libraries, indexed by the level that `dtn_processor_level` returns: see setup.py.
VARIANTS = ("baseline", "avx2", "avx512")
LIBRARY_PREFIX = "_dtn_cpu_"
# Starting a thread for fewer elements than this costs more time than it saves.
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
    """Return the library for this processor or None, and a text: the name of the library, or why it is None."""
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
    """Let the library use the threads of PyTorch's OpenMP. Without OpenMP, the library starts its own threads."""
    if sys.platform != "linux":
        return
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if parallel is not None:
        library.dtn_use_openmp(ctypes.cast(parallel, ctypes.c_void_p))


# Loaded when the module is imported, because torch.compile can read a variable but cannot trace a search for files.
_LIBRARY, _DETAIL = _load()


def status() -> KernelStatus:
    """Return whether the compiled kernels are in use, and if not, why."""
    return KernelStatus(_LIBRARY is not None, _DETAIL)


def is_usable(x: Tensor) -> bool:
    """Return whether the compiled kernels support this input, ``(B, N, C)`` or ``(B, H, W, C)``."""
    return _LIBRARY is not None and x.device.type == "cpu" and x.numel() > 0


def forward(
    x: Tensor, parameters: DTNParameters, options: DTNOptions, out_dtype: torch.dtype, hw_shape: tuple[int, int]
) -> Tensor:
    """Compute :func:`dtn_det.layers.plain.dynamic_token_norm` without a mask, with the compiled kernels.

    Arguments and result are as in :func:`dtn_det.layers.kernels.operator.dynamic_token_norm`. The input is first
    converted to the dtype of the parameters, float32 or float64; the result is contiguous.

    Raises:
        RuntimeError: The kernels are not available.
        ValueError: Tensors do not match, see :func:`dtn_det.layers.kernels.check_tensors`.
        MemoryError: There is not enough memory for the kernels' buffers.
    """
    check_tensors(x, parameters)
    x = x.to(parameters.coefficients.dtype)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    _call("forward", x, parameters, options, hw_shape, [*_dense(x, *parameters), y])
    return y.to(out_dtype)


def backward(
    grad_y: Tensor, x: Tensor, parameters: DTNParameters, options: DTNOptions, hw_shape: tuple[int, int]
) -> list[Tensor]:
    """Compute the gradients of :func:`forward` with respect to ``x`` and the parameters.

    Returns:
        Six tensors in the dtypes of the inputs. The gradient of a parameter that is None is empty.
    """
    check_tensors(x, parameters, grad_y)
    dtype, compute_dtype = x.dtype, parameters.coefficients.dtype
    x, grad_y = x.to(compute_dtype), grad_y.to(compute_dtype)
    outputs = empty_gradients(x, parameters)
    _call("backward", x, parameters, options, hw_shape, [*_dense(x, *parameters, grad_y), *outputs])
    return [outputs[0].to(dtype), *outputs[1:]]


def _dense(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _call(
    name: str,
    x: Tensor,
    parameters: DTNParameters,
    options: DTNOptions,
    hw_shape: tuple[int, int],
    tensors: list[Tensor | None],
) -> None:
    """Run ``dtn_{forward,backward}_{f32,f64}``; the tensors are in the order of the function's arguments."""
    if _LIBRARY is None:
        raise RuntimeError(f"expected DTN's compiled CPU kernels, but they are {_DETAIL}")
    function = getattr(_LIBRARY, f"dtn_{name}_{'f64' if x.dtype == torch.float64 else 'f32'}")
    threads = max(1, min(torch.get_num_threads(), x.numel() // ELEMENTS_PER_THREAD))
    prefix = x.shape[1:-1].numel() - hw_shape[0] * hw_shape[1]
    groups, only_var = parameters.coefficients.shape[0], parameters.mean_gate is None
    shape = _DtnShape(x.shape[0], prefix, *hw_shape, x.shape[-1], groups, *options, only_var, threads)
    pointers = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
    if function(ctypes.byref(shape), *pointers) != 0:
        raise MemoryError(f"expected memory for DTN on tokens of shape {tuple(x.shape)}, got none: use smaller images")
