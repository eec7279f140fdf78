"""Locality Self-Attention in timm's attention modules (Lee et al., arXiv:2112.13492)."""

from __future__ import annotations

import torch
from timm.models.cait import ClassAttn, TalkingHeadAttn
from timm.models.swin_transformer import WindowAttention
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from dtn_det.conversion.localize import become
from dtn_det.conversion.replace import Replace
from dtn_det.layers import locality_attention
from dtn_det.layers.lsa import diagonal_mask
from dtn_det.layers.lsa_windows import WindowLocality


class LSAAttention(Attention):  # type: ignore[misc]
    """The attention of ViT, DeiT, DeiT III and PiT: a scale per head, no token attends to itself."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """``(B, N, C)`` tokens to the same shape; ``attn_mask`` as in scaled dot-product attention."""
        length = x.shape[1]
        if is_causal:
            causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
            attn_mask = _both(causal, attn_mask)
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        dropout_p = self.attn_drop.p if self.training else 0.0
        out = locality_attention(self.q_norm(q), self.k_norm(k), v, self.scale, attn_mask, dropout_p=dropout_p)
        out = self.norm(out.transpose(1, 2).flatten(2))
        gate = getattr(self, "gate", None)  # of newer releases
        if gate is not None:
            out = out * gate(x).sigmoid()
        projected: Tensor = self.proj_drop(self.proj(out))
        return projected


class LSAWindowAttention(WindowLocality, WindowAttention):  # type: ignore[misc]
    """Swin's window attention as Locality Self-Attention."""


class LSATalkingHeadAttn(TalkingHeadAttn):  # type: ignore[misc]
    """CaiT's attention with talking heads: a scale per head, no token attends to itself.

    The diagonal is masked after the heads have mixed their scores, right before the softmax. The released code masks
    before they do, and with so small a number that it has no effect.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` tokens to the same shape."""
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q * self.scale[:, None, None]).to(k.dtype) @ k.transpose(-2, -1)
        # (B, N, N, heads) where heads mix
        scores = self.proj_l(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        weights = (scores + diagonal_mask(x.shape[1], scores.dtype, scores.device)).softmax(dim=-1)
        weights = self.attn_drop(self.proj_w(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        out: Tensor = self.proj_drop(self.proj((weights @ v).transpose(1, 2).flatten(2)))
        return out


class LSAClassAttn(ClassAttn):  # type: ignore[misc]
    """CaiT's class attention: a scale per head. The class token still sees itself, as in the paper's code."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, C)`` tokens, the class token first, to ``(B, 1, C)``."""
        q, k, v = (
            linear(t).reshape(*t.shape[:2], self.num_heads, -1).transpose(1, 2)
            for linear, t in ((self.q, x[:, :1]), (self.k, x), (self.v, x))
        )
        dropout_p = self.attn_drop.p if self.training else 0.0
        out = locality_attention(q, k, v, self.scale, mask_diagonal=False, dropout_p=dropout_p)
        projected: Tensor = self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
        return projected


def _both(allowed: Tensor, mask: Tensor | None) -> Tensor:
    """A mask of booleans and another, which may be additive."""
    if mask is None:
        return allowed
    return mask & allowed if mask.dtype == torch.bool else mask.masked_fill(~allowed, -torch.inf)


HOSTS: dict[type[nn.Module], Replace] = {
    Attention: become(LSAAttention),
    WindowAttention: become(LSAWindowAttention),
    TalkingHeadAttn: become(LSATalkingHeadAttn),
    ClassAttn: become(LSAClassAttn, like="q"),
}
