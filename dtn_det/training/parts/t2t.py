"""T2T-ViT for small images."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.backbones.t2t_vit import T2T_ViT, T2TModule, T2TTransformerLayer, get_sinusoid_encoding
from torch import nn

from dtn_det.errors import InputError

_KERNEL = 9
"""Pixels of a soft split, 3 x 3."""


class SmallT2TViT(T2T_ViT):  # type: ignore[misc]
    """T2T-ViT whose soft splits all are 3 x 3 with stride 2, for images of 32 or 64 pixels.

    Of an image of 32 pixels the published T2T-ViT (Yuan et al., arXiv:2101.11986), whose first split has stride 4,
    leaves 2 x 2 tokens. Two splits of stride 2 leave 8 x 8, and so do three of an image of 64 pixels; this is the form
    that Lee et al. (arXiv:2112.13492) train on small data. Each split but the last is followed by a transformer layer.

    Args:
        img_size: Side of the images in pixels; others are taken too, the position embedding is resized to them.
        num_splits: 2 or 3.
        token_dims: Channels between the splits.
        embed_dims: Channels of the tokens.
        **kwargs: Arguments of mmpretrain's ``T2T_ViT``, except ``t2t_cfg``.

    Raises:
        ValueError: ``num_splits`` is neither 2 nor 3.
    """

    tokens_to_token: Any
    pos_embed: Any

    def __init__(
        self, *, img_size: int = 32, num_splits: int = 2, token_dims: int = 64, embed_dims: int = 256, **kwargs: Any
    ) -> None:
        if num_splits not in (2, 3):
            raise InputError(f"expected num_splits to be 2 or 3, got {num_splits}: take 2 for images of 32 pixels")
        super().__init__(img_size=img_size, embed_dims=embed_dims, t2t_cfg={"token_dims": token_dims}, **kwargs)
        _split_finely(self.tokens_to_token, kwargs.get("in_channels", 3), token_dims, num_splits)
        side = -(-img_size // 2**num_splits)
        self.patch_resolution = [side, side]
        self.tokens_to_token.init_out_size = [side, side]
        self.tokens_to_token.num_patches = side**2
        self.pos_embed = get_sinusoid_encoding(side**2 + self.num_extra_tokens, embed_dims)


def _split_finely(module: T2TModule, in_channels: int, token_dims: int, num_splits: int) -> None:
    """Change the splits in place: the module stays a ``T2TModule``, which Shifted Patch Tokenization looks for."""
    layer = {"embed_dims": token_dims, "num_heads": 1, "feedforward_channels": token_dims}
    module.soft_split0 = _soft_split()
    module.attention1 = T2TTransformerLayer(input_dims=in_channels * _KERNEL, **layer)
    if num_splits == 2:
        module.attention2 = nn.Identity()
        module.soft_split2 = nn.Unfold(1)


def _soft_split() -> nn.Unfold:
    return nn.Unfold(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
