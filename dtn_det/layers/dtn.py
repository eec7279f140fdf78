"""The Dynamic Token Normalization layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dtn_det.layers import operators
from dtn_det.layers.axis_kernels import PositionProjection
from dtn_det.layers.separable import dynamic_token_norm, group_rms_normalize, intra_token_moments, normalize

Init = Literal["local", "layernorm"]

# Logit of both gates under init='layernorm': sigmoid(6) = 0.9975 of LayerNorm's statistics.
LAYERNORM_GATE = 6.0


class DTN(nn.LayerNorm):
    """Dynamic Token Normalization: LayerNorm that also looks at neighbouring tokens.

    Each group of channels blends the statistics of the token itself (LayerNorm's) with those of the tokens around it,
    weighted by a learned positional kernel; two gates per group decide how much of each (Shao et al., "Dynamic Token
    Normalization Improves Vision Transformers", arXiv:2112.02624, Eqs. 4 to 7). The kernel factorises by axis, so the
    layer is exact at any grid size, and the grid may change from call to call.

    Being an ``nn.LayerNorm``, it loads LayerNorm's ``weight`` and ``bias``, and optimizer rules for norm layers
    (no weight decay on ``weight``, ``bias`` and gates) apply to it.

    Args:
        num_features: Channels ``C`` of a token.
        num_groups: Groups ``G`` of channels (the paper's heads); must divide ``num_features``.
        eps: Added to every variance and mean square.
        head_rms: Divide each group by its root mean square first, as the released code does.
        unbiased: Unbiased variance within a token, as the released code does; LayerNorm's own is biased.
        only_var: Blend the variance only; the mean is LayerNorm's and ``mean_norm_weight`` does not exist.
        init: ``'local'``: kernels that look at one neighbour each, gates at 0.5 (the paper's). ``'layernorm'``: gates
            near 1, and ``head_rms`` and ``unbiased`` off whatever the arguments say, so that a network trained with
            LayerNorm keeps its outputs when its norms become DTN.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        ``weight``, ``bias``: ``(C,)``. ``mean_norm_weight``, ``var_norm_weight``: ``(G,)``, logits of the gates.
        ``pos_proj.weight``: ``(G, 3)``, ``pos_proj.bias``: ``(G,)``.

    Raises:
        ValueError: An argument that does not fit.

    Example:
        >>> norm = DTN(96, num_groups=3)
        >>> norm(torch.randn(2, 8 * 12, 96), hw_shape=(8, 12)).shape
        torch.Size([2, 96, 96])
        >>> norm(torch.randn(2, 8, 12, 96)).shape
        torch.Size([2, 8, 12, 96])
    """

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
        if not isinstance(num_features, int) or not isinstance(num_groups, int):
            raise ValueError(
                f"expected num_features and num_groups to be integers, got {num_features!r} and {num_groups!r}"
            )
        if num_groups < 1 or num_features < 1 or num_features % num_groups:
            raise ValueError(
                f"expected num_groups to be a positive divisor of num_features, got num_features={num_features} and "
                f"num_groups={num_groups}: choose a divisor of {num_features}"
            )
        if init not in get_args(Init):
            raise ValueError(f"expected init to be one of {get_args(Init)}, got {init!r}")
        if init == "layernorm":
            head_rms = unbiased = False
        if unbiased and num_features == 1:
            raise ValueError("expected num_features > 1 for an unbiased variance, got 1: pass unbiased=False")
        # nn.LayerNorm's constructor calls reset_parameters(), which needs the attributes below.
        nn.Module.__init__(self)
        self.num_features = num_features
        self.num_groups = num_groups
        self.head_rms = head_rms
        self.unbiased = unbiased
        self.only_var = only_var
        self.init = init
        self.normalized_shape = (num_features,)
        self.eps = eps
        self.elementwise_affine = True
        self.weight = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype))
        self.mean_norm_weight: nn.Parameter | None
        if only_var:
            self.register_parameter("mean_norm_weight", None)
        else:
            self.mean_norm_weight = nn.Parameter(torch.empty(num_groups, device=device, dtype=dtype))
        self.var_norm_weight = nn.Parameter(torch.empty(num_groups, device=device, dtype=dtype))
        self.pos_proj = PositionProjection(num_groups, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every parameter to its start, as named by ``init``."""
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
            x: ``(B, N, C)`` tokens of an ``H x W`` grid in row-major order, or ``(B, H, W, C)``. The first
                ``N - H * W`` tokens of a ``(B, N, C)`` input are prefix tokens (class, distillation, register): they
                get LayerNorm statistics and take no part in those of the others.
            hw_shape: ``(H, W)``; ``(1, L)`` for a sequence. Needed for ``(B, N, C)`` unless ``N`` is a square.
            mask: Booleans, True for valid tokens: ``(B, N)``, ``(B, H * W)`` or ``(B, H, W)``. The others take no part
                in the statistics of their neighbours and get LayerNorm statistics themselves.

        Returns:
            Tensor of the shape of ``x``. The dtype is that of ``x``, or float32 under CUDA autocast, as for LayerNorm.

        Raises:
            ValueError: A shape that does not fit, or a mask that leaves an image without a valid token.
        """
        height, width, num_prefix = self._grid(x, hw_shape)
        out_dtype = _output_dtype(x)
        compute_dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        # Autocast knows no meta tensors, which need none.
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            tokens, prefix = x, None
            if num_prefix:
                prefix = self._normalize_prefix(x[:, :num_prefix].to(compute_dtype)).to(out_dtype)
                tokens = x[:, num_prefix:]
            grid = tokens.reshape(x.shape[0], height, width, self.num_features)
            grid_mask = self._grid_mask(mask, x.shape[0], height, width, num_prefix)
            out = self._normalize_grid(grid, grid_mask, compute_dtype, out_dtype).reshape(tokens.shape)
            return out if prefix is None else torch.cat([prefix, out], dim=1)

    def _normalize_grid(
        self, grid: Tensor, mask: Tensor | None, compute_dtype: torch.dtype, out_dtype: torch.dtype
    ) -> Tensor:
        """``(B, H, W, C)`` of any dtype, and a mask ``(B, H, W)`` or None."""
        coefficients = self.pos_proj().to(compute_dtype)
        mean_gate = None if self.mean_norm_weight is None else self.mean_norm_weight.to(compute_dtype)
        parameters = (self.var_norm_weight, self.weight, self.bias)
        var_gate, weight, bias = (parameter.to(compute_dtype) for parameter in parameters)
        tensors = (coefficients, mean_gate, var_gate, weight, bias)
        if operators.is_usable(grid, self.num_groups, self.head_rms, self.only_var, mask):
            return operators.dynamic_token_norm(
                grid, *tensors, eps=self.eps, head_rms=self.head_rms, unbiased=self.unbiased, out_dtype=out_dtype
            )
        out = dynamic_token_norm(
            grid.to(compute_dtype),
            *tensors,
            eps=self.eps,
            head_rms=self.head_rms,
            unbiased=self.unbiased,
            mask=mask,
        )
        return out.to(out_dtype)

    def _normalize_prefix(self, prefix: Tensor) -> Tensor:
        """``(B, N', C)``: LayerNorm statistics, no grid."""
        if self.head_rms:
            prefix = group_rms_normalize(prefix, self.num_groups, self.eps)
        moments = intra_token_moments(prefix, self.unbiased)
        return normalize(prefix, moments, self.weight.to(prefix.dtype), self.bias.to(prefix.dtype), self.eps)

    def _grid(self, x: Tensor, hw_shape: tuple[int, int] | None) -> tuple[int, int, int]:
        """Check the shapes and return ``(height, width, number of prefix tokens)``."""
        if x.dim() not in (3, 4) or x.shape[-1] != self.num_features:
            raise ValueError(
                f"expected x of shape (B, N, {self.num_features}) or (B, H, W, {self.num_features}), "
                f"got {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise ValueError(f"expected x of a floating-point dtype, got {x.dtype}: call x.float()")
        if hw_shape is not None and not _is_grid(hw_shape):
            raise ValueError(f"expected hw_shape to be two positive integers (H, W), got {hw_shape!r}")
        if x.dim() == 4:
            height, width = x.shape[1:3]
            if hw_shape is not None and tuple(hw_shape) != (height, width):
                raise ValueError(
                    f"expected hw_shape to be {(height, width)} for x of shape {tuple(x.shape)}, got {tuple(hw_shape)}"
                )
            return height, width, 0
        num_tokens = x.shape[1]
        if hw_shape is None:
            side = math.isqrt(num_tokens)
            if side * side != num_tokens:
                raise ValueError(
                    f"expected hw_shape=(H, W) for {num_tokens} tokens, which form no square grid, got None: pass the "
                    f"grid, (1, {num_tokens}) for a sequence"
                )
            return side, side, 0
        height, width = hw_shape
        if height * width > num_tokens:
            raise ValueError(
                f"expected hw_shape with H * W of at most {num_tokens}, the number of tokens of x, got "
                f"{tuple(hw_shape)} with H * W = {height * width}"
            )
        return height, width, num_tokens - height * width

    def _grid_mask(self, mask: Tensor | None, batch: int, height: int, width: int, num_prefix: int) -> Tensor | None:
        """Check the mask and bring it to ``(B, H, W)``."""
        if mask is None:
            return None
        size = height * width
        if mask.dtype != torch.bool:
            raise ValueError(f"expected mask of dtype torch.bool, True for valid tokens, got {mask.dtype}")
        if tuple(mask.shape) == (batch, size + num_prefix):
            mask = mask[:, num_prefix:]
        elif tuple(mask.shape) not in ((batch, size), (batch, height, width)):
            with_prefix = f"{(batch, size + num_prefix)}, " if num_prefix else ""
            raise ValueError(
                f"expected mask of shape {with_prefix}{(batch, size)} or {(batch, height, width)}, "
                f"got {tuple(mask.shape)}"
            )
        mask = mask.reshape(batch, height, width)
        # Reading a value would break a traced graph, so a graph does without the check.
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if not traced:
            empty = (~mask.flatten(1).any(dim=1)).nonzero().flatten().tolist()
            if empty:
                raise ValueError(f"expected at least one valid token in each row of mask, got none in rows {empty}")
        return mask

    def extra_repr(self) -> str:
        """The arguments, for ``print``."""
        return (
            f"{self.num_features}, num_groups={self.num_groups}, eps={self.eps}, head_rms={self.head_rms}, "
            f"unbiased={self.unbiased}, only_var={self.only_var}"
        )


def _is_grid(hw_shape: object) -> bool:
    if not isinstance(hw_shape, Sequence | Tensor) or len(hw_shape) != 2:
        return False
    return not any(isinstance(side, float) or side < 1 for side in hw_shape)


def _output_dtype(x: Tensor) -> torch.dtype:
    """The dtype that ``F.layer_norm`` would return."""
    if x.device.type == "cuda" and torch.is_autocast_enabled("cuda") and x.dtype != torch.float64:
        return torch.float32
    return x.dtype
