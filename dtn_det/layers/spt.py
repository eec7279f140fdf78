"""Shifted Patch Tokenization: patches of an image and of copies that are shifted diagonally by half a patch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtn_det.errors import InputError
from dtn_det.layers.options import CarriesOptions
from dtn_det.layers.token_norm import check_eps


def shift_patches(x: Tensor, shift: int) -> Tensor:
    """Concatenate a map with four copies that are shifted diagonally (Lee et al., arXiv:2112.13492, Sec. 3.2).

    Args:
        x: ``(B, C, H, W)``.
        shift: Number of pixels by which each copy is shifted in both directions; the border is filled with zeros.

    Returns:
        ``(B, 5 * C, H, W)``: the map itself, then its copies shifted down and right, down and left, up and right, up
        and left. The first copy thus shows at each pixel what lies above and to the left of it.

    Raises:
        ValueError: ``x`` does not have 4 dimensions, or ``shift`` is below 1.

    Example:
        >>> x = torch.arange(1.0, 5.0).reshape(1, 1, 2, 2)
        >>> shift_patches(x, 1)[0, 1:].flatten(1).tolist()
        [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 2.0, 0.0], [0.0, 3.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0]]
    """
    _check_map(x)
    _check_shift(shift)
    return torch.cat(_shifted(x, shift), dim=1)


def shifted_patches(x: Tensor, patch_size: int, shift: int) -> Tensor:
    """Cut a map and its shifted copies into patches, in one pass over memory.

    Args:
        x: ``(B, C, H, W)``. If a side is not a multiple of the patch, it is padded with zeros on the right or at the
            bottom.
        patch_size: Side ``p`` of a patch.
        shift: Number of pixels by which the copies are shifted, see :func:`shift_patches`.

    Returns:
        ``(B, H / p, W / p, p * p * 5 * C)``, with sides rounded up and features in the order (row, column, copy,
        channel).

    Raises:
        ValueError: As for :func:`shift_patches`.
    """
    _check_map(x)
    _check_shift(shift)
    views = _shifted(x, shift, patch_size)
    batch, channels, height, width = views[0].shape
    split = (batch, channels, height // patch_size, patch_size, width // patch_size, patch_size)
    # Each view becomes (B, h, w, p, p, C), and the five views are stacked before C.
    views = [view.view(split).permute(0, 2, 4, 3, 5, 1) for view in views]
    return torch.stack(views, dim=-2).flatten(3)


class ShiftedPatchTokenization(CarriesOptions):
    """Shifted Patch Tokenization: makes a token of each patch of a map and of the map's four shifted copies.

    It computes ``Linear(LayerNorm(patches of shift_patches(x)))`` (Lee et al., "Vision Transformer for Small-Size
    Datasets", arXiv:2112.13492, Eqs. 7 to 9). It can replace a patch embedding, Swin's patch merging or PiT's pooling.
    Sides that are not a multiple of the patch are first padded with zeros on the right or at the bottom. The state dict
    stores ``shift``, see :class:`dtn_det.layers.options.CarriesOptions`.

    Args:
        in_channels: Number of channels ``C`` of the map.
        dim: Number of channels of the resulting tokens.
        patch_size: Side of a patch, in pixels of an image or in tokens of a map of tokens.
        shift: Number of pixels by which the copies are shifted; by default half a patch, rounded down.
        prefix: Whether prefix tokens (class, distillation) may stand before the tokens of the map. They have a separate
            projection, ``prefix_linear``.
        eps: Added to the variance in ``patch_norm``; not negative.

    Shapes:
        ``patch_norm``: ``5 * C * patch_size ** 2`` features in the order (row, column, copy, channel).

    Raises:
        ValueError: A size is not positive, ``eps`` is negative, or ``shift`` is below 1. For patches of one pixel,
            ``shift`` must be given, because its default is 0.

    Example:
        >>> tokens, hw_shape = ShiftedPatchTokenization(3, 96, patch_size=4)(torch.randn(2, 3, 64, 50))
        >>> tokens.shape, hw_shape
        (torch.Size([2, 208, 96]), (16, 13))
        >>> tokens, hw_shape = ShiftedPatchTokenization(96, 192, patch_size=2)(tokens, hw_shape)
        >>> tokens.shape, hw_shape
        (torch.Size([2, 56, 192]), (8, 7))
    """

    decisive = ("shift",)

    def __init__(
        self,
        in_channels: int,
        dim: int,
        patch_size: int,
        *,
        shift: int | None = None,
        prefix: bool = False,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in {"in_channels": in_channels, "dim": dim, "patch_size": patch_size}.items():
            if not isinstance(size, int) or size < 1:
                raise InputError(f"expected {name} to be a positive integer, got {size!r}")
        check_eps(eps)
        self.shift = patch_size // 2 if shift is None else shift
        _check_shift(self.shift)
        self.in_channels = in_channels
        self.embed_dims = dim
        self.patch_size = patch_size
        features = 5 * in_channels * patch_size**2
        self.patch_norm = nn.LayerNorm(features, eps=eps, device=device, dtype=dtype)
        self.patch_linear = nn.Linear(features, dim, device=device, dtype=dtype)
        self.prefix_linear = nn.Linear(in_channels, dim, device=device, dtype=dtype) if prefix else None

    def init_weights(self) -> None:
        """Initialise weights from a truncated normal distribution of deviation 0.02, and biases as zero."""
        self.patch_norm.reset_parameters()
        for linear in (self.patch_linear, self.prefix_linear):
            if linear is not None:
                nn.init.trunc_normal_(linear.weight, std=0.02)
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, hw_shape: tuple[int, int] | None = None) -> tuple[Tensor, tuple[int, int]]:
        """Turn a map into tokens.

        Args:
            x: ``(B, C, H, W)``, or ``(B, N, C)`` tokens of an ``H x W`` grid in row-major order, after
                ``N - H * W`` prefix tokens.
            hw_shape: ``(H, W)`` of the tokens; None for an input ``(B, C, H, W)``.

        Returns:
            ``(B, N - H * W + H' * W', dim)``, prefix tokens first, and the grid ``(H', W')``, which is ``(H, W)``
            divided by the patch size, rounded up.

        Raises:
            ValueError: A shape does not fit.
        """
        prefix = None
        if hw_shape is not None:
            x, prefix = self._split(x, hw_shape)
        if x.dim() == 4 and x.shape[1] != self.in_channels:
            raise InputError(f"expected {self.in_channels} channels, got x of shape {tuple(x.shape)}")
        patches = shifted_patches(x, self.patch_size, self.shift)
        height, width = patches.shape[1:3]
        tokens = self.patch_linear(self.patch_norm(patches.flatten(1, 2)))
        if prefix is not None and self.prefix_linear is not None:
            tokens = torch.cat([self.prefix_linear(prefix), tokens], dim=1)
        return tokens, (height, width)

    def _split(self, x: Tensor, hw_shape: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Split tokens into a map ``(B, C, H, W)`` and the prefix tokens, or None."""
        height, width = hw_shape
        num_prefix = x.shape[1] - height * width if x.dim() == 3 else -1
        if num_prefix < 0 or (num_prefix > 0 and self.prefix_linear is None):
            allowed = "at least" if self.prefix_linear is not None else "exactly"
            raise InputError(
                f"expected (B, N, C) with {allowed} {height * width} tokens for hw_shape={tuple(hw_shape)}, got x of "
                f"shape {tuple(x.shape)}: pass the grid of the tokens, and prefix=True for tokens before them"
            )
        grid = x[:, num_prefix:].transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)
        return grid, x[:, :num_prefix] if num_prefix else None

    def extra_repr(self) -> str:
        """Return the arguments, for ``print``."""
        return f"{self.in_channels}, {self.embed_dims}, patch_size={self.patch_size}, shift={self.shift}"


def _shifted(x: Tensor, shift: int, multiple: int = 1) -> list[Tensor]:
    """Return the map, padded to multiples of ``multiple``, and its four shifted copies, as views of one tensor."""
    extra_height, extra_width = -x.shape[2] % multiple, -x.shape[3] % multiple
    height, width = x.shape[2] + extra_height, x.shape[3] + extra_width
    padded = F.pad(x, (shift, shift + extra_width, shift, shift + extra_height))
    offsets = ((shift, shift), (0, 0), (0, 2 * shift), (2 * shift, 0), (2 * shift, 2 * shift))
    return [padded[:, :, top : top + height, left : left + width] for top, left in offsets]


def _check_map(x: Tensor) -> None:
    if x.dim() != 4:
        raise InputError(f"expected x of shape (B, C, H, W), got {tuple(x.shape)}: pass hw_shape with (B, N, C) tokens")


def _check_shift(shift: int) -> None:
    if not isinstance(shift, int) or shift < 1:
        raise InputError(f"expected a shift of at least 1 pixel, got {shift!r}: use patches of 2 pixels or more")
