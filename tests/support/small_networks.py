"""Networks small enough for the CPU, and images for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

import dtn_det.backbones  # noqa: F401  (registers the backbones)
from dtn_det.inspection.subject import Subject

SWIN_OF_MMDET = {"type": "SwinTransformer", "embed_dims": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4}
SWIN_OF_MMDET |= {"strides": (4, 2), "out_indices": (0, 1)}
SWIN = {**SWIN_OF_MMDET, "type": "DTNSwinTransformer", "dtn_stages": (0, 1)}
PVT = {"embed_dims": 8, "num_layers": [1, 2, 1, 1], "mlp_ratios": [2, 2, 2, 2]}


def build(settings: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    network = MODELS.build({"drop_path_rate": 0.0, **settings})
    network.eval()
    return network


def subject_of(network: nn.Module, x: Tensor) -> Subject:
    height, width = x.shape[-2:]
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Subject("m", "c", "i", network, lambda: network(x), picture, (height, width), (height, width))


def timm_vit(**kwargs: Any) -> nn.Module:
    vit = pytest.importorskip("timm.models.vision_transformer").VisionTransformer
    settings = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 5}
    return vit(**{**settings, **kwargs}).eval()
