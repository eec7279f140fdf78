"""Small models of every kind, and what their converted norms are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtn_det.layers import DTN

Call = tuple[str, tuple[int, ...], Any]


@contextmanager
def norm_calls(model: nn.Module) -> Iterator[list[Call]]:
    """Path, shape of the input and `hw_shape` of each call of a DTN."""
    calls: list[Call] = []

    def record(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            calls.append((name, tuple(args[0].shape), kwargs.get("hw_shape")))

        return hook

    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, DTN)]
    handles = [norm.register_forward_hook(record(name), with_kwargs=True) for name, norm in norms]
    yield calls
    for handle in handles:
        handle.remove()


def small_vit(depth: int = 3, **kwargs: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    settings = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": depth, "num_heads": 3, "num_classes": 5}
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, **{**settings, **kwargs})
    return model


def move_off_start(model: nn.Module) -> None:
    """Give every parameter another value, so that no gate, kernel or branch is without effect."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
