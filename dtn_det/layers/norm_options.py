"""Options of a norm that decide its numbers and that no weight shows, as a tensor that state dicts can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

EXTRA_STATE = "_extra_state"
"""PyTorch's name for what a module adds to its state dict."""

Options = Mapping[str, object]
"""Class of the norm under ``norm``, and its options by name."""


def pack_options(options: Options) -> Tensor:
    """Write options as the bytes of their JSON.

    A tensor passes through ``weights_only=True``, safetensors and everything that copies state dicts. It is on the CPU
    whatever the default device, and is made anew each time, so that no average of weights changes it.

    Returns:
        ``(bytes,)``, uint8.
    """
    text = json.dumps(dict(options), sort_keys=True).encode("ascii")
    return torch.tensor(list(text), dtype=torch.uint8, device="cpu")


def unpack_options(state: object) -> dict[str, object] | None:
    """The inverse of :func:`pack_options`, also of bytes that were cast to a floating-point dtype meanwhile.

    Returns:
        The options, or None where these are none.
    """
    if not isinstance(state, Tensor) or state.dim() != 1 or state.is_meta or not state.numel():
        return None
    numbers = state.detach().cpu().double()
    if not bool(((numbers.round() == numbers) & (numbers >= 0) & (numbers < 128)).all()):
        return None
    try:
        found = json.loads(bytes(int(number) for number in numbers.tolist()).decode("ascii"))
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("norm"), str) else None


def other_options(own: Options, found: Options) -> dict[str, object]:
    """Those of ``found`` that ``own`` has with another value. What only one of them has is not compared."""
    return {name: value for name, value in found.items() if name in own and own[name] != value}


def describe_options(options: Options) -> str:
    """Options for people, such as ``head_rms=True, unbiased=True``."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
