"""Locality Self-Attention in place of the attention of MMDetection's backbones."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.models.backbones.pvt import SpatialReductionAttention
from mmdet.models.backbones.swin import WindowMSA
from mmdet.models.layers.transformer import nchw_to_nlc, nlc_to_nchw
from torch import Tensor, nn

from dtn_det.conversion.replace import Replace
from dtn_det.layers import locality_attention
from dtn_det.layers.lsa import head_scale
from dtn_det.layers.lsa_windows import WindowLocality


class LSAWindowMSA(WindowLocality, WindowMSA):  # type: ignore[misc]
    """Swin's window attention as Locality Self-Attention."""


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
    attention.scale = head_scale(attention.num_heads, value, like).requires_grad_(like.requires_grad)


def _localize_at(model: nn.Module, name: str) -> None:
    localize(model.get_submodule(name))


HOSTS: dict[type[nn.Module], Replace] = {WindowMSA: _localize_at, SpatialReductionAttention: _localize_at}
