"""Locality Self-Attention within Swin's windows."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dtn_det.layers.lsa import locality_attention


def window_locality_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    bias: Tensor,
    mask: Tensor | None = None,
    *,
    dropout_p: float = 0.0,
) -> Tensor:
    """Swin's attention within windows, with the diagonal masked after the position bias and the shift mask.

    Args:
        q: ``(B * P, heads, N, D)``: ``P`` windows of each image.
        k: As ``q``.
        v: As ``q``.
        scale: ``(heads,)``, see :func:`locality_attention`.
        bias: ``(heads, N, N)``, of the relative positions.
        mask: ``(P, N, N)``, added to the scores of each window, or None.
        dropout_p: Probability with which an attention weight is dropped.

    Returns:
        ``(B * P, heads, N, D)``.
    """
    if mask is None:
        return locality_attention(q, k, v, scale, bias.unsqueeze(0), dropout_p=dropout_p)
    # Windows beside heads, so that the masks are not repeated for each image.
    windows, (heads, length, depth) = len(mask), q.shape[1:]
    q, k, v = (t.reshape(len(t) // windows, windows * heads, length, depth) for t in (q, k, v))
    bias = (bias + mask.unsqueeze(1)).flatten(0, 1).unsqueeze(0)
    out = locality_attention(q, k, v, scale.repeat(windows), bias, dropout_p=dropout_p)
    return out.reshape(-1, heads, length, depth)


class WindowLocality(nn.Module):
    """The forward pass of Swin's window attention as Locality Self-Attention, whatever library its parts come from.

    The scores get the learned scale of their head, the bias of the relative positions, the shift mask and the mask of
    the diagonal, in this order (Lee et al., arXiv:2112.13492). A class inherits from this one and from the window
    attention of timm, mmpretrain or MMDetection.
    """

    num_heads: int
    qkv: nn.Linear
    scale: nn.Parameter
    relative_position_bias_table: nn.Parameter
    relative_position_index: Tensor
    attn_drop: nn.Dropout
    proj: nn.Linear
    proj_drop: nn.Dropout

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        """Attend within windows.

        Args:
            x: ``(B * P, N, C)``, ``P`` windows of each image.
            mask: ``(P, N, N)``, added to the scores, or None.

        Returns:
            ``(B * P, N, C)``.
        """
        count, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(count, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        table = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = table.view(length, length, -1).permute(2, 0, 1)
        dropout_p = self.attn_drop.p if self.training else 0.0
        out = window_locality_attention(q, k, v, self.scale, bias, mask, dropout_p=dropout_p)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
