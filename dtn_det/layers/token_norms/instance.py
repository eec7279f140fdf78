"""InstanceNorm over the tokens of an image, and GroupNorm over a token or an image."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from dtn_det.errors import InputError
from dtn_det.layers.token_norm import check_groups
from dtn_det.layers.token_norms.base import AcrossTokensNorm, masked_moments, standardize

Over = Literal["token", "image"]


class TokenInstanceNorm(AcrossTokensNorm):
    """InstanceNorm: mean and variance over the tokens of each image, per channel (Ulyanov et al., arXiv:1607.08022).

    It is the same in training and evaluation. For an image of one token, the output is the bias.

    Args:
        num_features: Channels ``C`` of a token.
        eps: Added to the variance.
        include_prefix: Whether prefix tokens enter the statistics, see
            :class:`~dtn_det.layers.token_norms.base.AcrossTokensNorm`.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Shapes:
        ``weight``, ``bias``: ``(C,)``.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        include_prefix: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, include_prefix=include_prefix, device=device, dtype=dtype)
        self.reset_parameters()

    def normalize_tokens(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Normalise tokens ``(B, N, C)`` by statistics over ``N``."""
        weight, bias = self.affine(tokens.dtype)
        # PyTorch's kernel refuses a single token. F.instance_norm cannot be exported with a variable height.
        if valid is None and tokens.shape[1] > 1:
            out = torch.group_norm(tokens.transpose(1, 2), self.num_features, weight, bias, self.eps)
            return out.transpose(1, 2)
        out = standardize(tokens, masked_moments(tokens, valid, (1,)), self.eps)
        return torch.addcmul(bias, out, weight)


class TokenGroupNorm(AcrossTokensNorm):
    """GroupNorm: mean and variance over each group of channels (Wu & He, arXiv:1803.08494).

    With ``over='token'``, the default, the statistics are within each token, as in published comparisons on
    transformers (the GroupNorm in the code of PowerNorm, arXiv:2003.07845). One group is then LayerNorm. With
    ``over='image'`` they are over a group and all tokens of an image, as in ``nn.GroupNorm`` on feature maps. The paper
    on DTN (arXiv:2112.02624) does not state which of the two its table shows.

    Args:
        num_features: Channels ``C`` of a token.
        num_groups: Number of groups of channels; must divide ``C``.
        eps: Added to the variance.
        over: ``'token'`` or ``'image'``.
        include_prefix: Whether prefix tokens enter the statistics over an image, see
            :class:`~dtn_det.layers.token_norms.base.AcrossTokensNorm`.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Shapes:
        ``weight``, ``bias``: ``(C,)``.

    Raises:
        ValueError: The groups do not divide the channels, or ``over`` is unknown.
    """

    decisive: ClassVar[tuple[str, ...]] = ("eps", "include_prefix", "num_groups", "over")

    def __init__(
        self,
        num_features: int,
        num_groups: int = 1,
        eps: float = 1e-5,
        *,
        over: Over = "token",
        include_prefix: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_groups(num_features, num_groups)
        if over not in get_args(Over):
            raise InputError(f"expected over to be one of {get_args(Over)}, got {over!r}")
        super().__init__(num_features, eps, include_prefix=include_prefix, device=device, dtype=dtype)
        self.num_groups = num_groups
        self.over = over
        self.reset_parameters()

    def forward(self, x: Tensor, hw_shape: tuple[int, int] | None = None, mask: Tensor | None = None) -> Tensor:
        """Normalise the tokens; see :meth:`dtn_det.layers.token_norm.TokenNorm.forward`.

        With ``over='token'``, and without ``hw_shape`` and ``mask``, ``x`` may also be ``(N, C)``, as in models that
        pack the patches of several images into one row.
        """
        if x.dim() == 2 and self.over == "token" and hw_shape is None and mask is None:
            return super().forward(x.unsqueeze(0)).squeeze(0)
        return super().forward(x, hw_shape, mask)

    def normalize_tokens(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Normalise tokens ``(B, N, C)`` by statistics over groups of channels; with ``over='image'`` over N too."""
        weight, bias = self.affine(tokens.dtype)
        batch, num_tokens, channels = tokens.shape
        if self.over == "token":
            out = torch.group_norm(tokens.reshape(-1, channels, 1), self.num_groups, weight, bias, self.eps)
            return out.reshape(tokens.shape)
        if valid is None:
            return torch.group_norm(tokens.transpose(1, 2), self.num_groups, weight, bias, self.eps).transpose(1, 2)
        groups = tokens.reshape(batch, num_tokens, self.num_groups, -1)
        out = standardize(groups, masked_moments(groups, valid.unsqueeze(-1), (1, 3)), self.eps)
        return torch.addcmul(bias, out.reshape(tokens.shape), weight)

    def extra_repr(self) -> str:
        """Return the arguments, for ``print``."""
        return f"{self.num_features}, num_groups={self.num_groups}, eps={self.eps}, over={self.over!r}"
