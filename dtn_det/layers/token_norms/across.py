"""InstanceNorm and GroupNorm over an image, and BatchNorm and SwitchNorm over the batch with running statistics."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtn_det.errors import InputError
from dtn_det.layers.plain import Moments
from dtn_det.layers.token_norm import check_groups
from dtn_det.layers.token_norms.base import AcrossTokensNorm, check_fraction, masked_moments, move, standardize

Over = Literal["token", "image"]


class TokenInstanceNorm(AcrossTokensNorm):
    """InstanceNorm: mean and variance over the tokens of each image, per channel (Ulyanov et al., arXiv:1607.08022).

    It is the same in training and evaluation. For an image of one token, the output is the bias.

    Args:
        num_features: Channels ``C`` of a token.
        eps: Added to the variance.
        include_prefix: Whether prefix tokens enter the statistics, see
            :class:`~dtn_det.layers.token_norms.base.AcrossTokensNorm`.

    Shapes:
        ``weight``, ``bias``: ``(C,)``.
    """

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
    ``over='image'``, the statistics are over a group and all tokens of an image, as in ``nn.GroupNorm`` on feature
    maps. The paper on DTN (arXiv:2112.02624) does not state which of these variants its table shows.

    Args:
        num_features: Channels ``C`` of a token.
        num_groups: Number of groups of channels; must divide ``C``.
        eps: Added to the variance.
        over: ``'token'`` or ``'image'``.
        include_prefix: Whether prefix tokens enter the statistics over an image, see
            :class:`~dtn_det.layers.token_norms.base.AcrossTokensNorm`.

    Shapes:
        ``weight``, ``bias``: ``(C,)``.

    Raises:
        ValueError: ``num_groups`` does not divide ``num_features``, or ``over`` is unknown.
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


class _RunningMomentsNorm(AcrossTokensNorm):
    """The base of norms with buffers ``running_mean`` and ``running_var`` of shape ``(C,)``, initially 0 and 1."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        momentum: float = 0.1,
        include_prefix: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_fraction("momentum", momentum)
        super().__init__(num_features, eps, include_prefix=include_prefix, device=device, dtype=dtype)
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_features, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(num_features, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Set the weight to 1, the bias to 0, and reset the running statistics."""
        super().reset_parameters()
        self.running_mean.zero_()
        self.running_var.fill_(1)

    def running(self, dtype: torch.dtype) -> Moments:
        """Return the running statistics, ``(C,)`` each."""
        return Moments(self.running_mean.to(dtype), self.running_var.to(dtype))

    def extra_repr(self) -> str:
        """Return the arguments, for ``print``."""
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class TokenBatchNorm(_RunningMomentsNorm):
    """BatchNorm: mean and variance over all tokens of the batch, per channel (Ioffe & Szegedy, arXiv:1502.03167).

    Three things are as in ``nn.BatchNorm1d``. In evaluation mode, running statistics are used: exponential moving
    averages, with ``momentum``, of the mean and of the unbiased variance. In training, each process uses the statistics
    of its own batch. DistributedDataParallel sends the buffers of rank 0 to all processes before each forward pass.
    ``SyncBatchNorm.convert_sync_batchnorm`` has no effect. Activation checkpointing updates the running statistics
    twice per step.

    Args:
        num_features: Channels ``C`` of a token.
        eps: Added to the variance.
        momentum: Weight of the new value in the running statistics, in [0, 1].
        include_prefix: Whether prefix tokens enter the statistics, see
            :class:`~dtn_det.layers.token_norms.base.AcrossTokensNorm`.

    Shapes:
        ``weight``, ``bias``, ``running_mean``, ``running_var``: ``(C,)``.

    Raises:
        ValueError: The momentum is out of range, or a batch in training has a single token.
    """

    decisive: ClassVar[tuple[str, ...]] = ("eps",)

    def normalize_tokens(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Normalise tokens ``(B, N, C)`` by statistics over ``B`` and ``N``."""
        weight, bias = self.affine(tokens.dtype)
        if self.training and tokens[..., 0].numel() == 1:
            raise InputError("expected more than one token in a batch for BatchNorm in training, got one: use eval()")
        if self.training and valid is not None:
            moments = masked_moments(tokens, valid, (0, 1))
            count = valid.sum().to(tokens.dtype)
            move(self.running_mean, moments.mean, self.momentum)
            move(self.running_var, moments.var * (count / (count - 1).clamp(min=1)), self.momentum)
            return torch.addcmul(bias, standardize(tokens, moments, self.eps), weight)
        rows = tokens.reshape(-1, self.num_features)
        mean, var = self.running(tokens.dtype)
        out = F.batch_norm(rows, mean, var, weight, bias, self.training, self.momentum, self.eps)
        if self.training and mean is not self.running_mean:
            # The kernel has updated copies in another dtype. Write the copies back.
            move(self.running_mean, mean, 1.0)
            move(self.running_var, var, 1.0)
        return out.reshape(tokens.shape)


class SwitchNorm(_RunningMomentsNorm):
    """Switchable Normalization: a learned mix of the statistics of IN, LN and BN (Luo et al., arXiv:1806.10779).

    ``mean = sum_k softmax(mean_weight)_k mean_k`` and ``var = sum_k softmax(var_weight)_k var_k``. The statistics ``k``
    are, in this order: over the tokens of an image per channel (IN), over the channels of a token (LN), and over all
    tokens of the batch per channel (BN). All variances are biased, as in the paper.

    Two things differ from the paper. The paper's LN is over a whole feature map; here LN is over each token, as in
    transformers. For evaluation, the paper averages BN's statistics over batches after training. Here running
    statistics are used, updated as in :class:`TokenBatchNorm` but with the biased variance.

    Args:
        num_features: Channels ``C`` of a token.
        eps: Added to the mixed variance.
        momentum: Weight of the new value in the running statistics, in [0, 1].
        include_prefix: Whether prefix tokens enter the statistics over tokens, see
            :class:`~dtn_det.layers.token_norms.base.AcrossTokensNorm`.

    Shapes:
        ``weight``, ``bias``, ``running_mean``, ``running_var``: ``(C,)``. ``mean_weight``, ``var_weight``: ``(3,)``.

    Raises:
        ValueError: The momentum is out of range.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        momentum: float = 0.1,
        include_prefix: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum=momentum, include_prefix=include_prefix, device=device, dtype=dtype
        )
        self.mean_weight = nn.Parameter(torch.empty(3, device=device, dtype=dtype))
        self.var_weight = nn.Parameter(torch.empty(3, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Give the three kinds of statistics equal weights, and reset everything else as in BatchNorm."""
        super().reset_parameters()
        nn.init.ones_(self.mean_weight)
        nn.init.ones_(self.var_weight)

    def normalize_tokens(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Normalise tokens ``(B, N, C)`` by a mix of statistics over ``N``, over ``C``, and over ``B`` and ``N``."""
        of_image = masked_moments(tokens, valid, (1,))
        of_token = masked_moments(tokens, None, (2,))
        of_batch = self._batch_moments(tokens, valid)
        kinds = (of_image, of_token, of_batch)
        mean_shares = self.mean_weight.to(tokens.dtype).softmax(0).unbind()
        var_shares = self.var_weight.to(tokens.dtype).softmax(0).unbind()
        # The two kinds of statistics per channel are summed first, because their sum is small. A sum with the
        # statistics per token is as large as the input.
        order = (0, 2, 1)
        mean = sum((mean_shares[i] * kinds[i].mean for i in order), start=tokens.new_zeros(()))
        var = sum((var_shares[i] * kinds[i].var for i in order), start=tokens.new_zeros(()))
        weight, bias = self.affine(tokens.dtype)
        return torch.addcmul(bias, standardize(tokens, Moments(mean, var), self.eps), weight)

    def _batch_moments(self, tokens: Tensor, valid: Tensor | None) -> Moments:
        if not self.training:
            return self.running(tokens.dtype)
        moments = masked_moments(tokens, valid, (0, 1))
        move(self.running_mean, moments.mean, self.momentum)
        move(self.running_var, moments.var, self.momentum)
        return moments
