"""Swin Transformer with Dynamic Token Normalization, for MMDetection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from mmdet.models.backbones.swin import ShiftWindowMSA, SwinBlock, SwinTransformer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from dtn_det.backbones.checkpoint import load_pretrained, pretrained_init_cfg
from dtn_det.backbones.stage_norms import apply_norm, block_norms, check_arguments, maybe_checkpoint, stage_groups
from dtn_det.checkpoints.backbone_keys import resize_grid
from dtn_det.conversion.hosts.mmcv import tokenization_of
from dtn_det.conversion.hosts.mmdet import localize
from dtn_det.errors import InputError


class DTNSwinBlock(SwinBlock):  # type: ignore[misc]
    """A Swin block that passes the grid of the tokens to its norms.

    Args:
        block: MMDetection's block, whose attention and feed-forward network the new block uses.
        norm1: Norm before the attention, DTN or LayerNorm.
        norm2: Norm before the feed-forward network.
        shift_small_maps: See :class:`DTNSwinTransformer`.
    """

    def __init__(self, block: SwinBlock, norm1: nn.Module, norm2: nn.Module, shift_small_maps: bool = True) -> None:
        BaseModule.__init__(self)
        self.with_cp = block.with_cp
        self.shift_small_maps = shift_small_maps
        # The modules are assigned in the order of the parent class, so that their parameters have the same order as in
        # MMDetection.
        self.norm1 = norm1
        self.attn = block.attn
        self.norm2 = norm2
        self.ffn = block.ffn

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """Transform tokens ``(B, H * W, C)`` of the grid ``hw_shape``, without changing their shape."""

        def inner(x: Tensor) -> Tensor:
            x = x + self._attend(apply_norm(self.norm1, x, hw_shape), hw_shape)
            return self.ffn(apply_norm(self.norm2, x, hw_shape), identity=x)

        return maybe_checkpoint(inner, x, self.with_cp)

    def _attend(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        if self.shift_small_maps or min(hw_shape) > self.attn.window_size:
            return self.attn(x, hw_shape)
        return attend_without_shift(self.attn, x, hw_shape)


def attend_without_shift(attn: ShiftWindowMSA, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
    """Compute window attention on ``(B, H * W, C)`` without shifted windows, even if ``attn`` shifts them."""
    batch, _, channels = x.shape
    height, width = hw_shape
    window = attn.window_size
    x = F.pad(x.view(batch, height, width, channels), (0, 0, 0, -width % window, 0, -height % window))
    padded_height, padded_width = x.shape[1:3]
    windows = attn.w_msa(attn.window_partition(x).view(-1, window * window, channels))
    x = attn.window_reverse(windows.view(-1, window, window, channels), padded_height, padded_width)
    return attn.drop(x[:, :height, :width].reshape(batch, height * width, channels))


@MODELS.register_module()
class DTNSwinTransformer(SwinTransformer):  # type: ignore[misc]
    """Swin Transformer whose block norms are DTN in the chosen stages.

    DTN replaces ``norm1`` and ``norm2`` of the blocks. The norms of the patch embedding, of patch merging and of the
    outputs stay LayerNorm: the first two normalise single patches, and the norms of the outputs belong to the detector.
    Swin: Liu et al., arXiv:2103.14030; DTN: Shao et al., arXiv:2112.02624.

    The class differs from its parent in these points:

    * ``use_abs_pos_embed`` works with any image size.
    * ``train()`` and ``eval()`` return the module.
    * ``frozen_stages`` is applied from the start, because DistributedDataParallel reads the parameters before the first
      ``train()``.
    * It loads every checkpoint format of :mod:`dtn_det.checkpoints.backbone_keys`, and accounts for every key.

    Args:
        dtn_cfg: ``num_groups``: an int, one int per stage, or, by default, ``'heads'`` for the attention heads of each
            stage. Also DTN's keyword arguments ``head_rms``, ``unbiased``, ``only_var``, ``init`` and ``eps`` (by
            default the ``eps`` in ``norm_cfg``). To start from LayerNorm weights, set ``dict(init='layernorm')``.
            ``type`` selects another norm of tokens instead of DTN, see :func:`dtn_det.layers.build_token_norm`;
            arguments that only DTN has are then ignored.
        dtn_stages: Indices of the stages whose block norms become DTN; ``()`` keeps LayerNorm in all stages.
        shift_small_maps: Whether blocks with shifted windows also shift a map whose height or width is at most that of
            a window. MMDetection does, and so does this class by default. The classifiers of the authors, of timm and
            of torchvision do not: set False to reproduce their features. At 224 pixels the option changes stage 4. For
            maps that are not square, False follows the authors; timm and torchvision decide for each direction
            separately.
        spt: Use Shifted Patch Tokenization (Lee et al., arXiv:2112.13492) instead of the patch embedding and its norm,
            and instead of each patch merging.
        lsa: Use Locality Self-Attention of the same paper: each head has a learned scale, and no token attends to
            itself.
        pretrain_img_size: Image size that determines the grid of the position embedding of ``use_abs_pos_embed``. For
            images of other sizes the embedding is resized.
        pretrained: As in MMDetection, deprecated there: use ``init_cfg``.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH_OR_URL)``, see
            :func:`dtn_det.backbones.checkpoint.load_pretrained`.
        **kwargs: Arguments of ``mmdet.models.backbones.SwinTransformer``. ``convert_weights`` is accepted but has no
            effect: the format of a checkpoint is recognised by its keys.

    Raises:
        ValueError: Arguments do not fit.
        TypeError: An argument does not exist.
    """

    patch_embed: Any

    def __init__(
        self,
        *,
        dtn_cfg: Mapping[str, Any] | None = None,
        dtn_stages: Sequence[int] = (0, 1, 2, 3),
        shift_small_maps: bool = True,
        spt: bool = False,
        lsa: bool = False,
        pretrain_img_size: int | tuple[int, int] = 224,
        pretrained: str | None = None,
        init_cfg: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_arguments(type(self), kwargs)
        image_size: tuple[int, int] = to_2tuple(pretrain_img_size)
        super().__init__(pretrain_img_size=image_size, init_cfg=pretrained_init_cfg(init_cfg, pretrained), **kwargs)
        patch_height, patch_width = self.patch_embed.projection.kernel_size
        self.position_grid = (image_size[0] // patch_height, image_size[1] // patch_width)
        if spt:
            self.patch_embed = tokenization_of(self.patch_embed)
            for stage in self.stages[:-1]:
                stage.downsample = tokenization_of(stage.downsample)
        self.dtn_stages = tuple(dtn_stages)
        num_heads = [stage.blocks[0].attn.w_msa.num_heads for stage in self.stages]
        groups = stage_groups(
            dtn_cfg, self.dtn_stages, widths=self.num_features, num_heads=num_heads, default_groups="heads"
        )
        if not -1 <= self.frozen_stages <= len(self.stages):
            raise InputError(f"expected frozen_stages from -1 to {len(self.stages)}, got {self.frozen_stages}")
        for index, stage in enumerate(self.stages):
            for position, block in enumerate(stage.blocks):
                if lsa:
                    localize(block.attn.w_msa)
                norm1, norm2 = block_norms(block, groups.get(index), dtn_cfg)
                stage.blocks[position] = DTNSwinBlock(block, norm1, norm2, shift_small_maps)
        self._freeze_stages()

    def init_weights(self) -> None:
        """Load the checkpoint of ``init_cfg``, or initialise as MMDetection does; DTN keeps its own initialisation."""
        if self.init_cfg is None:
            super().init_weights()
        else:
            grids = {"absolute_pos_embed": self.position_grid} if self.use_abs_pos_embed else {}
            load_pretrained(self, self.init_cfg, "swin", grids)

    def train(self, mode: bool = True) -> DTNSwinTransformer:
        """Set the mode, keep frozen stages in evaluation mode, and return the module (the parent returns None)."""
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of the stages in ``out_indices``.

        The result is a tuple, because mmpretrain's necks and heads do not accept the list that MMDetection's class
        returns.

        Args:
            x: Images ``(B, 3, H, W)`` of any size.

        Returns:
            Maps ``(B, C_i, H_i, W_i)`` with ``H_i = ceil(H / 2 ** (i + 2))``.
        """
        x, hw_shape = self.patch_embed(x)
        if self.use_abs_pos_embed:
            x = x + self._position_embedding(hw_shape)
        x = self.drop_after_pos(x)
        outs = []
        for i, stage in enumerate(self.stages):
            x, hw_shape, out, out_hw_shape = stage(x, hw_shape)
            if i in self.out_indices:
                out = getattr(self, f"norm{i}")(out)
                outs.append(out.transpose(1, 2).reshape(x.shape[0], -1, *out_hw_shape).contiguous())
        return tuple(outs)

    def _position_embedding(self, hw_shape: tuple[int, int]) -> Tensor:
        """Return the position embedding ``(1, H * W, C)``, resized if its grid is not ``hw_shape``."""
        embedding: Tensor = self.absolute_pos_embed
        return embedding if hw_shape == self.position_grid else resize_grid(embedding, self.position_grid, hw_shape)
