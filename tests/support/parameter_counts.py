"""Numbers of parameters, without memory for them and without drawing any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class _LinspaceOnCpu(TorchFunctionMode):
    """Models read the rates of their drop paths from tensors, which have no values on the device `meta`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func is torch.linspace:
            options.setdefault("device", "cpu")
        return func(*args, **options)


def count_parameters(build: Callable[[], nn.Module]) -> int:
    """The number of parameters of the model that a function builds."""
    with torch.device("meta"), _LinspaceOnCpu():
        return sum(parameter.numel() for parameter in build().parameters())
