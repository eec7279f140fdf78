"""The base class of all token norms, and checks of the arguments of norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from dtn_det.errors import InputError
from dtn_det.layers.options import CarriesOptions


class TokenNorm(CarriesOptions, nn.LayerNorm):
    """A norm of tokens that takes the grid as an argument: ``norm(x, hw_shape=None, mask=None)``.

    Models pass the grid if ``isinstance(norm, TokenNorm)``. Because the class is a subclass of ``nn.LayerNorm``,
    optimizer rules for norm layers (no weight decay) apply to its parameters, and
    ``SyncBatchNorm.convert_sync_batchnorm`` does not convert it. SyncBatchNorm does not support tokens.

    The state dict stores the options that change the output but cannot be inferred from the weights, see
    :class:`dtn_det.layers.options.CarriesOptions`.

    Args:
        num_features: Channels ``C`` of a token.
        eps: Added to variances and mean squares; not negative.

    Attributes:
        has_weight: Whether norms of the class have a ``weight`` of shape ``(C,)``, initially 1.
        has_bias: Whether norms of the class have a ``bias`` of shape ``(C,)``, initially 0.

    Raises:
        ValueError: ``num_features`` is not a positive integer, or ``eps`` is negative or not finite.
    """

    class_key: ClassVar[str] = "norm"
    decisive: ClassVar[tuple[str, ...]] = ("eps",)
    has_weight: ClassVar[bool] = True
    has_bias: ClassVar[bool] = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(num_features, int) or num_features < 1:
            raise InputError(f"expected num_features to be a positive integer, got {num_features!r}")
        check_eps(eps)
        # nn.LayerNorm's constructor calls reset_parameters(), for which a subclass may not be ready.
        nn.Module.__init__(self)
        self.num_features = num_features
        self.normalized_shape = (num_features,)
        self.eps = eps
        self.elementwise_affine = self.has_weight
        weight = torch.ones(num_features, device=device, dtype=dtype)
        self.register_parameter("weight", nn.Parameter(weight) if self.has_weight else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros_like(weight)) if self.has_bias else None)

    @property
    def _is_hf_initialized(self) -> bool:
        """Whether transformers has initialised the parameters of this module that the checkpoint lacks."""
        return bool(self.__dict__.get("_is_hf_initialized", False))

    @_is_hf_initialized.setter
    def _is_hf_initialized(self, done: bool) -> None:
        # If a checkpoint lacks parameters, from_pretrained leaves their memory uninitialised, and models then
        # initialise the parameters of LayerNorm only. Release 4 of transformers sets this attribute on modules before
        # loading. Release 5 sets it after loading, and also on the loaded tensors.
        self.__dict__["_is_hf_initialized"] = done
        if done:
            self._reset_what_is_not_loaded()

    @torch.no_grad()
    def _reset_what_is_not_loaded(self) -> None:
        tensors = (*self.parameters(), *self.buffers())
        loaded = [(one, one.clone()) for one in tensors if getattr(one, "_is_hf_initialized", False)]
        self.reset_parameters()
        for tensor, value in loaded:
            tensor.copy_(value)

    def forward(self, x: Tensor, hw_shape: tuple[int, int] | None = None, mask: Tensor | None = None) -> Tensor:
        """Normalise the tokens.

        Args:
            x: ``(B, H, W, C)``; or ``(B, N, C)``, tokens of an ``H x W`` grid in row-major order, preceded by ``N - H *
                W`` prefix tokens (class, distillation, register).
            hw_shape: ``(H, W)``.
            mask: Booleans, True for valid tokens: ``(B, N)``, ``(B, H * W)`` or ``(B, H, W)``. Invalid tokens do not
                enter statistics over tokens. Each image needs a valid token. Under ``torch.compile`` and in traced
                graphs this is not checked: the output for an image without a valid token is finite, and other images
                are not affected.

        Returns:
            Tensor of the shape of ``x``. The dtype is that of ``x``, or float32 under CUDA autocast, as for LayerNorm.

        Raises:
            ValueError: A shape or dtype does not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward: override it")


def check_groups(num_features: int, num_groups: int) -> None:
    """Check that the number of groups divides the number of channels.

    Raises:
        ValueError: A number is not an integer, or ``num_groups`` does not divide ``num_features``.
    """
    if not isinstance(num_features, int) or not isinstance(num_groups, int):
        raise InputError(
            f"expected num_features and num_groups to be integers, got {num_features!r} and {num_groups!r}"
        )
    if num_groups < 1 or num_features < 1 or num_features % num_groups:
        raise InputError(
            f"expected num_groups to be a positive divisor of num_features, got num_features={num_features} and "
            f"num_groups={num_groups}: choose a divisor of {num_features}"
        )


def check_eps(eps: float) -> None:
    """Check the number that is added to variances.

    Raises:
        ValueError: ``eps`` is not a finite number, or is negative. 0 is allowed, because a LayerNorm may have
            ``eps=0``, and a norm that replaces it uses the same value.
    """
    if not isinstance(eps, int | float) or not 0 <= eps < math.inf:
        raise InputError(f"expected eps to be a number from 0, got {eps!r}: take a small one, such as 1e-5")


def check_tokens(x: Tensor, num_features: int, hw_shape: tuple[int, int] | None) -> tuple[int, int] | None:
    """Check tokens and their grid.

    Args:
        x: ``(B, N, C)`` or ``(B, H, W, C)``.
        num_features: Number of channels ``C``.
        hw_shape: ``(H, W)`` with ``H * W <= N``, or None.

    Returns:
        ``(H, W)``; None if ``x`` is ``(B, N, C)`` and ``hw_shape`` is None.

    Raises:
        ValueError: A shape or dtype does not fit.
    """
    if x.dim() not in (3, 4) or x.shape[-1] != num_features:
        raise InputError(
            f"expected x of shape (B, N, {num_features}) or (B, H, W, {num_features}), got {tuple(x.shape)}"
        )
    if not x.is_floating_point():
        raise InputError(f"expected x of a floating-point dtype, got {x.dtype}: call x.float()")
    if hw_shape is not None and not _is_grid(hw_shape):
        raise InputError(f"expected hw_shape to be two positive integers (H, W), got {hw_shape!r}")
    if x.dim() == 4:
        height, width = x.shape[1:3]
        if hw_shape is not None and tuple(hw_shape) != (height, width):
            raise InputError(
                f"expected hw_shape to be {(height, width)} for x of shape {tuple(x.shape)}, got {tuple(hw_shape)}"
            )
        return height, width
    if hw_shape is None:
        return None
    height, width = hw_shape
    if height * width > x.shape[1]:
        raise InputError(
            f"expected hw_shape with H * W of at most {x.shape[1]}, the number of tokens of x, got "
            f"{tuple(hw_shape)} with H * W = {height * width}"
        )
    return height, width


def check_mask(mask: Tensor, batch: int, num_tokens: int, grid: tuple[int, int] | None) -> Tensor:
    """Check a mask and flatten it.

    Args:
        mask: Booleans ``(B, N)``. With a grid also ``(B, H * W)`` or ``(B, H, W)``, without prefix tokens.
        grid: ``(H, W)`` or None.

    Returns:
        ``(B, N)`` or ``(B, H * W)``.

    Raises:
        ValueError: The shape or dtype of the mask does not fit.
    """
    if mask.dtype != torch.bool:
        raise InputError(f"expected mask of dtype torch.bool, True for valid tokens, got {mask.dtype}")
    shapes: list[tuple[int, ...]] = [(batch, num_tokens)]
    if grid is not None:
        if grid[0] * grid[1] != num_tokens:
            shapes.append((batch, grid[0] * grid[1]))
        shapes.append((batch, *grid))
    if tuple(mask.shape) not in shapes:
        *others, last = map(str, shapes)
        expected = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"expected mask of shape {expected}, got {tuple(mask.shape)}")
    return mask.flatten(1)


def check_rows(mask: Tensor) -> None:
    """Check that a mask ``(B, N)`` has at least one valid token for each image.

    Compiled and traced graphs skip the check; their output for a row without a valid token is finite.

    Raises:
        ValueError: A row has no valid token. The message lists these rows.
    """
    # A traced graph cannot depend on the values of a tensor.
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if traced or mask.is_meta:
        return
    empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise InputError(f"expected at least one valid token in each row of mask, got none in rows {empty}")


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which statistics are computed: float64 for float64 tokens, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def output_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that ``F.layer_norm`` returns for ``x``."""
    if x.device.type == "cuda" and torch.is_autocast_enabled("cuda") and x.dtype != torch.float64:
        return torch.float32
    return x.dtype


def without_autocast(x: Tensor) -> torch.autocast:
    """Return a context manager that turns off autocast for the device of ``x``; meta tensors count as on the CPU."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


def _is_grid(hw_shape: object) -> bool:
    if not isinstance(hw_shape, Sequence | Tensor) or len(hw_shape) != 2:
        return False
    return not any(isinstance(side, float) or side < 1 for side in hw_shape)
