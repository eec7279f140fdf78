"""Placeholder until the compiled kernels are in."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def is_usable(grid: Tensor, mask: Tensor | None) -> bool:
    return False


def dynamic_token_norm(*args: Any, **kwargs: Any) -> Tensor:
    raise NotImplementedError
