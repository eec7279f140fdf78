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
from dtn_det.backbones.stage_norms import apply_norm, check_arguments, maybe_checkpoint, stage_groups, token_norm_from
from dtn_det.conversion.hosts.mmcv import tokenization_of
from dtn_det.conversion.hosts.mmdet import localize
from dtn_det.errors import InputError

# The authors' groups for the widths 64, 128, 320 and 512, independent of the attention heads 1, 2, 5 and 8.
AUTHORS_GROUPS = (4, 4, 5, 8)


class DTNPVTEncoderLayer(PVTEncoderLayer):  # type: ignore[misc]
    """A PVT block that passes the grid of the tokens to its norms.

    Args:
        block: MMDetection's block; its attention and feed-forward layers are taken over.
        norm1: Norm before the attention, DTN or LayerNorm.
        norm2: Norm before the feed-forward layers.
        with_cp: Recompute the block in the backward pass instead of storing its activations.
    """

    def __init__(self, block: PVTEncoderLayer, norm1: nn.Module, norm2: nn.Module, with_cp: bool = False) -> None:
        BaseModule.__init__(self)
        self.with_cp = with_cp
        # Set in the same order as by the parent, so that parameters are listed as in MMDetection.
        self.norm1 = norm1
        self.attn = block.attn
        self.norm2 = norm2
        self.ffn = block.ffn

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """Transform ``(B, H * W, C)`` tokens of the grid ``hw_shape``; the shape stays."""

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
                if not isinstance(block, PVTEncoderLayer):  # the position embedding of PVT
                    continue
                if block.attn.sr_ratio > 1:
                    set_eps(block.attn.norm, embed_norm_eps)
                if lsa:
                    localize(block.attn)
                norm1, norm2 = block.norm1, block.norm2
                if index in groups:
                    norm1 = token_norm_from(norm1, groups[index], dtn_cfg)
                    norm2 = token_norm_from(norm2, groups[index], dtn_cfg)
                blocks[position] = DTNPVTEncoderLayer(block, norm1, norm2, with_cp)
        self.min_size = minimum_size(self.strides, self.sr_ratios)
        self._freeze_stages()

    def _freeze_stages(self) -> None:
        """Freeze stages as Swin does: 0 freezes the first patch embedding, ``k`` the first ``k`` stages as well."""
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

        They come as a tuple: MMDetection's class returns a list, which mmpretrain's necks and heads do not take.

        Args:
            x: Images ``(B, 3, H, W)``. An image with a side below ``min_size`` (32 pixels as published), on which the
                parent fails, is first padded with zeros on the right and at the bottom.

        Returns:
            Maps ``(B, C_i, H_i, W_i)``.
        """
        height, width = x.shape[-2:]
        if min(height, width) < self.min_size:
            x = F.pad(x, (0, max(self.min_size - width, 0), 0, max(self.min_size - height, 0)))
        return tuple(super().forward(x))


def set_eps(norm: nn.Module, eps: float | None) -> None:
    """Set the ``eps`` of a LayerNorm; None leaves it."""
    if eps is not None and isinstance(norm, nn.LayerNorm):
        norm.eps = eps


def minimum_size(strides: Sequence[int], sr_ratios: Sequence[int]) -> int:
    """Find the smallest image side for which every map is at least as large as its spatial reduction.

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

    DTN replaces ``norm1`` and ``norm2`` of the blocks; the norms of patch embeddings and spatial reductions, and by
    default those of stage 4, stay LayerNorm, as in the authors' code. PVT: Wang et al., arXiv:2102.12122; DTN: Shao et
    al., arXiv:2112.02624. The parent has neither ``with_cp`` nor ``frozen_stages``.

    Args:
        dtn_cfg: ``num_groups`` (an int, one int per stage, or ``'heads'``; the authors' ``(4, 4, 5, 8)`` by default)
            and DTN's keyword arguments ``head_rms``, ``unbiased``, ``only_var``, ``init`` and ``eps`` (default: that
            of ``norm_cfg``). Start from LayerNorm weights with ``dict(init='layernorm')``. ``type`` puts another norm
            of tokens in DTN's place, see :func:`dtn_det.layers.build_token_norm`; DTN's arguments may stay.
        dtn_stages: Indices of the stages whose block norms become DTN; ``()`` gives the LayerNorm twin.
        spt: Shifted Patch Tokenization (Lee et al., arXiv:2112.13492) instead of the patch embeddings, with their
            norms. Images and maps whose sides are no multiple of the patch are padded; MMDetection's class cuts them
            off. The paper has no PVT: this option and ``lsa`` extend it.
        lsa: Locality Self-Attention of the same paper: a learned scale per head in every stage, and no attention of a
            token to itself where keys are not spatially reduced, which is stage 4.
        with_cp: Recompute each block in the backward pass instead of storing its activations.
        frozen_stages: Stages that are not trained: -1 for none, 0 for the first patch embedding, ``k`` for the first
            ``k`` stages.
        embed_norm_eps: ``eps`` of the norms of patch embeddings and spatial reductions. The authors and timm use 1e-5
            there and 1e-6 elsewhere, MMDetection 1e-6 throughout, which changes features by about 2e-5 of their size;
            None keeps the ``eps`` of ``norm_cfg``, as MMDetection does.
        pretrained: As in MMDetection, deprecated there: use ``init_cfg``.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH_OR_URL)``, see
            :func:`dtn_det.backbones.checkpoint.load_pretrained`.
        **kwargs: Arguments of ``mmdet.models.backbones.PyramidVisionTransformer``. ``convert_weights`` is accepted
            and not needed: the format of a checkpoint is recognised by its keys.

    Raises:
        ValueError: Arguments that do not fit.
        TypeError: An argument that does not exist.
    """


@MODELS.register_module()
class DTNPyramidVisionTransformerV2(_DTNPyramid, PyramidVisionTransformerV2):  # type: ignore[misc]
    """PVTv2 whose block norms are DTN in the chosen stages.

    As :class:`DTNPyramidVisionTransformer`, on ``mmdet.models.backbones.PyramidVisionTransformerV2`` (Wang et al.,
    arXiv:2106.13797): overlapping patches, a depth-wise convolution in the feed-forward layers and a norm after each
    stage, which stays LayerNorm. ``spt=True`` is an error, because overlapping patches already see their neighbours.
    """
