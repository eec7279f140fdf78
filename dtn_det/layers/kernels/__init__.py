"""Compiled kernels of the DTN layer, behind one PyTorch operator: C++ on CPUs, Triton on GPUs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KernelStatus:
    """Whether the compiled kernels of a kind of device are in use.

    Attributes:
        available: True if they are.
        detail: The library and its instruction set, or Triton's version; or why the kernels are not in use.
    """

    available: bool
    detail: str
