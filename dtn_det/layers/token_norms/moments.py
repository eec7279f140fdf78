"""Means and variances over tokens, some of which may not count."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Statistics that broadcast against the tokens.

    Attributes:
        mean: The mean.
        var: The biased variance.
    """

    mean: Tensor
    var: Tensor


def masked_mean(values: Tensor, valid: Tensor | None, dims: tuple[int, ...]) -> Tensor:
    """Mean over the valid entries, whatever the others hold.

    Args:
        values: Any shape.
        valid: Booleans that broadcast against ``values``; None for all.
        dims: Dimensions to average over; they stay, with size 1.

    Returns:
        The mean; 0 where nothing is valid.
    """
    if valid is None:
        return values.mean(dims, keepdim=True)
    valid = valid.expand_as(values)
    count = valid.sum(dims, keepdim=True).clamp(min=1)
    return values.masked_fill(~valid, 0).sum(dims, keepdim=True) / count


def masked_moments(values: Tensor, valid: Tensor | None, dims: tuple[int, ...]) -> Moments:
    """Mean and biased variance over the valid entries, in two passes, so that nothing cancels.

    Args:
        values: Any shape.
        valid: Booleans that broadcast against ``values``; None for all.
        dims: Dimensions to reduce; they stay, with size 1.

    Returns:
        The moments.
    """
    if valid is None:
        var, mean = torch.var_mean(values, dims, correction=0, keepdim=True)
        return Moments(mean, var)
    mean = masked_mean(values, valid, dims)
    return Moments(mean, masked_mean((values - mean).square(), valid, dims))


def standardize(values: Tensor, moments: Moments, eps: float) -> Tensor:
    """``(values - mean) / sqrt(var + eps)``."""
    return (values - moments.mean) * torch.rsqrt(moments.var + eps)


@torch.no_grad()
def move(running: Tensor, value: Tensor, momentum: float) -> None:
    """``running <- (1 - momentum) * running + momentum * value``, in the dtype of ``running``.

    Args:
        running: ``(C,)``, changed in place.
        value: As many elements in any shape.
        momentum: In [0, 1].
    """
    running.lerp_(value.detach().flatten().to(running.dtype), momentum)


def check_fraction(name: str, value: float) -> None:
    """Check a momentum or a factor of a moving average.

    Raises:
        ValueError: It is not in [0, 1].
    """
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"expected {name} from 0 to 1, got {value!r}: choose a number in this range")
