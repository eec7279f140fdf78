"""Pyramid Vision Transformers with Dynamic Token Normalization, for MMDetection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from mmdet.models.backbones.pvt import (
    AbsolutePositionEmbedding,
    PVTEncoderLayer,
    PyramidVisionTransformer,
    PyramidVisionTransformerV2,
)
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from dtn_det.backbones.checkpoint import load_pretrained, pretrained_init_cfg
from dtn_det.backbones.stage_norms import apply_norm, block_norms, check_arguments, maybe_checkpoint, stage_groups
from dtn_det.conversion.hosts.mmcv import tokenization_of
from dtn_det.conversion.hosts.mmdet import localize
from dtn_det.errors import InputError

# DTN's authors use these numbers of groups for the widths 64, 128, 320 and 512. They differ from the numbers of heads,
# 1, 2, 5 and 8.
AUTHORS_GROUPS = (4, 4, 5, 8)


class DTNPVTEncoderLayer(PVTEncoderLayer):  # type: ignore[misc]
    """A PVT block that passes the grid of the tokens to its norms.

    Args:
        block: MMDetection's block. Its attention and feed-forward network become parts of the new block.
        norm1: Norm before the attention, DTN or LayerNorm.
        norm2: Norm before the feed-forward network.
        with_cp: Recompute the block in the backward pass instead of storing its activations.
    """

    def __init__(self, block: PVTEncoderLayer, norm1: nn.Module, norm2: nn.Module, with_cp: bool = False) -> None:
        BaseModule.__init__(self)
        self.with_cp = with_cp
        # Assign the submodules in the order of the parent class, so that parameters are in the same order as in
        # MMDetection.
        self.norm1 = norm1
        self.attn = block.attn
        self.norm2 = norm2
        self.ffn = block.ffn

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """Transform tokens ``(B, H * W, C)`` of the grid ``hw_shape``, without changing their shape."""

        def inner(x: Tensor) -> Tensor:
            x = self.attn(apply_norm(self.norm1, x, hw_shape), hw_shape, identity=x)
            return self.ffn(apply_norm(self.norm2, x, hw_shape), hw_shape, identity=x)

        return maybe_checkpoint(inner, x, self.with_cp)


class _DTNPyramid(PyramidVisionTransformer):  # type: ignore[misc]
    """The base of both versions of PVT; arguments as in :class:`DTNPyramidVisionTransformer`."""

    def __init__(
        self,
        *,
        dtn_cfg: Mapping[str, Any] | None = None,
        dtn_stages: Sequence[int] = (0, 1, 2),
        spt: bool = False,
        lsa: bool = False,
        with_cp: bool = False,
        frozen_stages: int = -1,
        embed_norm_eps: float | None = 1e-5,
        pretrained: str | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_arguments(type(self), kwargs)
        super().__init__(init_cfg=pretrained_init_cfg(init_cfg, pretrained), **kwargs)
        self.dtn_stages = tuple(dtn_stages)
        self.frozen_stages = frozen_stages
        widths = [patch_embed.embed_dims for patch_embed, _, _ in self.layers]
        groups = stage_groups(
            dtn_cfg, self.dtn_stages, widths=widths, num_heads=self.num_heads, default_groups=AUTHORS_GROUPS
        )
        if not -1 <= frozen_stages <= len(widths):
            raise InputError(f"expected frozen_stages from -1 to {len(widths)}, got {frozen_stages}")
        for index, (patch_embed, blocks, _) in enumerate(self.layers):
            set_eps(patch_embed.norm, embed_norm_eps)
            if spt:
                self.layers[index][0] = tokenization_of(patch_embed)
            for position, block in enumerate(blocks):
                if not isinstance(block, PVTEncoderLayer):  # PVT's position embedding, which is no block
                    continue
                if block.attn.sr_ratio > 1:
                    set_eps(block.attn.norm, embed_norm_eps)
                if lsa:
                    localize(block.attn)
                norm1, norm2 = block_norms(block, groups.get(index), dtn_cfg)
                blocks[position] = DTNPVTEncoderLayer(block, norm1, norm2, with_cp)
        self.min_size = minimum_size(self.strides, self.sr_ratios)
        self._freeze_stages()

    def _freeze_stages(self) -> None:
        """Freeze stages as Swin does: 0 freezes the first patch embedding, ``k`` also the first ``k`` stages."""
        frozen = list(self.layers[: max(self.frozen_stages, 0)])
        if self.frozen_stages == 0:
            frozen.append(self.layers[0][0])
        for module in frozen:
            module.eval().requires_grad_(False)

    def init_weights(self) -> None:
        """Load the checkpoint of ``init_cfg``, or initialise as MMDetection does; DTN keeps its own initialisation."""
        if self.init_cfg is None:
            super().init_weights()
        else:
            load_pretrained(self, self.init_cfg, "pvt", self._position_grids())

    def _position_grids(self) -> dict[str, tuple[int, int]]:
        return {
            f"{name}.pos_embed": (int(module.pos_shape[0]), int(module.pos_shape[1]))
            for name, module in self.named_modules()
            if isinstance(module, AbsolutePositionEmbedding)
        }

    def train(self, mode: bool = True) -> _DTNPyramid:
        """Set the mode and keep frozen stages in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of the stages in ``out_indices``.

        The result is a tuple, because mmpretrain's necks and heads do not accept the list that MMDetection's class
        returns.

        Args:
            x: Images ``(B, 3, H, W)``. Images with a side below ``min_size`` (32 pixels as published), for which the
                parent class fails, are first padded with zeros on the right and at the bottom.

        Returns:
            Maps ``(B, C_i, H_i, W_i)``.
        """
        height, width = x.shape[-2:]
        if min(height, width) < self.min_size:
            x = F.pad(x, (0, max(self.min_size - width, 0), 0, max(self.min_size - height, 0)))
        return tuple(super().forward(x))


def set_eps(norm: nn.Module, eps: float | None) -> None:
    """Set the ``eps`` of a LayerNorm; None leaves it unchanged."""
    if eps is not None and isinstance(norm, nn.LayerNorm):
        norm.eps = eps


def minimum_size(strides: Sequence[int], sr_ratios: Sequence[int]) -> int:
    """Return the smallest image side for which no map is smaller than the spatial reduction ratio of its stage.

    Returns:
        The side in pixels.

    Example:
        >>> minimum_size([4, 2, 2, 2], [8, 4, 2, 1])
        32
    """
    smallest = 1
    total = 1
    for stride, reduction in zip(strides, sr_ratios, strict=True):
        total *= stride
        smallest = max(smallest, total * reduction)
    return smallest


@MODELS.register_module()
class DTNPyramidVisionTransformer(_DTNPyramid):
    """Pyramid Vision Transformer whose block norms are DTN in the chosen stages.

    DTN replaces ``norm1`` and ``norm2`` of the blocks. The norms of patch embeddings and spatial reductions stay
    LayerNorm, as in the authors' code, and by default so do the block norms of stage 4. PVT: Wang et al.,
    arXiv:2102.12122; DTN: Shao et al., arXiv:2112.02624. ``with_cp`` and ``frozen_stages`` are additions to the parent
    class.

    Args:
        dtn_cfg: ``num_groups`` (an int, one int per stage, or ``'heads'``; by default the authors' ``(4, 4, 5, 8)``)
            and DTN's keyword arguments ``head_rms``, ``unbiased``, ``only_var``, ``init`` and ``eps`` (by default the
            one in ``norm_cfg``). To start from LayerNorm weights, set ``dict(init='layernorm')``. ``type`` selects
            another norm of tokens instead of DTN, see :func:`dtn_det.layers.build_token_norm`; arguments that only DTN
            has are then ignored.
        dtn_stages: Indices of the stages whose block norms become DTN; ``()`` gives the LayerNorm twin.
        spt: Use Shifted Patch Tokenization (Lee et al., arXiv:2112.13492) instead of the patch embeddings and their
            norms. A side of an image or map that is not a multiple of the patch size is padded, whereas MMDetection's
            class cuts off the surplus pixels. The paper does not cover PVT: this option and ``lsa`` extend it.
        lsa: Use Locality Self-Attention of the same paper: each head has a learned scale. In stage 4, where keys are
            not spatially reduced, no token attends to itself.
        with_cp: Recompute each block in the backward pass instead of storing its activations.
        frozen_stages: Which parts are not trained: -1 for none, 0 for the first patch embedding, ``k`` for the first
            patch embedding and the first ``k`` stages.
        embed_norm_eps: ``eps`` of the norms of patch embeddings and spatial reductions. The authors and timm use 1e-5
            there and 1e-6 elsewhere. MMDetection uses 1e-6 everywhere, which changes features by about 2e-5 of their
            size. None uses the ``eps`` of ``norm_cfg``, as MMDetection does.
        pretrained: As in MMDetection, deprecated there: use ``init_cfg``.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH_OR_URL)``, see
            :func:`dtn_det.backbones.checkpoint.load_pretrained`.
        **kwargs: Arguments of ``mmdet.models.backbones.PyramidVisionTransformer``. ``convert_weights`` is accepted but
            has no effect: the format of a checkpoint is recognised by its keys.

    Raises:
        ValueError: Arguments do not fit.
        TypeError: An argument does not exist.
    """


@MODELS.register_module()
class DTNPyramidVisionTransformerV2(_DTNPyramid, PyramidVisionTransformerV2):  # type: ignore[misc]
    """PVTv2 whose block norms are DTN in the chosen stages.

    It extends ``mmdet.models.backbones.PyramidVisionTransformerV2`` (Wang et al., arXiv:2106.13797) as
    :class:`DTNPyramidVisionTransformer` extends PVT. PVTv2 has overlapping patches, a depth-wise convolution in each
    feed-forward network, and a norm after each stage, which stays LayerNorm. ``spt=True`` is an error, because
    overlapping patches already include neighbouring pixels.
    """
