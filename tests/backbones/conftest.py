"""Backbones small enough for the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

TINY: dict[str, dict[str, Any]] = {
    "DTNSwinTransformer": {"embed_dims": 8, "depths": (2, 2, 1, 2), "num_heads": (1, 2, 2, 4), "window_size": 4},
    "DTNPyramidVisionTransformer": {"embed_dims": 8, "num_layers": [2, 1, 1, 1], "mlp_ratios": [2, 2, 2, 2]},
    "DTNPyramidVisionTransformerV2": {"embed_dims": 8, "num_layers": [2, 1, 1, 1], "mlp_ratios": [2, 2, 2, 2]},
}
NAMES = tuple(TINY)

# For what takes long per layer: one stage where the class allows it.
SINGLE_STAGE: dict[str, dict[str, Any]] = {
    "DTNSwinTransformer": {
        "depths": (2,),
        "num_heads": (2,),
        "strides": (4,),
        "out_indices": (0,),
        "dtn_stages": (0,),
    },
    "DTNPyramidVisionTransformer": {
        "num_stages": 1,
        "num_layers": [1],
        "num_heads": [1],
        "patch_sizes": [4],
        "strides": [4],
        "paddings": [0],
        "sr_ratios": [4],
        "mlp_ratios": [2],
        "out_indices": (0,),
        "dtn_stages": (0,),
        "dtn_cfg": {"num_groups": 2},
    },
    "DTNPyramidVisionTransformerV2": {"num_layers": [1, 1, 1, 1]},
}


@pytest.fixture(params=NAMES)
def backbone_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def single_stage(backbone_name: str) -> dict[str, Any]:
    return SINGLE_STAGE[backbone_name]


@pytest.fixture
def build() -> Callable[..., nn.Module]:
    """``build(name, seed=0, **arguments)``: a tiny backbone in evaluation mode, without stochastic depth.

    The name may also be that of the parent in MMDetection, which has the same tiny arguments.
    """
    models = pytest.importorskip("mmdet.registry").MODELS
    pytest.importorskip("dtn_det.backbones")

    def make(name: str, seed: int = 0, **kwargs: Any) -> nn.Module:
        torch.manual_seed(seed)
        tiny = TINY["DTN" + name.removeprefix("DTN")]
        backbone = models.build({"type": name, "drop_path_rate": 0.0, **tiny, **kwargs})
        backbone.eval()  # MMDetection's Swin returns None here
        return backbone

    return make


@pytest.fixture
def randomise() -> Callable[..., nn.Module]:
    """Move every norm, bias and position table away from its start, so that a mixed-up key shows in the features."""

    def move(model: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.dim() == 1:
                    parameter.add_(0.2 * noise)
                elif "bias_table" in name or "pos_embed" in name or "position_embeddings" in name:
                    parameter.copy_(noise)
        return model

    return move


@pytest.fixture
def warnings_and_infos(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What is logged, by level."""
    logger_class = pytest.importorskip("mmengine.logging").MMLogger
    logger = logger_class.get_instance("pretrained", logger_name="pretrained")
    messages: dict[str, list[str]] = {}

    def log(level: int, message: str, *_: object, **__: object) -> None:
        messages.setdefault(logging.getLevelName(level).lower(), []).append(message)

    monkeypatch.setattr(logger, "log", log)
    monkeypatch.setattr(logger_class, "get_current_instance", classmethod(lambda cls: logger))
    return messages
