"""Compiled kernels of the DTN layer, called through one PyTorch operator: C++ on CPUs, Triton on GPUs.

This module contains the code that CPU and GPU kernels share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dtn_det.errors import InputError
from dtn_det.layers.plain import DTNParameters


@dataclass(frozen=True)
class KernelStatus:
    """Whether the kernels for one kind of device are in use.

    Attributes:
        detail: The library and its instruction set, or Triton's version; or the reason why the kernels are not in use.
    """

    available: bool
    detail: str


def check_tensors(x: Tensor, parameters: DTNParameters, grad_y: Tensor | None = None) -> None:
    """Check tensors before a kernel reads them, because kernels do not check the addresses that they read.

    Args:
        x: ``(B, N, C)`` or ``(B, H, W, C)``.

    Raises:
        ValueError: Tensors are on different devices, or the size or dtype of a parameter does not match the other
            tensors.
    """
    device, dtype = x.device, parameters.coefficients.dtype
    groups, channels = parameters.coefficients.shape[0], x.shape[-1]
    for tensor, size in zip(parameters, (3 * groups, groups, groups, channels, channels), strict=True):
        if tensor is None:
            continue
        if tensor.device != device:
            raise InputError(
                f"expected tokens and parameters of DTN on one device, got {device} and {tensor.device}: move the "
                "model to the device of its input"
            )
        if tensor.numel() != size or tensor.dtype != dtype:
            name = next(name for name, one in parameters._asdict().items() if one is tensor)
            raise InputError(
                f"expected {name} of DTN to hold {size} values of {dtype}, got {tensor.numel()} of {tensor.dtype}: "
                "give the layer the number of channels of its input, and all parameters one dtype"
            )
    if grad_y is not None and (grad_y.device != x.device or grad_y.numel() != x.numel()):
        raise InputError(
            f"expected the gradient of DTN's output to have the shape {tuple(x.shape)} on {x.device}, got "
            f"{tuple(grad_y.shape)} on {grad_y.device}: pass the gradient of this output"
        )


def empty_gradients(x: Tensor, parameters: DTNParameters) -> list[Tensor]:
    """Make a contiguous tensor for the gradient of each input; it is empty for a parameter that is None."""
    return [
        x.new_empty(0) if tensor is None else torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor in (x, *parameters)
    ]
