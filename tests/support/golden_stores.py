"""The models of the golden stores, whose weights follow from integers, so that any version of any library has the same.

The images, annotations and the config lie beside the stores in ``tests/robustness/golden``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

GOLDEN = Path(__file__).resolve().parents[1] / "robustness" / "golden"


class Patches(nn.Module):
    """A linear classifier of four classes on the mean colours of 4 x 4 patches."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.linear = nn.Linear(48, 4, bias=False)
        numbers = json.loads((GOLDEN / "classification" / "weights.json").read_text())[name]
        self.linear.weight.data = torch.tensor(numbers, dtype=torch.float32) / 64

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 4) of images (N, 3, H, W)."""
        return self.linear(self.pool(images).flatten(1))


def first() -> nn.Module:
    """The classifier that the corruption errors are divided by."""
    return Patches("first")


def second() -> nn.Module:
    """Another classifier."""
    return Patches("second")


def integer_weights(state: Mapping[str, Any], seed: int, scale: float = 0.25) -> dict[str, torch.Tensor]:
    """Weights of the same names and shapes, multiples of 1/65536 times the scale in [-scale, scale).

    Integers, and float buffers whose names end in a statistic of a norm, stay what they are.
    """
    weights = {}
    for place, (name, tensor) in enumerate(sorted(state.items())):
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or "running" in name:
            weights[name] = tensor
            continue
        numbers = np.arange(tensor.numel(), dtype=np.uint64) + np.uint64(1 + 7919 * place + 104729 * seed)
        mixed = (numbers * np.uint64(2654435761)) >> np.uint64(7)
        fractions = (mixed % np.uint64(65536)).astype(np.float64) / 65536 - 0.5
        spread = 2 * scale / max(1.0, float(np.sqrt(tensor[0].numel() if tensor.ndim > 1 else 1)))
        # A weight of one number a channel is that of a norm more often than not.
        values = fractions * spread + (1.0 if tensor.ndim == 1 and name.endswith("weight") else 0.0)
        weights[name] = torch.from_numpy(values.astype(np.float32)).reshape(tensor.shape).to(tensor.dtype)
    return weights


def write_golden_detector(folder: Path, seed: int = 3) -> tuple[str, str]:
    """The config of the golden detector, and a checkpoint of its weights, which is written into a folder."""
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    config = GOLDEN / "detection" / "golden_detector.py"
    model = MODELS.build(Config.fromfile(str(config)).model)
    checkpoint = folder / "golden_detector.pth"
    torch.save({"state_dict": integer_weights(model.state_dict(), seed), "meta": {}}, checkpoint)
    return str(config), str(checkpoint)
