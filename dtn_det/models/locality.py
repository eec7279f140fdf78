"""Shifted Patch Tokenization and Locality Self-Attention in place of the parts of MMDetection's backbones."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.models.backbones.pvt import SpatialReductionAttention
from mmdet.models.backbones.swin import WindowMSA
from mmdet.models.layers import PatchEmbed, PatchMerging
from mmdet.models.layers.transformer import nchw_to_nlc, nlc_to_nchw
from torch import Tensor, nn

from dtn_det.layers import ShiftedPatchTokenization, locality_attention
from dtn_det.layers.lsa import head_scale, window_locality_attention


class LSAWindowMSA(WindowMSA):  # type: ignore[misc]
    """Swin's window attention with a learned scale per head and without the tokens' attention to themselves.

    Lee et al., arXiv:2112.13492: the scores get the scale, the position bias, the shift mask and the mask of the
    diagonal, in this order.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B * P, N, C)`` tokens of windows to the same shape; ``mask`` is ``(P, N, N)``, added to the scores."""
        count, length, channels = x.shape
        depth = channels // self.num_heads
        q, k, v = self.qkv(x).reshape(count, length, 3, self.num_heads, depth).permute(2, 0, 3, 1, 4)
        table = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = table.view(length, length, -1).permute(2, 0, 1)
        dropout_p = self.attn_drop.p if self.training else 0.0
        out = window_locality_attention(q, k, v, self.scale, bias, mask, dropout_p=dropout_p)
        projected: Tensor = self.proj_drop(self.proj(out.transpose(1, 2).reshape(x.shape)))
        return projected


class LSAReductionAttention(SpatialReductionAttention):  # type: ignore[misc]
    """PVT's attention with a learned scale per head, and no attention of tokens to themselves where that is defined.

    Keys and values of most stages are of a smaller grid than the queries, so that no key is the query's own token;
    the diagonal is masked where ``sr_ratio`` is 1, which is the last stage as published. The paper has no PVT: this
    is an extension of it.
    """

    def forward(self, x: Tensor, hw_shape: tuple[int, int], identity: Tensor | None = None) -> Tensor:
        """``(B, H * W, C)`` tokens of the grid ``hw_shape`` to the same shape, added to ``identity``, by default x."""
        source = x
        if self.sr_ratio > 1:
            source = self.norm(nchw_to_nlc(self.sr(nlc_to_nchw(x, hw_shape))))
        inner: nn.MultiheadAttention = self.attn
        q_weight, kv_weight = inner.in_proj_weight.tensor_split([inner.embed_dim])
        q_bias, kv_bias = (
            (None, None) if inner.in_proj_bias is None else inner.in_proj_bias.tensor_split([inner.embed_dim])
        )
        q = self._split(F.linear(x, q_weight, q_bias))
        k, v = (self._split(t) for t in F.linear(source, kv_weight, kv_bias).chunk(2, dim=2))
        dropout_p = inner.dropout if self.training else 0.0
        out = locality_attention(q, k, v, self.scale, mask_diagonal=self.sr_ratio == 1, dropout_p=dropout_p)
        out = inner.out_proj(out.transpose(1, 2).flatten(2))
        added: Tensor = (x if identity is None else identity) + self.dropout_layer(self.proj_drop(out))
        return added

    def _split(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` to ``(B, heads, N, C / heads)``."""
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


def localize(attention: WindowMSA | SpatialReductionAttention) -> None:
    """Turn an attention module into Locality Self-Attention in place; weights stay, scales start at their old value.

    Args:
        attention: Of MMDetection's Swin or PVT.
    """
    if isinstance(attention, WindowMSA):
        value, like = attention.scale, attention.qkv.weight
        attention.__class__ = LSAWindowMSA
    else:
        value, like = attention.attn.head_dim**-0.5, attention.attn.in_proj_weight
        attention.__class__ = LSAReductionAttention
    attention.scale = head_scale(attention.num_heads, value, like)


def shifted_patches(part: PatchEmbed | PatchMerging) -> ShiftedPatchTokenization:
    """What takes the place of a patch embedding, with its norm, or of a patch merging.

    Args:
        part: Of MMDetection's Swin or PVT.

    Raises:
        ValueError: Patches that overlap, leave gaps or are not square.
    """
    merging = isinstance(part, PatchMerging)
    layer = part.sampler if merging else part.projection
    (height, width), (stride, _), (padding, _) = (_pair(p) for p in (layer.kernel_size, layer.stride, layer.padding))
    if height != width or height != stride or padding:
        raise ValueError(
            f"expected square patches side by side for spt=True, got patches of {height} x {width} with stride "
            f"{stride} and padding {padding}: use lsa=True alone, as with PVTv2, whose patches overlap"
        )
    out_channels = part.out_channels if merging else part.embed_dims
    eps = part.norm.eps if isinstance(part.norm, nn.LayerNorm) else 1e-5
    in_channels = part.in_channels if merging else layer.in_channels
    return ShiftedPatchTokenization(in_channels, out_channels, height, eps=eps)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
