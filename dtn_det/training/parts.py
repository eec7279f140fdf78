"""Parts of classifiers that mmpretrain lacks. This module is imported when a config builds one of these parts."""

from __future__ import annotations

from typing import Any

from mmpretrain.engine.hooks import EMAHook
from mmpretrain.models.backbones.t2t_vit import T2T_ViT, T2TModule, T2TTransformerLayer, get_sinusoid_encoding
from torch import Tensor, nn

from dtn_det.errors import InputError
from dtn_det.training.averages import outer_names

_KERNEL = 9
"""Number of pixels in the 3 x 3 window of a soft split."""


class SmallT2TViT(T2T_ViT):  # type: ignore[misc]
    """T2T-ViT with soft splits of 3 x 3 and stride 2 only, for images of 32 or 64 pixels.

    The first split of the published T2T-ViT (Yuan et al., arXiv:2101.11986) has stride 4, which would leave only 2 x 2
    tokens of an image of 32 pixels. Here two splits leave 8 x 8 tokens of such an image, and three splits leave 8 x 8
    of an image of 64 pixels. Lee et al. (arXiv:2112.13492) train this form on small data sets. A transformer layer
    follows each split but the last.

    Args:
        img_size: Side of the images in pixels. The position embedding is resized for images of other sizes.
        num_splits: Number of soft splits, 2 or 3.
        token_dims: Number of channels between the splits.
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
    """Replace the splits of a ``T2TModule`` in place: Shifted Patch Tokenization requires that the class stays."""
    layer = {"embed_dims": token_dims, "num_heads": 1, "feedforward_channels": token_dims}
    module.soft_split0 = nn.Unfold(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    module.attention1 = T2TTransformerLayer(input_dims=in_channels * _KERNEL, **layer)
    if num_splits == 2:
        module.attention2 = nn.Identity()
        module.soft_split2 = nn.Unfold(1)


class NormPooling(nn.Module):
    """Apply LayerNorm to each token of the last map, then average the tokens.

    This LayerNorm is the last norm of a PVT classifier. MMDetection's PVT lacks it, because detectors use the maps
    without it.

    Args:
        eps: Added to the variance of a token.
    """

    def __init__(self, in_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels, eps=eps)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Pool the last of the maps ``(B, C_i, H_i, W_i)`` to ``(B, C)``."""
        return (self.norm(maps[-1].flatten(2).transpose(1, 2)).mean(dim=1),)


class ClassifierEMAHook(EMAHook):  # type: ignore[misc]
    """mmpretrain's ``EMAHook`` with support for saving a ``TimmClassifier``.

    That classifier omits the prefix ``model.`` from the names of its weights, but the names in the average have it.
    This hook saves both without the prefix. Loading adds ``model.`` again.

    Arguments and errors are the same as for ``mmpretrain.engine.EMAHook``.
    """

    def _swap_ema_state_dict(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema_state_dict"] = outer_names(checkpoint["ema_state_dict"], checkpoint["state_dict"])
        super()._swap_ema_state_dict(checkpoint)
