"""The configs of classifiers under test, resolved, shrunk to a size that trains in a moment, and built."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="the backbones need MMDetection")
pytest.importorskip("mmpretrain.models", reason="the classifiers need mmpretrain")

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from dtn_det.training.config import load_config

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("dtn_imagenet", "spt_lsa")
CONFIGS = {path.stem: path for folder in FOLDERS for path in sorted((ROOT / "configs" / folder).glob("*.py"))}
DTN_CONFIGS = [name for name in CONFIGS if name.startswith("dtn-")]
SL_CONFIGS = [name for name in CONFIGS if name.startswith("sl-")]


@functools.cache
def _resolved(path: Path) -> Config:
    return load_config(str(path))


def resolve(name: str) -> Config:
    """A copy of the resolved config that the caller may change."""
    cfg = _resolved(CONFIGS[name])
    return Config(cfg.to_dict(), filename=cfg.filename)


def classifier(cfg: Config) -> Any:
    """The settings of the classifier, within those of its conversion where there are such."""
    return cfg.model.model if cfg.model.type == "ConvertedModel" else cfg.model


def image_size(cfg: Config) -> int:
    """Pixels of the images, smaller than ImageNet's."""
    return next((step.crop_size for step in cfg.train_pipeline if step.type == "RandomCrop"), 32)


def shrink(cfg: Config) -> Config:
    """Narrow and shallow; the structure stays, down to the number of stages."""
    model = classifier(cfg)
    if model.type == "TimmClassifier":
        _shrink_timm(model, image_size(cfg))
        return cfg
    backbone = model.backbone
    if backbone.type == "SmallT2TViT":
        backbone.update(embed_dims=12, token_dims=6, num_layers=2, layer_cfgs={"num_heads": 2})
        backbone.layer_cfgs.feedforward_channels = 12
        width = 12
    elif "Swin" in backbone.type:
        stages = len(backbone.depths)
        backbone.update(embed_dims=12, depths=(1,) * stages)
        width = 12 * 2 ** (stages - 1)
    else:
        # Widths are embed_dims times the attention heads 1, 2, 5, 8.
        backbone.update(embed_dims=8, num_layers=[1, 1, 1, 1], pretrain_img_size=image_size(cfg))
        width = model.neck.in_channels = 64
    model.head.in_channels = width
    return cfg


def _shrink_timm(model: Any, size: int) -> None:
    if model.model_name.startswith("pit"):
        model.update(base_dims=[6, 6, 6], depth=[1, 1, 1])
    elif model.model_name.startswith("cait"):
        model.update(embed_dim=12, depth=2, num_heads=2)
    else:
        model.update(embed_dim=24, depth=3, num_heads=3, img_size=size, patch_size=size // 4)


def build(cfg: Config, *, initialised: bool = True) -> Any:
    """The model as the Runner builds it, its weights drawn or not."""
    settings = Config(cfg.to_dict()).model
    settings.setdefault("data_preprocessor", Config(cfg.to_dict()).data_preprocessor)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(settings)
    if initialised:
        model.init_weights()
    return model
