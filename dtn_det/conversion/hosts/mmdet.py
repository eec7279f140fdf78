"""Locality Self-Attention and Shifted Patch Tokenization in MMDetection's backbones (Lee et al., arXiv:2112.13492)."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.models.backbones.pvt import SpatialReductionAttention
from mmdet.models.backbones.swin import WindowMSA
from mmdet.models.layers import PatchEmbed, PatchMerging
from mmdet.models.layers.transformer import nchw_to_nlc, nlc_to_nchw
from torch import Tensor, nn

from dtn_det.conversion.hosts.mmcv import put_tokenization
from dtn_det.conversion.spt_lsa import Hosts, become
from dtn_det.layers import locality_attention
from dtn_det.layers.lsa import WindowLocality


class LSAWindowMSA(WindowLocality, WindowMSA):  # type: ignore[misc]
    """Swin's window attention as Locality Self-Attention."""


class LSAReductionAttention(SpatialReductionAttention):  # type: ignore[misc]
    """PVT's attention with a learned scale per head. Where keys are tokens, no token attends to itself.

    In most stages, keys and values come from a smaller grid than the queries, so no key is the query's own token. The
    diagonal is masked only where ``sr_ratio`` is 1, which is the last stage of the published models. The paper does not
    cover PVT: this is an extension.
    """

    def forward(self, x: Tensor, hw_shape: tuple[int, int], identity: Tensor | None = None) -> Tensor:
        """Attend among tokens ``(B, H * W, C)`` of the grid ``hw_shape``, and add ``identity``, by default ``x``."""
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
        return (x if identity is None else identity) + self.dropout_layer(self.proj_drop(out))

    def _split(self, x: Tensor) -> Tensor:
        """Split the channels of tokens ``(B, N, C)`` into heads: returns ``(B, heads, N, C / heads)``."""
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


ATTENTION: Hosts = {
    WindowMSA: become(LSAWindowMSA),
    SpatialReductionAttention: become(
        LSAReductionAttention, like="attn.in_proj_weight", start=lambda module: module.attn.head_dim**-0.5
    ),
}
TOKENIZATION: Hosts = {PatchEmbed: put_tokenization, PatchMerging: put_tokenization}


def localize(attention: WindowMSA | SpatialReductionAttention) -> None:
    """Turn an attention module of MMDetection's Swin or PVT into Locality Self-Attention, in place.

    The weights are kept, and the learned scales start at the module's former scale.
    """
    ATTENTION[type(attention)](attention, "")
