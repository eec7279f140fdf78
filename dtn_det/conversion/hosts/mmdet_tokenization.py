"""Shifted Patch Tokenization for the patch embeddings and patch mergings of MMDetection."""

from __future__ import annotations

from mmdet.models.layers import PatchEmbed, PatchMerging
from torch import nn

from dtn_det.conversion.hosts.openmmlab_patches import put_tokenization
from dtn_det.conversion.replace import Replace

HOSTS: dict[type[nn.Module], Replace] = {PatchEmbed: put_tokenization, PatchMerging: put_tokenization}
