"""Converted models of Hugging Face that load a checkpoint, in `from_pretrained` of a class that converts itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from dtn_det.layers.token_norm import TokenNorm


@dataclass
class LeaveTokenNorms:
    """The `_init_weights` of a model, for all its modules but token norms.

    It fills what a checkpoint lacks, by rules for LayerNorm that fit no other norm and fail without a bias. Token norms
    fill themselves when transformers marks them as done.
    """

    host: nn.Module

    def __call__(self, module: nn.Module) -> None:
        """Fill a module."""
        if not isinstance(module, TokenNorm):
            host: Any = self.host
            type(host)._init_weights(host, module)


def keep_start_of_norms(model: nn.Module) -> None:
    """See that loading a checkpoint of LayerNorm leaves the other parameters of converted norms at their start."""
    for module in model.modules():
        if hasattr(type(module), "_init_weights") and _is_of_transformers(type(module)):
            module._init_weights = LeaveTokenNorms(module)  # type: ignore[assignment]


def _is_of_transformers(kind: type[nn.Module]) -> bool:
    return any(
        base.__name__ == "PreTrainedModel" and base.__module__.startswith("transformers.") for base in kind.__mro__
    )
