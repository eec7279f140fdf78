"""The shifted copies of the image for mmpretrain's T2T-ViT, and Shifted Patch Tokenization for its patch mergings."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.backbones.t2t_vit import T2TModule
from mmpretrain.models.utils.embed import PatchMerging
from torch import Tensor, nn

from dtn_det.conversion.hosts.openmmlab_patches import put_tokenization
from dtn_det.conversion.replace import Replace
from dtn_det.layers import shift_patches

_COPIES = 5


class ShiftedT2TModule(T2TModule):  # type: ignore[misc]
    """Tokens-to-token module on the image and its copies shifted by a pixel, as in the paper (arXiv:2112.13492)."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """``(B, C, H, W)`` images to tokens and their grid."""
        out: tuple[Tensor, tuple[int, int]] = super().forward(shift_patches(x, 1))
        return out


def _shift_image(model: nn.Module, name: str) -> None:
    module: Any = model.get_submodule(name)
    first = module.attention1
    norm, qkv = first.ln1, first.attn.qkv
    if type(norm) is not nn.LayerNorm:
        raise ValueError(
            f"expected a LayerNorm before the first attention of {name!r}, got {type(norm).__name__}: convert the "
            "tokenization before the norms"
        )
    kwargs = {"device": qkv.weight.device, "dtype": qkv.weight.dtype}
    first.ln1 = nn.LayerNorm(_COPIES * qkv.in_features, eps=norm.eps, **kwargs)
    first.attn.qkv = nn.Linear(_COPIES * qkv.in_features, qkv.out_features, bias=qkv.bias is not None, **kwargs)
    nn.init.trunc_normal_(first.attn.qkv.weight, std=0.02)
    if qkv.bias is not None:
        nn.init.zeros_(first.attn.qkv.bias)
    for layer in (first.ln1, first.attn.qkv):
        layer.train(module.training).requires_grad_(qkv.weight.requires_grad)
    first.attn.input_dims = _COPIES * qkv.in_features
    module.__class__ = ShiftedT2TModule


HOSTS: dict[type[nn.Module], Replace] = {T2TModule: _shift_image, PatchMerging: put_tokenization}
