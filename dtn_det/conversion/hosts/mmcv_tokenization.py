"""Shifted Patch Tokenization for the patch embeddings and patch mergings of mmcv: mmpretrain's ViT and Swin."""

from __future__ import annotations

from mmcv.cnn.bricks.transformer import PatchEmbed, PatchMerging
from torch import nn

from dtn_det.conversion.hosts.openmmlab_patches import put_tokenization
from dtn_det.conversion.replace import Replace

HOSTS: dict[type[nn.Module], Replace] = {PatchEmbed: put_tokenization, PatchMerging: put_tokenization}
