"""The configs under test, resolved, and shrunk to a size that trains in a second on a CPU."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="the configs need MMDetection")

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("dtn_swin", "dtn_pvt", "dtn_pvtv2")
CONFIGS = {path.stem: path for folder in FOLDERS for path in sorted((ROOT / "configs" / folder).glob("*.py"))}
DTN_CONFIGS = [name for name in CONFIGS if "_dtn-" in name]


@functools.cache
def _resolved(path: Path) -> Config:
    return Config.fromfile(path)


def resolve(name: str) -> Config:
    """A copy of the resolved config that the caller may change."""
    cfg = _resolved(CONFIGS[name])
    return Config(cfg.to_dict(), filename=cfg.filename)


def shrink(cfg: Config) -> Config:
    """Narrow the backbone, the neck and the heads, and draw few proposals; the structure stays."""
    backbone = cfg.model.backbone
    if "Swin" in backbone.type:
        backbone.update(embed_dims=24, depths=[1, 2, 1, 1])
        widths = [24, 48, 96, 192]
    else:
        # Widths are embed_dims times the attention heads 1, 2, 5, 8.
        backbone.update(embed_dims=8, num_layers=[1, 2, 1, 1])
        widths = [8, 16, 40, 64]
    for part in ("neck", "rpn_head", "roi_head", "bbox_head", "train_cfg", "test_cfg"):
        if part in cfg.model:
            cfg.model[part] = _narrow(cfg.model[part])
    cfg.model.neck.in_channels = widths[-len(cfg.model.neck.in_channels) :]
    return cfg


def _narrow(node: Any, key: str = "") -> Any:
    if isinstance(node, dict):
        return type(node)({name: _narrow(value, name) for name, value in node.items()})
    if isinstance(node, list | tuple):
        return type(node)(_narrow(value, key) for value in node)
    if key.endswith("channels") and isinstance(node, int):
        return min(node, 16)
    if key in ("nms_pre", "max_per_img", "num"):
        return min(node, 32)
    return node
