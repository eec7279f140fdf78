"""Shifted Patch Tokenization and Locality Self-Attention in models of mmpretrain (Lee et al., arXiv:2112.13492)."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.backbones.t2t_vit import T2TModule
from mmpretrain.models.utils.attention import MultiheadAttention, WindowMSA
from mmpretrain.models.utils.embed import PatchMerging
from torch import Tensor, nn

from dtn_det.conversion.hosts.mmcv import put_tokenization
from dtn_det.conversion.spt_lsa import Hosts, become
from dtn_det.errors import InputError
from dtn_det.layers import locality_attention, shift_patches
from dtn_det.layers.lsa import WindowLocality

_COPIES = 5


class ShiftedT2TModule(T2TModule):  # type: ignore[misc]
    """Tokens-to-token module that takes the image and its copies shifted by a pixel, as in arXiv:2112.13492."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map images ``(B, C, H, W)`` to tokens and their grid."""
        return super().forward(shift_patches(x, 1))


def _shift_image(model: nn.Module, name: str) -> None:
    module: Any = model.get_submodule(name)
    first = module.attention1
    norm, qkv = first.ln1, first.attn.qkv
    if type(norm) is not nn.LayerNorm:
        raise InputError(
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


class LSAMultiheadAttention(MultiheadAttention):  # type: ignore[misc]
    """The attention of ViT, DeiT and T2T-ViT, changed to Locality Self-Attention."""

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, N, input_dims)`` to ``(B, N, embed_dims)``."""
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, self.head_dims).permute(2, 0, 3, 1, 4)
        dropout_p = self.attn_drop if self.training else 0.0
        out = locality_attention(q, k, v, self.scale, dropout_p=dropout_p)
        out = self.out_drop(self.gamma1(self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))))
        # This shortcut exists only with one head, where the width of the input differs from that of the output.
        return v.squeeze(1) + out if self.v_shortcut else out


class LSAPretrainWindowMSA(WindowLocality, WindowMSA):  # type: ignore[misc]
    """Swin's window attention, changed to Locality Self-Attention."""


ATTENTION: Hosts = {
    MultiheadAttention: become(LSAMultiheadAttention, start=lambda module: module.head_dims**-0.5),
    WindowMSA: become(LSAPretrainWindowMSA),
}
TOKENIZATION: Hosts = {T2TModule: _shift_image, PatchMerging: put_tokenization}
