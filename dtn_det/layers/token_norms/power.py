"""PowerNorm: BatchNorm without a mean, with running statistics also in training."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.autograd.function import once_differentiable

from dtn_det.errors import InputError
from dtn_det.layers.token_norms.base import AcrossTokensNorm, check_fraction, masked_mean


class PowerNorm(AcrossTokensNorm):
    """PowerNorm: divide each channel by its quadratic mean over all tokens (Shen et al., arXiv:2003.07845).

    ``psi^2`` is a running mean of ``x^2`` that is used in training too: ``x_hat = x / sqrt(psi^2 + eps)`` and ``y =
    weight * x_hat + bias``; afterwards ``psi^2 <- a psi^2 + (1 - a) mean(x^2)``. The backward pass approximates the
    derivative through ``psi`` by a running ``nu``: with ``g`` the gradient of ``x_hat``, ``dx = (g - nu x_hat) /
    sqrt(psi^2 + eps)``, and afterwards ``nu <- nu (1 - (1 - b) mean(x_hat^2)) + (1 - b) mean(g x_hat)``. All means are
    over the tokens of the batch.

    The first ``warmup_steps`` steps divide by the quadratic mean of the batch instead, with its exact gradient (PN-V of
    the paper). In these steps ``psi^2`` is the plain average over the steps so far, and ``nu`` is updated as above. The
    released code differs: it uses ``nu`` in this phase too, and later divides gradients by the quadratic mean of the
    batch where the paper has ``psi``. As in the released code, each token is first divided by its root mean square over
    channels (``layer_scale``).

    As with :class:`~dtn_det.layers.token_norms.across.TokenBatchNorm`, each process has running statistics of its own
    batches. ``nu`` is updated in the backward pass. With activation checkpointing, the repeated forward pass uses a
    ``psi`` that has already been updated.

    Args:
        num_features: Channels ``C`` of a token.
        eps: Added to quadratic means.
        alpha_forward: Weight ``a`` of the old value of ``psi^2``, in [0, 1].
        alpha_backward: Weight ``b`` of the old value of ``nu``, in [0, 1].
        warmup_steps: Number of forward passes in training mode before the running statistics are used.
        layer_scale: Divide each token by its root mean square over channels first.
        include_prefix: Whether prefix tokens enter the statistics, see
            :class:`~dtn_det.layers.token_norms.base.AcrossTokensNorm`.

    Shapes:
        ``weight``, ``bias``, ``running_square`` (``psi^2``), ``running_gradient`` (``nu``): ``(C,)``. ``num_steps``:
        ``()``.

    Raises:
        ValueError: A factor is out of range, or ``warmup_steps`` is not an integer from 0.
    """

    running_square: Tensor
    running_gradient: Tensor
    num_steps: Tensor

    decisive: ClassVar[tuple[str, ...]] = ("eps", "layer_scale")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        alpha_forward: float = 0.9,
        alpha_backward: float = 0.9,
        warmup_steps: int = 10000,
        layer_scale: bool = True,
        include_prefix: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_fraction("alpha_forward", alpha_forward)
        check_fraction("alpha_backward", alpha_backward)
        if not isinstance(warmup_steps, int) or warmup_steps < 0:
            raise InputError(
                f"expected warmup_steps to be an integer of at least 0, got {warmup_steps!r}: take 0 to use the "
                "running statistics from the start"
            )
        super().__init__(num_features, eps, include_prefix=include_prefix, device=device, dtype=dtype)
        self.alpha_forward = alpha_forward
        self.alpha_backward = alpha_backward
        self.warmup_steps = warmup_steps
        self.layer_scale = layer_scale
        self.register_buffer("running_square", torch.ones(num_features, device=device, dtype=dtype))
        self.register_buffer("running_gradient", torch.zeros(num_features, device=device, dtype=dtype))
        self.register_buffer("num_steps", torch.zeros((), device=device, dtype=torch.long))

    def reset_parameters(self) -> None:
        """Set the weight to 1, the bias to 0, and reset the running statistics."""
        super().reset_parameters()
        self.running_square.fill_(1)
        self.running_gradient.zero_()
        self.num_steps.zero_()

    def normalize_tokens(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Normalise tokens ``(B, N, C)`` by statistics over ``B`` and ``N``, and over ``C`` with ``layer_scale``."""
        if self.layer_scale:
            tokens = F.rms_norm(tokens, self.normalized_shape, eps=self.eps)
        if self.training:
            normalized = self._train(tokens, valid)
        else:
            normalized = tokens * torch.rsqrt(self.running_square.to(tokens.dtype) + self.eps)
        weight, bias = self.affine(tokens.dtype)
        return torch.addcmul(bias, normalized, weight)

    # Graph compilers cannot trace a backward pass that changes a buffer. `_disable_dynamo`, which torch's own
    # optimizers use, has the effect of `torch.compiler.disable`. It does not import the compiler, which takes as long
    # as importing torch.
    @_disable_dynamo
    def _train(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        with torch.no_grad():
            square = masked_mean(tokens.square(), valid, (0, 1)).flatten()
            self.num_steps += 1
            is_warming = self.num_steps <= self.warmup_steps
            divisor = torch.where(is_warming, square, self.running_square.to(square.dtype))
            share = torch.where(is_warming, 1 / self.num_steps.to(square.dtype), 1 - self.alpha_forward)
            self.running_square.copy_(torch.lerp(self.running_square.to(square.dtype), square, share))
        return _DivideByRoot.apply(  # type: ignore[no-untyped-call]
            tokens, valid, divisor + self.eps, is_warming, self.running_gradient, self.alpha_backward
        )

    def extra_repr(self) -> str:
        """Return the arguments, for ``print``."""
        return (
            f"{self.num_features}, eps={self.eps}, alpha_forward={self.alpha_forward}, "
            f"alpha_backward={self.alpha_backward}, warmup_steps={self.warmup_steps}, layer_scale={self.layer_scale}"
        )


class _DivideByRoot(torch.autograd.Function):
    """``tokens / sqrt(square)``, where ``square`` ``(C,)`` depends on the tokens as described in :class:`PowerNorm`."""

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        valid: Tensor | None,
        square: Tensor,
        is_exact: Tensor,
        running_gradient: Tensor,
        alpha: float,
    ) -> Tensor:
        scale = square.rsqrt()
        normalized = tokens * scale
        ctx.save_for_backward(normalized, valid, scale, is_exact)
        # save_for_backward would forbid changing this buffer in place.
        ctx.running_gradient = running_gradient
        ctx.alpha = alpha
        return normalized

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normalized, valid, scale, is_exact = ctx.saved_tensors
        nu = ctx.running_gradient.to(scale.dtype)
        product = gradient * normalized
        count = product[..., 0].numel() if valid is None else valid.sum()
        correction = torch.where(is_exact, product.sum((0, 1)) / count, nu) * normalized
        if valid is not None:
            # Tokens that do not enter the statistics do not change the quadratic mean, so their gradient needs no
            # correction.
            correction = correction.masked_fill(~valid, 0)
        power = masked_mean(normalized.square(), valid, (0, 1)).flatten()
        cross = masked_mean(product, valid, (0, 1)).flatten()
        ctx.running_gradient.copy_(nu + (1 - ctx.alpha) * (cross - nu * power))
        return (gradient - correction) * scale, None, None, None, None, None
