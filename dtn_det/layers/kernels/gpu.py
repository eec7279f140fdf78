"""DTN on a CUDA device: whether the Triton kernels can be used.

Triton comes with PyTorch's CUDA builds and is optional: without it, and for all that the kernels do not cover, the
layer runs :mod:`dtn_det.layers.plain`.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from dtn_det.layers.kernels import triton_launch


@dataclass(frozen=True)
class GpuStatus:
    """Whether the Triton kernels are in use.

    Attributes:
        available: They are.
        detail: Triton's version, or what is wrong.
    """

    available: bool
    detail: str


def status() -> GpuStatus:
    """Whether the Triton kernels are in use on this machine, and why not."""
    if not torch.cuda.is_available():
        return GpuStatus(False, "no CUDA device")
    kernels, detail = triton_launch.load()
    return GpuStatus(kernels is not None, detail)


def is_usable(x: Tensor, num_groups: int, head_rms: bool, only_var: bool) -> bool:
    """Whether the kernels cover this input and work on its device.

    The first time for a device, a dtype and a number of channels the kernels are compiled and run on a tiny map. If
    that fails, a warning says so, and the answer stays False.

    Args:
        x: ``(B, H, W, C)``.
        num_groups: ``G``.
        head_rms: As for the layer.
        only_var: As for the layer.
    """
    if x.device.type != "cuda" or not triton_launch.fits(x, num_groups):
        return False
    answer: bool = works(x.device.index, x.dtype, x.shape[-1], num_groups, head_rms, only_var)
    return answer


def works(
    device_index: int, dtype: torch.dtype, channels: int, num_groups: int, head_rms: bool, only_var: bool
) -> bool:
    """:func:`try_out`, as a constant for a graph that is being compiled."""
    return try_out(device_index, dtype, channels, num_groups, head_rms, only_var)


# What `torch.compiler.assume_constant_result` does, without the compiler's import, which takes longer than torch's.
works._dynamo_marked_constant = True  # type: ignore[attr-defined]


def trial_device(device_index: int) -> torch.device:
    """The device of this index."""
    return torch.device("cuda", device_index)


@functools.cache
def try_out(
    device_index: int, dtype: torch.dtype, channels: int, num_groups: int, head_rms: bool, only_var: bool
) -> bool:
    """Compile the kernels for these arguments and run them once; a warning says what went wrong."""
    if triton_launch.load()[0] is None:
        return False
    device = trial_device(device_index)
    try:
        with torch.no_grad():
            x = torch.zeros(1, 2, 2, channels, dtype=dtype, device=device)
            gates, weight = torch.zeros(num_groups, device=device), torch.zeros(channels, device=device)
            coefficients = torch.zeros(num_groups, 3, device=device)
            parameters = (coefficients, None if only_var else gates, gates, weight, weight)
            y = triton_launch.forward(x, *parameters, 1e-5, head_rms, False, torch.float32)
            triton_launch.backward(y, x, *parameters, 1e-5, head_rms, False)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # Triton, its compilers and the driver raise all kinds
        warnings.warn(
            f"DTN's Triton kernels do not work on {device} ({type(error).__name__}: {error}): DTN runs its slower "
            "plain form; set DTN_DET_NATIVE=0 to silence this",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
