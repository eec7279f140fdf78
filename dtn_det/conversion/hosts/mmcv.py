"""Shifted Patch Tokenization in patch embeddings and patch mergings of mmcv.

Classes of mmpretrain and MMDetection have the same attributes, so their hosts use the functions of this module too.
"""

from __future__ import annotations

from typing import Any

from mmcv.cnn.bricks.transformer import PatchEmbed, PatchMerging
from mmengine.utils import to_2tuple
from torch import nn

from dtn_det.conversion.spt_lsa import Hosts, put
from dtn_det.errors import InputError
from dtn_det.layers import ShiftedPatchTokenization


def tokenization_of(part: Any) -> ShiftedPatchTokenization:
    """Make the layer that replaces a patch embedding or patch merging together with its norm.

    Args:
        part: ``PatchEmbed`` or ``PatchMerging``. Both return tokens and their grid, as the new layer does.

    Returns:
        The new layer, with the device and dtype of the layer that it replaces.

    Raises:
        InputError: The patches overlap, leave gaps or are not square, or the norm follows the merging, as in Swin v2.
    """
    merging = hasattr(part, "sampler")
    layer = part.sampler if merging else part.projection
    patch, stride, padding, dilation = (
        to_2tuple(value) for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    if patch[0] != patch[1] or patch != stride or padding != (0, 0) or dilation != (1, 1):
        raise InputError(
            f"expected square patches side by side for Shifted Patch Tokenization, got patches of {patch[0]} x "
            f"{patch[1]} with stride {stride[0]}, padding {padding[0]} and dilation {dilation[0]}: patches that "
            "overlap, as those of PVTv2, see their neighbours as they are; use Locality Self-Attention alone"
        )
    if getattr(part, "use_post_norm", False):
        raise InputError(
            "expected a patch merging that normalises its input, got one with use_post_norm=True, as in Swin v2: use "
            "Swin"
        )
    like = part.reduction.weight if merging else layer.weight
    tokenization = ShiftedPatchTokenization(
        part.in_channels if merging else layer.in_channels,
        part.out_channels if merging else part.embed_dims,
        patch[0],
        eps=part.norm.eps if isinstance(part.norm, nn.LayerNorm) else 1e-5,
        device=like.device,
        dtype=like.dtype,
    )
    tokenization.init_weights()
    return tokenization.train(part.training).requires_grad_(like.requires_grad)


def put_tokenization(model: nn.Module, name: str) -> None:
    """Replace the patch embedding or patch merging at a path of a model, see :func:`tokenization_of`."""
    put(model, name, tokenization_of(model.get_submodule(name)))


ATTENTION: Hosts = {}
TOKENIZATION: Hosts = {PatchEmbed: put_tokenization, PatchMerging: put_tokenization}
