"""Base classes of the norms that do not use the positions of tokens, and functions for their statistics."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from dtn_det.errors import InputError
from dtn_det.layers.plain import Moments
from dtn_det.layers.token_norm import (
    TokenNorm,
    check_mask,
    check_rows,
    check_tokens,
    compute_dtype,
    output_dtype,
    without_autocast,
)


class WithinTokenNorm(TokenNorm):
    """The base of norms that normalise each token by itself. Grid and mask are checked but have no effect.

    Subclasses define :meth:`normalize`. Statistics are computed in float32, or in float64 for float64 input, also under
    autocast. The arguments are those of :class:`~dtn_det.layers.token_norm.TokenNorm`.
    """

    def forward(self, x: Tensor, hw_shape: tuple[int, int] | None = None, mask: Tensor | None = None) -> Tensor:
        """Normalise the tokens; see :meth:`dtn_det.layers.token_norm.TokenNorm.forward`.

        Without ``hw_shape`` and ``mask``, ``x`` may also be ``(N, C)``: some models pack the patches of several images
        into one row.
        """
        if x.dim() == 2 and hw_shape is None and mask is None:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        grid = check_tokens(x, self.num_features, hw_shape)
        if mask is not None:
            check_mask(mask, x.shape[0], math.prod(x.shape[1:-1]), grid)
        with without_autocast(x):
            return self.normalize(x.to(compute_dtype(x))).to(output_dtype(x))

    def normalize(self, x: Tensor) -> Tensor:
        """Normalise tokens ``(..., C)`` in float32 or float64. The result has the same shape and dtype."""
        raise NotImplementedError(f"{type(self).__name__} has no normalize: define it")

    def affine(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return ``weight`` and ``bias`` in a dtype, for norms that have both."""
        return self.weight.to(dtype), self.bias.to(dtype)

    def extra_repr(self) -> str:
        """Return the arguments, for ``print``."""
        return f"{self.num_features}, eps={self.eps}"


class AcrossTokensNorm(WithinTokenNorm):
    """The base of norms with statistics over several tokens.

    Tokens that the mask marks as invalid do not enter the statistics, nor do prefix tokens with
    ``include_prefix=False``. All these tokens are normalised by the statistics of the remaining tokens. Subclasses
    define :meth:`normalize_tokens`.

    Args:
        num_features: Channels ``C`` of a token.
        eps: Added to variances and mean squares.
        include_prefix: Whether prefix tokens (class, distillation, register) enter the statistics. If not, ``hw_shape``
            is required to distinguish them from the other tokens.
    """

    decisive: ClassVar[tuple[str, ...]] = ("eps", "include_prefix")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        include_prefix: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, device=device, dtype=dtype)
        self.include_prefix = include_prefix

    def forward(self, x: Tensor, hw_shape: tuple[int, int] | None = None, mask: Tensor | None = None) -> Tensor:
        """Normalise the tokens; see :meth:`dtn_det.layers.token_norm.TokenNorm.forward`.

        Raises:
            ValueError: A shape or dtype does not fit, the mask leaves an image without a valid token, or ``hw_shape``
                is missing with ``include_prefix=False``.
        """
        grid = check_tokens(x, self.num_features, hw_shape)
        with without_autocast(x):
            tokens = x.to(compute_dtype(x)).flatten(1, -2)
            valid = self._valid(tokens, grid, mask)
            return self.normalize_tokens(tokens, valid).to(output_dtype(x)).reshape(x.shape)

    def normalize_tokens(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Normalise ``(B, N, C)`` in float32 or float64.

        Args:
            valid: ``(B, N, 1)`` booleans, True for tokens that enter the statistics; None for all tokens.
        """
        raise NotImplementedError(f"{type(self).__name__} has no normalize_tokens: define it")

    def _valid(self, tokens: Tensor, grid: tuple[int, int] | None, mask: Tensor | None) -> Tensor | None:
        batch, num_tokens, _ = tokens.shape
        if grid is None and not self.include_prefix:
            raise InputError("expected hw_shape=(H, W) with include_prefix=False, got None: pass the grid")
        if mask is None and self.include_prefix:
            return None
        num_prefix = 0 if grid is None else num_tokens - grid[0] * grid[1]
        make = tokens.new_ones if self.include_prefix else tokens.new_zeros
        prefix = make(batch, num_prefix, dtype=torch.bool)
        if mask is None:
            mask = tokens.new_ones(batch, num_tokens - num_prefix, dtype=torch.bool)
        else:
            mask = check_mask(mask, batch, num_tokens, grid)
            if mask.shape[1] == num_tokens:
                prefix, mask = mask[:, :num_prefix] & prefix, mask[:, num_prefix:]
        mask = torch.cat([prefix, mask], dim=1)
        check_rows(mask)
        return mask.unsqueeze(-1)


def masked_mean(values: Tensor, valid: Tensor | None, dims: tuple[int, ...]) -> Tensor:
    """Compute the mean over the valid entries; 0 if no entry is valid. Invalid entries may have any value, also NaN.

    Args:
        valid: Booleans that broadcast against ``values``; None for all.
        dims: Dimensions to average over; they are kept with size 1.
    """
    if valid is None:
        return values.mean(dims, keepdim=True)
    valid = valid.expand_as(values)
    count = valid.sum(dims, keepdim=True).clamp(min=1)
    return values.masked_fill(~valid, 0).sum(dims, keepdim=True) / count


def masked_moments(values: Tensor, valid: Tensor | None, dims: tuple[int, ...]) -> Moments:
    """Compute mean and biased variance of the valid entries, see :func:`masked_mean`, in two passes for accuracy."""
    if valid is None:
        var, mean = torch.var_mean(values, dims, correction=0, keepdim=True)
        return Moments(mean, var)
    mean = masked_mean(values, valid, dims)
    return Moments(mean, masked_mean((values - mean).square(), valid, dims))


def standardize(values: Tensor, moments: Moments, eps: float) -> Tensor:
    """Compute ``(values - mean) / sqrt(var + eps)``."""
    return (values - moments.mean) * torch.rsqrt(moments.var + eps)


@torch.no_grad()
def move(running: Tensor, value: Tensor, momentum: float) -> None:
    """Set ``running``, ``(C,)``, to ``(1 - momentum) * running + momentum * value`` in place, in its dtype."""
    running.lerp_(value.detach().flatten().to(running.dtype), momentum)


def check_fraction(name: str, value: float) -> None:
    """Check that a number, such as a momentum, is in [0, 1].

    Raises:
        ValueError: The number is not in [0, 1].
    """
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"expected {name} from 0 to 1, got {value!r}: choose a number in this range")
