"""Norms that treat each token by itself: LayerNorm, RMSNorm, ScaleNorm and Dynamic Tanh."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtn_det.errors import InputError
from dtn_det.layers.token_norms.base import WithinTokenNorm


class TokenLayerNorm(WithinTokenNorm):
    """LayerNorm: mean and variance over the channels of each token (Ba et al., arXiv:1607.06450).

    Args:
        num_features: Channels ``C`` of a token.
        eps: Added to the variance.

    Shapes:
        ``weight``, ``bias``: ``(C,)``.
    """

    def normalize(self, x: Tensor) -> Tensor:
        """Normalise tokens ``(..., C)``."""
        return F.layer_norm(x, self.normalized_shape, *self.affine(x.dtype), eps=self.eps)


class RMSNorm(WithinTokenNorm):
    """RMSNorm: divide each token by its root mean square without subtracting a mean (arXiv:1910.07467).

    ``weight * x / sqrt(mean_c(x^2) + eps)``, without a bias (Zhang & Sennrich, "Root Mean Square Layer Normalization").

    Args:
        num_features: Channels ``C`` of a token.
        eps: Added to the mean square.

    Shapes:
        ``weight``: ``(C,)``.
    """

    has_bias = False

    def normalize(self, x: Tensor) -> Tensor:
        """Normalise tokens ``(..., C)``."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class ScaleNorm(WithinTokenNorm):
    """ScaleNorm: divide each token by its length and multiply it by one learned gain (arXiv:1910.05895).

    ``gain * x / max(||x||, eps)`` (Nguyen & Salazar, "Transformers without Tears"). The gain is initially ``sqrt(C)``,
    as in the paper, so that the mean square of every token is 1.

    Args:
        num_features: Channels ``C`` of a token.
        eps: Lower bound of the length that a token is divided by.

    Shapes:
        ``gain``: ``(1,)``.
    """

    has_weight = has_bias = False

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, device=device, dtype=dtype)
        self.gain = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the gain to ``sqrt(C)``."""
        nn.init.constant_(self.gain, self.num_features**0.5)

    def normalize(self, x: Tensor) -> Tensor:
        """Normalise tokens ``(..., C)``."""
        return self.gain.to(x.dtype) * F.normalize(x, dim=-1, eps=self.eps)


class DyT(WithinTokenNorm):
    """Dynamic Tanh: a learned tanh without any statistics (Zhu et al., arXiv:2503.10622).

    ``weight * tanh(alpha * x) + bias``, as in "Transformers without Normalization".

    Args:
        num_features: Channels ``C`` of a token.
        eps: Has no effect, because nothing is divided. All norms have this argument.
        alpha: Initial value of the parameter ``alpha``; 0.5 in the paper.

    Shapes:
        ``weight``, ``bias``: ``(C,)``. ``alpha``: ``(1,)``.

    Raises:
        ValueError: ``alpha`` is not a finite number.
    """

    decisive: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        alpha: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise InputError(f"expected alpha to be a finite number, got {alpha!r}: the paper starts at 0.5")
        super().__init__(num_features, eps, device=device, dtype=dtype)
        self.alpha_init = alpha
        self.alpha = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set ``weight`` to 1, ``bias`` to 0 and ``alpha`` to its initial value."""
        super().reset_parameters()
        nn.init.constant_(self.alpha, self.alpha_init)

    def normalize(self, x: Tensor) -> Tensor:
        """Normalise tokens ``(..., C)``."""
        weight, bias = self.affine(x.dtype)
        return torch.addcmul(bias, weight, torch.tanh(self.alpha.to(x.dtype) * x))

    def extra_repr(self) -> str:
        """Return the arguments, for ``print``."""
        return f"{self.num_features}, alpha={self.alpha_init}"
