"""Pretrained weights for the backbones, every key accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model.weight_init import PretrainedInit
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn


def pretrained_init_cfg(init_cfg: Mapping[str, Any] | None, pretrained: str | None) -> dict[str, Any] | None:
    """Check ``init_cfg`` and the deprecated ``pretrained`` and make one plain dict of them.

    Raises:
        ValueError: Both are given, or ``init_cfg`` is not ``dict(type='Pretrained', checkpoint=...)``.
    """
    if pretrained is not None:
        if init_cfg is not None:
            raise ValueError("expected one of init_cfg and pretrained, got both: drop pretrained")
        return {"type": "Pretrained", "checkpoint": pretrained}
    if init_cfg is None:
        return None
    if (
        not isinstance(init_cfg, Mapping)
        or init_cfg.get("type") not in ("Pretrained", PretrainedInit)
        or not isinstance(init_cfg.get("checkpoint"), str)
    ):
        raise ValueError(f"expected init_cfg=dict(type='Pretrained', checkpoint=PATH_OR_URL), got {init_cfg!r}")
    return dict(init_cfg)


def load_pretrained(backbone: nn.Module, init_cfg: Mapping[str, Any]) -> None:
    """Load a checkpoint in the backbone's own names."""
    load_checkpoint(backbone, init_cfg["checkpoint"], map_location="cpu", strict=True, logger="current")
