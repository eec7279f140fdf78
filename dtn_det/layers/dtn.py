"""The Dynamic Token Normalization layer."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dtn_det.errors import InputError
from dtn_det.layers.kernels import operator
from dtn_det.layers.masked_runs import normalize_runs, valid_runs
from dtn_det.layers.plain import DTNOptions, DTNParameters, dynamic_token_norm, layer_norm
from dtn_det.layers.positions import PositionProjection
from dtn_det.layers.token_norm import (
    TokenNorm,
    check_groups,
    check_mask,
    check_rows,
    check_tokens,
    compute_dtype,
    output_dtype,
    without_autocast,
)

Init = Literal["local", "layernorm"]

# Initial logit of both gates with init='layernorm': LayerNorm's statistics then have the share sigmoid(6) = 0.9975.
LAYERNORM_GATE = 6.0


class DTN(TokenNorm):
    """Dynamic Token Normalization: LayerNorm that also uses the statistics of neighbouring tokens.

    Each group of channels blends two kinds of statistics: the statistics of the token itself, as in LayerNorm, and the
    statistics of the tokens around it, weighted by a learned positional kernel. Two gates per group set the share of
    each kind (Shao et al., "Dynamic Token Normalization Improves Vision Transformers", arXiv:2112.02624, Eqs. 4 to 7).
    The kernel factorises by axis, so the layer is exact at any grid size, and the grid may change from call to call.

    The class is a subclass of ``nn.LayerNorm``: it loads LayerNorm's ``weight`` and ``bias``, and optimizer rules for
    norm layers (no weight decay on ``weight``, ``bias`` and gates) apply to it.

    Args:
        num_features: Channels ``C`` of a token.
        num_groups: Number of groups ``G`` of channels (the paper's heads); must divide ``num_features``.
        eps: Added to every variance and mean square; not negative.
        head_rms: Divide each group by its root mean square first, as the released code does.
        unbiased: Use the unbiased variance within a token, as the released code does. LayerNorm uses the biased
            variance.
        only_var: Blend the variance only. The mean is LayerNorm's, and there is no parameter ``mean_norm_weight``.
        init: ``'local'``, as in the paper: the kernel of each group is centred on one neighbour, and the gates are 0.5.
            ``'layernorm'``: the gates are near 1, and ``head_rms`` and ``unbiased`` are False whatever their arguments.
            So a network trained with LayerNorm almost keeps its outputs when its norms become DTN.

    Shapes:
        ``weight``, ``bias``: ``(C,)``. ``mean_norm_weight``, ``var_norm_weight``: ``(G,)``, logits of the gates.
        ``pos_proj.weight``: ``(G, 3)``, ``pos_proj.bias``: ``(G,)``.

    Raises:
        ValueError: An argument has an unsuitable value.

    Example:
        >>> norm = DTN(96, num_groups=3)
        >>> norm(torch.randn(2, 8 * 12, 96), hw_shape=(8, 12)).shape
        torch.Size([2, 96, 96])
        >>> norm(torch.randn(2, 8, 12, 96)).shape
        torch.Size([2, 8, 12, 96])
    """

    decisive = ("eps", "head_rms", "unbiased")

    def __init__(
        self,
        num_features: int,
        num_groups: int = 1,
        eps: float = 1e-5,
        *,
        head_rms: bool = True,
        unbiased: bool = True,
        only_var: bool = False,
        init: Init = "local",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_groups(num_features, num_groups)
        if init not in get_args(Init):
            raise InputError(f"expected init to be one of {get_args(Init)}, got {init!r}")
        if init == "layernorm":
            head_rms = unbiased = False
        if unbiased and num_features == 1:
            raise InputError("expected num_features > 1 for an unbiased variance, got 1: pass unbiased=False")
        super().__init__(num_features, eps, device=device, dtype=dtype)
        self.num_groups = num_groups
        self.head_rms = head_rms
        self.unbiased = unbiased
        self.only_var = only_var
        self.init = init
        self.mean_norm_weight: nn.Parameter | None
        if only_var:
            self.register_parameter("mean_norm_weight", None)
        else:
            self.mean_norm_weight = nn.Parameter(torch.empty(num_groups, device=device, dtype=dtype))
        self.var_norm_weight = nn.Parameter(torch.empty(num_groups, device=device, dtype=dtype))
        self.pos_proj = PositionProjection(num_groups, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every parameter to its initial value, which depends on ``init``."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        gate = LAYERNORM_GATE if self.init == "layernorm" else 0.0
        for parameter in (self.mean_norm_weight, self.var_norm_weight):
            if parameter is not None:
                nn.init.constant_(parameter, gate)
        self.pos_proj.reset_parameters()

    def forward(self, x: Tensor, hw_shape: tuple[int, int] | None = None, mask: Tensor | None = None) -> Tensor:
        """Normalise the tokens.

        Args:
            x: ``(B, N, C)`` tokens of an ``H x W`` grid in row-major order, or ``(B, H, W, C)``. The first ``N - H *
                W`` tokens of a ``(B, N, C)`` input are prefix tokens (class, distillation, register). They are
                normalised by LayerNorm's statistics, and do not enter the statistics of other tokens.
            hw_shape: ``(H, W)``; ``(1, L)`` for a sequence. Required for ``(B, N, C)`` unless ``N`` is a square.
            mask: Booleans, True for valid tokens: ``(B, N)``, ``(B, H * W)`` or ``(B, H, W)``. Invalid tokens do not
                enter the statistics of their neighbours, and are normalised by LayerNorm's statistics.

        Returns:
            Tensor of the shape of ``x``. The dtype is that of ``x``, or float32 under CUDA autocast, as for LayerNorm.

        Raises:
            ValueError: A shape does not fit, or the mask leaves an image without a valid token. Compiled and traced
                graphs do not check the mask; their output for such an image is finite.
        """
        height, width, num_prefix = self._grid(x, hw_shape)
        out_dtype = output_dtype(x)
        dtype = compute_dtype(x)
        with without_autocast(x):
            if num_prefix and mask is None and self._has_kernels(x):
                return operator.dynamic_token_norm(x, self._tensors(dtype), self._options(), out_dtype, (height, width))
            tokens, prefix = x, None
            if num_prefix:
                # The gradient of one split is one copy. The gradient of two slices would be a sum of two tensors padded
                # with zeros.
                prefix, tokens = x.split_with_sizes([num_prefix, height * width], dim=1)
                prefix = self._normalize_prefix(prefix.to(dtype)).to(out_dtype)
            grid = tokens.reshape(x.shape[0], height, width, self.num_features)
            grid_mask = self._grid_mask(mask, x.shape[0], height, width, num_prefix)
            out = self._normalize_grid(grid, grid_mask, dtype, out_dtype).reshape(tokens.shape)
            return out if prefix is None else torch.cat([prefix, out], dim=1)

    def _normalize_grid(
        self, grid: Tensor, mask: Tensor | None, compute_dtype: torch.dtype, out_dtype: torch.dtype
    ) -> Tensor:
        """Normalise tokens ``(B, H, W, C)`` of any floating-point dtype; the mask is ``(B, H, W)`` or None."""
        parameters, options = self._tensors(compute_dtype), self._options()
        if self._has_kernels(grid):
            if mask is None:
                hw_shape = (grid.shape[1], grid.shape[2])
                return operator.dynamic_token_norm(grid, parameters, options, out_dtype, hw_shape)
            runs = valid_runs(mask)
            if runs is not None:
                return normalize_runs(grid, runs, parameters, options, out_dtype)
        return dynamic_token_norm(grid.to(compute_dtype), parameters, options, mask).to(out_dtype)

    def _has_kernels(self, x: Tensor) -> bool:
        return operator.is_usable(x, self.num_groups, self.head_rms, self.only_var)

    def _tensors(self, dtype: torch.dtype) -> DTNParameters:
        mean_gate = None if self.mean_norm_weight is None else self.mean_norm_weight.to(dtype)
        var_gate, weight, bias = (tensor.to(dtype) for tensor in (self.var_norm_weight, self.weight, self.bias))
        return DTNParameters(self.pos_proj().to(dtype), mean_gate, var_gate, weight, bias)

    def _options(self) -> DTNOptions:
        return DTNOptions(self.eps, self.head_rms, self.unbiased)

    def _normalize_prefix(self, prefix: Tensor) -> Tensor:
        """Normalise prefix tokens ``(B, N', C)``, which lie outside the grid."""
        weight, bias = self.weight.to(prefix.dtype), self.bias.to(prefix.dtype)
        return layer_norm(prefix, weight, bias, self.num_groups, self._options())

    def _grid(self, x: Tensor, hw_shape: tuple[int, int] | None) -> tuple[int, int, int]:
        """Check the shapes, and return height, width and the number of prefix tokens."""
        grid = check_tokens(x, self.num_features, hw_shape)
        if x.dim() == 4:
            return x.shape[1], x.shape[2], 0
        num_tokens = x.shape[1]
        if grid is None:
            side = math.isqrt(num_tokens)
            if side * side != num_tokens:
                raise InputError(
                    f"expected hw_shape=(H, W) for {num_tokens} tokens, which form no square grid, got None: pass the "
                    f"grid, (1, {num_tokens}) for a sequence"
                )
            grid = (side, side)
        height, width = grid
        return height, width, num_tokens - height * width

    def _grid_mask(self, mask: Tensor | None, batch: int, height: int, width: int, num_prefix: int) -> Tensor | None:
        """Check the mask, and return it as ``(B, H, W)``."""
        if mask is None:
            return None
        size = height * width
        mask = check_mask(mask, batch, size + num_prefix, (height, width))[:, -size:]
        check_rows(mask)
        return mask.reshape(batch, height, width)

    def extra_repr(self) -> str:
        """Return the arguments, for ``print``."""
        return (
            f"{self.num_features}, num_groups={self.num_groups}, eps={self.eps}, head_rms={self.head_rms}, "
            f"unbiased={self.unbiased}, only_var={self.only_var}"
        )
