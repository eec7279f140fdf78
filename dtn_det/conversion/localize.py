"""How an attention module becomes Locality Self-Attention: as an instance of a subclass of its own class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from dtn_det.conversion.replace import Replace
from dtn_det.layers.lsa import head_scale


def become(
    kind: type[nn.Module], like: str = "qkv", start: Callable[[Any], float] = lambda module: module.scale
) -> Replace:
    """What turns a module into `kind`, with a learnable scale per head.

    Args:
        kind: Subclass of the class of the module, with a ``forward`` of its own.
        like: Name of the linear layer whose device, dtype and trainability the scale takes.
        start: The scale that the module has.
    """

    def replace(model: nn.Module, name: str) -> None:
        module: Any = model.get_submodule(name)
        weight = module.get_submodule(like).weight
        scale = head_scale(module.num_heads, start(module), weight).requires_grad_(weight.requires_grad)
        module.__class__ = kind
        module.scale = scale

    return replace
