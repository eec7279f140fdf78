"""Shifted Patch Tokenization and Locality Self-Attention in models of timm (Lee et al., arXiv:2112.13492)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Format, PatchEmbed, nchw_to, to_2tuple
from timm.models.cait import ClassAttn, TalkingHeadAttn
from timm.models.pit import ConvEmbedding, Pooling, PoolingVisionTransformer
from timm.models.swin_transformer import PatchMerging, WindowAttention
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from dtn_det.conversion.spt_lsa import Hosts, become
from dtn_det.errors import InputError
from dtn_det.layers import ShiftedPatchTokenization, locality_attention
from dtn_det.layers.lsa import WindowLocality, diagonal_mask
from dtn_det.layers.spt import shifted_patches


class _Shifted(nn.Module):
    """Base of the classes below, with the norm and linear layer of :class:`dtn_det.layers.ShiftedPatchTokenization`."""

    patch_norm: nn.LayerNorm
    patch_linear: nn.Linear
    patch_map: nn.Identity
    spt_patch: int

    def _map(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, dim, H', W')`` in the memory format channels last."""
        tokens = self.patch_linear(self.patch_norm(shifted_patches(x, self.spt_patch, self.spt_patch // 2)))
        # Hooks on `patch_map`, an identity, receive the map, as hooks on the replaced convolution did.
        return self.patch_map(tokens.permute(0, 3, 1, 2))


class SPTPatchEmbed(_Shifted, PatchEmbed):  # type: ignore[misc]
    """The patch embedding of ViT, DeiT, DeiT III, CaiT and Swin as Shifted Patch Tokenization."""

    img_size: Any
    grid_size: Any

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to tokens in the layout that the model expects."""
        size = (x.shape[2], x.shape[3])
        if self.img_size is not None and self.strict_img_size:
            if size != tuple(self.img_size):
                raise InputError(
                    f"expected images of {self.img_size[0]} x {self.img_size[1]} pixels, got {size[0]} x {size[1]}: "
                    "build the model with img_size= or dynamic_img_size=True"
                )
            # Pixels behind the last whole patch are cut off, because they have no position embedding.
            height, width = (side * self.spt_patch for side in self.grid_size)
            x = x[:, :, :height, :width]
        return nchw_to(self._map(x), Format.NLC if self.flatten else self.output_fmt)

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Change the image size. The patch size cannot change."""
        if patch_size is not None and to_2tuple(patch_size) != self.patch_size:
            raise InputError(
                f"expected to keep patches of {self.spt_patch} pixels, got patch_size={patch_size!r}: change the patch "
                "size before convert_tokenization"
            )
        super().set_input_size(img_size=img_size)


class SPTPatchMerging(_Shifted, PatchMerging):  # type: ignore[misc]
    """Swin's patch merging as Shifted Patch Tokenization, shifted by one token."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, ceil(H / 2), ceil(W / 2), out_dim)``."""
        return self._map(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SPTConvEmbedding(_Shifted, ConvEmbedding):  # type: ignore[misc]
    """PiT's patch embedding as Shifted Patch Tokenization. The side of a patch is the stride of PiT's convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(B, C, H, W)`` to ``(B, dim, H', W')``."""
        return self._map(x)


class SPTPooling(_Shifted, Pooling):  # type: ignore[misc]
    """PiT's pooling as Shifted Patch Tokenization; the class token keeps its projection."""

    fc: nn.Linear

    def forward(self, x: Tensor, cls_token: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(B, C, H, W)`` and class tokens ``(B, n, C)`` to ``(B, dim, H / 2, W / 2)`` and ``(B, n, dim)``."""
        return self._map(x), self.fc(cls_token)


def _become(module: Any, kind: type[nn.Module], like: Tensor, widths: tuple[int, int], patch: int, eps: float) -> None:
    """Turn a module into an instance of `kind`, a subclass of its class, in place.

    Args:
        like: A weight of the module. The new weights take its device, dtype and `requires_grad`.
        patch: Side of a patch in pixels of the map.
    """
    spt = ShiftedPatchTokenization(*widths, patch, eps=eps, device=like.device, dtype=like.dtype)
    spt.init_weights()
    spt.train(module.training).requires_grad_(like.requires_grad)
    module.__class__ = kind
    module.spt_patch = patch
    module.patch_norm, module.patch_linear, module.patch_map = spt.patch_norm, spt.patch_linear, nn.Identity()


def _patch_embed(model: nn.Module, name: str) -> None:
    embed: Any = model.get_submodule(name)
    height, width = embed.patch_size
    if height != width:
        raise InputError(f"expected square patches for Shifted Patch Tokenization at {name!r}, got {height} x {width}")
    conv = embed.proj
    _become(embed, SPTPatchEmbed, conv.weight, (conv.in_channels, conv.out_channels), height, _eps(embed.norm))
    del embed.proj
    embed.norm = nn.Identity()
    if embed.img_size is None or not embed.strict_img_size:
        embed.dynamic_img_pad = True


def _patch_merging(model: nn.Module, name: str) -> None:
    merging: Any = model.get_submodule(name)
    weight = merging.reduction.weight
    _become(merging, SPTPatchMerging, weight, (merging.dim, merging.out_dim), 2, _eps(merging.norm))
    del merging.reduction, merging.norm


def _conv_embedding(model: nn.Module, name: str) -> None:
    embed: Any = model.get_submodule(name)
    conv = embed.conv
    stride = conv.stride[0]
    _become(embed, SPTConvEmbedding, conv.weight, (conv.in_channels, conv.out_channels), stride, _eps(None))
    del embed.conv
    embed.height, embed.width = embed.grid_size = tuple(-(-side // stride) for side in embed.img_size)
    embed.patch_size = (stride, stride)
    host = model.get_submodule(name.rpartition(".")[0])
    if isinstance(host, PoolingVisionTransformer) and host.pos_embed.shape[2:] != embed.grid_size:
        old = host.pos_embed
        resized = F.interpolate(old.detach(), size=embed.grid_size, mode="bicubic", align_corners=False)
        host.pos_embed = nn.Parameter(resized, requires_grad=old.requires_grad)


def _pooling(model: nn.Module, name: str) -> None:
    pooling: Any = model.get_submodule(name)
    conv = pooling.conv
    _become(pooling, SPTPooling, conv.weight, (conv.in_channels, conv.out_channels), conv.stride[0], _eps(None))
    del pooling.conv


def _eps(norm: nn.Module | None) -> float:
    return norm.eps if isinstance(norm, nn.LayerNorm) else 1e-5


class LSAAttention(Attention):  # type: ignore[misc]
    """The attention of ViT, DeiT, DeiT III and PiT as Locality Self-Attention."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attend among tokens ``(B, N, C)``; ``attn_mask`` is as in scaled dot-product attention."""
        length = x.shape[1]
        if is_causal:
            causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
            attn_mask = _both(causal, attn_mask)
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        dropout_p = self.attn_drop.p if self.training else 0.0
        out = locality_attention(self.q_norm(q), self.k_norm(k), v, self.scale, attn_mask, dropout_p=dropout_p)
        out = self.norm(out.transpose(1, 2).flatten(2))
        gate = getattr(self, "gate", None)  # only in newer releases of timm
        if gate is not None:
            out = out * gate(x).sigmoid()
        return self.proj_drop(self.proj(out))


class LSAWindowAttention(WindowLocality, WindowAttention):  # type: ignore[misc]
    """Swin's window attention as Locality Self-Attention."""


class LSATalkingHeadAttn(TalkingHeadAttn):  # type: ignore[misc]
    """CaiT's attention with talking heads as Locality Self-Attention.

    The diagonal is masked after the heads have mixed their scores, right before the softmax. The released code masks it
    before the mixing, with a number so small that the mask has no effect.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Attend among tokens ``(B, N, C)``."""
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q * self.scale[:, None, None]).to(k.dtype) @ k.transpose(-2, -1)
        # The heads are mixed in the layout (B, N, N, heads).
        scores = self.proj_l(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        weights = (scores + diagonal_mask(x.shape[1], scores.dtype, scores.device)).softmax(dim=-1)
        weights = self.attn_drop(self.proj_w(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).flatten(2)))


class LSAClassAttn(ClassAttn):  # type: ignore[misc]
    """CaiT's class attention, with a learned scale per head. As in the released code, the class token sees itself."""

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, N, C)``, the class token first, to ``(B, 1, C)``."""
        q, k, v = (
            linear(t).reshape(*t.shape[:2], self.num_heads, -1).transpose(1, 2)
            for linear, t in ((self.q, x[:, :1]), (self.k, x), (self.v, x))
        )
        dropout_p = self.attn_drop.p if self.training else 0.0
        out = locality_attention(q, k, v, self.scale, mask_diagonal=False, dropout_p=dropout_p)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))


def _both(allowed: Tensor, mask: Tensor | None) -> Tensor:
    """Combine a boolean mask with another mask, which may be boolean or additive."""
    if mask is None:
        return allowed
    return mask & allowed if mask.dtype == torch.bool else mask.masked_fill(~allowed, -torch.inf)


ATTENTION: Hosts = {
    Attention: become(LSAAttention),
    WindowAttention: become(LSAWindowAttention),
    TalkingHeadAttn: become(LSATalkingHeadAttn),
    ClassAttn: become(LSAClassAttn, like="q.weight"),
}
TOKENIZATION: Hosts = {
    PatchEmbed: _patch_embed,
    PatchMerging: _patch_merging,
    ConvEmbedding: _conv_embedding,
    Pooling: _pooling,
}
