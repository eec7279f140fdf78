"""Locality Self-Attention: each head has a learned temperature, and no token attends to itself."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtn_det.errors import InputError
from dtn_det.layers.options import CarriesOptions


def locality_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    mask_diagonal: bool = True,
    dropout_p: float = 0.0,
) -> Tensor:
    """Compute attention with a scale per head, with PyTorch's fused kernels (Lee et al., arXiv:2112.13492, Sec. 3.3).

    A token attends to itself only if there is no other token that it may attend to. So no output becomes NaN.

    Args:
        q: Queries ``(B, heads, N, D)``.
        k: Keys ``(B, heads, M, D)``.
        v: Values ``(B, heads, M, D)``.
        scale: ``(heads,)``, the factor of the scores ``q k^T``: the inverse of the paper's temperature.
        bias: Values to add to the scaled scores, or booleans that are True where a query may attend; broadcasts to
            ``(B, heads, N, M)``.
        mask_diagonal: Prevent each token from attending to itself; requires ``N = M``.
        dropout_p: Probability of dropping an attention weight.

    Returns:
        ``(B, heads, N, D)``, in the dtype of ``v``; under autocast, in the dtype of autocast.

    Raises:
        ValueError: ``mask_diagonal`` is set and the numbers of keys and queries differ, or the size of ``scale`` is not
            the number of heads.

    Example:
        >>> q = k = v = torch.eye(3)[None, None]
        >>> locality_attention(q, k, v, torch.ones(1))[0, 0]
        tensor([[0.0000, 0.5000, 0.5000],
                [0.5000, 0.0000, 0.5000],
                [0.5000, 0.5000, 0.0000]])
    """
    if scale.shape != q.shape[1:2]:
        raise InputError(f"expected scale of shape {tuple(q.shape[1:2])}, one per head, got {tuple(scale.shape)}")
    dtype = _compute_dtype(v)
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros_like(bias, dtype=dtype).masked_fill(~bias, -torch.inf)
    if bias is not None:
        bias = bias.to(dtype)
    if mask_diagonal:
        if q.shape[-2] != k.shape[-2]:
            raise InputError(
                f"expected as many keys as queries where the diagonal is masked, got {q.shape[-2]} queries and "
                f"{k.shape[-2]} keys: pass mask_diagonal=False"
            )
        diagonal = diagonal_mask(q.shape[-2], dtype, q.device)
        bias = diagonal if bias is None else bias + diagonal
    # Multiply in the dtype of the scale: float32, even if autocast has converted q to half precision.
    q = (q * scale[:, None, None]).to(dtype)
    return F.scaled_dot_product_attention(q, k.to(dtype), v.to(dtype), bias, dropout_p=dropout_p, scale=1.0)


def diagonal_mask(size: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Make an additive mask that prevents tokens from attending to themselves.

    The values are half the limit of the dtype, so that they remain finite when scores are added. The softmax of a
    masked score is exactly 0 if there are other tokens. For a single token it is 1 rather than NaN.

    Returns:
        ``(N, N)``: half the lowest finite number of the dtype on the diagonal, zero elsewhere.

    Example:
        >>> diagonal_mask(2, torch.float16)
        tensor([[-32752.,      0.],
                [     0., -32752.]], dtype=torch.float16)
    """
    return torch.full((size,), torch.finfo(dtype).min / 2, dtype=dtype, device=device).diag()


def head_scale(num_heads: int, value: float, like: Tensor) -> nn.Parameter:
    """Make a learnable scale for each head, ``(num_heads,)``, with the device and dtype of ``like``.

    All scales have the same initial value, which is ``dim_head ** -0.5`` in the paper.
    """
    return nn.Parameter(torch.full((num_heads,), value, device=like.device, dtype=like.dtype))


def _compute_dtype(v: Tensor) -> torch.dtype:
    """Return the dtype in which the kernel computes. Masks must not overflow in this dtype."""
    device = "cpu" if v.is_meta else v.device.type
    if v.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return v.dtype


class LocalitySelfAttention(CarriesOptions):
    """Multi-head self-attention with a learned scale per head, in which no token attends to itself.

    Lee et al., "Vision Transformer for Small-Size Datasets" (arXiv:2112.13492, Eqs. 10 to 12). The mask is made in each
    call and is not part of the state dict, so the number of tokens may change from call to call. The state dict stores
    ``mask_diagonal``, see :class:`dtn_det.layers.options.CarriesOptions`.

    Args:
        dim: Channels ``C`` of a token.
        dim_head: Number of channels of a head; ``dim / num_heads`` by default.
        qkv_bias: Whether the projections to queries, keys and values have a bias.
        mask_diagonal: See :func:`locality_attention`.
        attn_drop: Probability of dropping an attention weight, at least 0 and below 1.
        proj_drop: Probability of dropping an element of the output, at least 0 and below 1.

    ``scale``: ``(num_heads,)``, initially ``dim_head ** -0.5``.

    Raises:
        ValueError: The number of heads does not divide the channels, or a number is out of its range.

    Example:
        >>> LocalitySelfAttention(192, num_heads=12)(torch.randn(2, 65, 192)).shape
        torch.Size([2, 65, 192])
    """

    decisive = ("mask_diagonal",)

    def __init__(
        self,
        dim: int,
        num_heads: int,
        dim_head: int | None = None,
        *,
        qkv_bias: bool = False,
        mask_diagonal: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or (dim_head is None and dim % num_heads):
            raise InputError(
                f"expected num_heads to be a positive divisor of dim, got dim={dim} and num_heads={num_heads}: choose "
                f"a divisor, or pass dim_head"
            )
        if dim_head is not None and dim_head < 1:
            raise InputError(f"expected dim_head of at least 1, got {dim_head}: leave it out for dim / num_heads")
        for name, rate in {"attn_drop": attn_drop, "proj_drop": proj_drop}.items():
            if not 0 <= rate < 1:
                raise InputError(f"expected {name} from 0 to below 1, got {rate}: 0 drops nothing")
        dim_head = dim_head or dim // num_heads
        self.num_heads = num_heads
        self.dim_head = dim_head
        self.mask_diagonal = mask_diagonal
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 3 * num_heads * dim_head, bias=qkv_bias, device=device, dtype=dtype)
        self.scale = head_scale(num_heads, dim_head**-0.5, self.qkv.weight)
        self.proj = nn.Linear(num_heads * dim_head, dim, device=device, dtype=dtype)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Let tokens ``(B, N, C)`` attend to each other; ``bias`` is as in :func:`locality_attention`."""
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, self.dim_head).permute(2, 0, 3, 1, 4)
        dropout_p = self.attn_drop if self.training else 0.0
        out = locality_attention(q, k, v, self.scale, bias, mask_diagonal=self.mask_diagonal, dropout_p=dropout_p)
        out = self.proj(out.transpose(1, 2).flatten(2))
        return self.proj_drop(out)

    def extra_repr(self) -> str:
        """Return the arguments, for ``print``."""
        return f"num_heads={self.num_heads}, mask_diagonal={self.mask_diagonal}"


def window_locality_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, bias: Tensor, mask: Tensor | None = None, *, dropout_p: float = 0.0
) -> Tensor:
    """Compute Swin's window attention: add position bias and shift mask to the scores, then mask the diagonal.

    Args:
        q: Queries ``(B * P, heads, N, D)`` of ``P`` windows per image; keys, values and result have the same shape.
        scale: ``(heads,)``, see :func:`locality_attention`.
        bias: ``(heads, N, N)``, the relative position bias.
        mask: ``(P, N, N)``, added to the scores of each window; or None.
    """
    if mask is None:
        return locality_attention(q, k, v, scale, bias.unsqueeze(0), dropout_p=dropout_p)
    # Join windows and heads in one dimension, so that the masks need not be repeated for each image.
    windows, (heads, length, depth) = len(mask), q.shape[1:]
    q, k, v = (t.reshape(len(t) // windows, windows * heads, length, depth) for t in (q, k, v))
    bias = (bias + mask.unsqueeze(1)).flatten(0, 1).unsqueeze(0)
    out = locality_attention(q, k, v, scale.repeat(windows), bias, dropout_p=dropout_p)
    return out.reshape(-1, heads, length, depth)


class WindowLocality(nn.Module):
    """A mixin with the forward pass of Swin's window attention as Locality Self-Attention, for several libraries.

    Scores are multiplied by the learned scale of their head; then the relative position bias, the shift mask and the
    mask of the diagonal are added (Lee et al., arXiv:2112.13492). A subclass inherits from this class first, then from
    the window attention of timm, mmpretrain or MMDetection.
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
        """Let the tokens of each window attend to each other.

        Args:
            x: ``(B * P, N, C)``, with ``P`` windows per image. The result has the same shape.
            mask: ``(P, N, N)``, added to the scores; or None.
        """
        count, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(count, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        table = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = table.view(length, length, -1).permute(2, 0, 1)
        dropout_p = self.attn_drop.p if self.training else 0.0
        out = window_locality_attention(q, k, v, self.scale, bias, mask, dropout_p=dropout_p)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
