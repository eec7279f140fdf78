"""Locality Self-Attention in mmpretrain's attention modules (Lee et al., arXiv:2112.13492)."""

from __future__ import annotations

from mmpretrain.models.utils.attention import MultiheadAttention, WindowMSA
from torch import Tensor, nn

from dtn_det.conversion.localize import become
from dtn_det.conversion.replace import Replace
from dtn_det.layers import locality_attention
from dtn_det.layers.lsa_windows import WindowLocality


class LSAMultiheadAttention(MultiheadAttention):  # type: ignore[misc]
    """The attention of ViT, DeiT and T2T-ViT: a scale per head, no token attends to itself."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, input_dims)`` tokens to ``(B, N, embed_dims)``."""
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, self.head_dims).permute(2, 0, 3, 1, 4)
        dropout_p = self.attn_drop if self.training else 0.0
        out = locality_attention(q, k, v, self.scale, dropout_p=dropout_p)
        out = self.out_drop(self.gamma1(self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))))
        # There is one head where the input has another width.
        projected: Tensor = v.squeeze(1) + out if self.v_shortcut else out
        return projected


class LSAWindowMSA(WindowLocality, WindowMSA):  # type: ignore[misc]
    """Swin's window attention as Locality Self-Attention."""


HOSTS: dict[type[nn.Module], Replace] = {
    MultiheadAttention: become(LSAMultiheadAttention, start=lambda module: module.head_dims**-0.5),
    WindowMSA: become(LSAWindowMSA),
}
