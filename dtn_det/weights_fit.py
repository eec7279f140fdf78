"""Whether a checkpoint has the weights that a model is tested with: MMEngine only warns, and tests random ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from dtn_det.convert.errors import CheckpointError
from dtn_det.convert.reading import read_checkpoint

_SHOWN = 4
# Buffers that a model makes for itself, and that some releases do not save.
_OWN_BUFFERS = ("num_batches_tracked", "relative_position_index", "attention_bias_idxs")


def check_weights_fit(model: nn.Module, checkpoint: str, config: str) -> None:
    """See that a checkpoint has all weights of a model, in its shapes; what it has beyond them does not matter.

    Args:
        model: The model, built, perhaps in a wrapper.
        checkpoint: Path or URL.
        config: Path of the config, for the message.

    Raises:
        CheckpointError: Weights are missing or of another shape; the message names both sides.
    """
    while isinstance(getattr(model, "module", None), nn.Module):  # of several processes, of test-time augmentation
        model = cast("nn.Module", model.module)
    content = read_checkpoint(checkpoint)
    state: Mapping[str, object] = content.get("state_dict", content)
    own = {name: value for name, value in model.state_dict().items() if not name.endswith(_OWN_BUFFERS)}
    there = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    problems = [f"missing: {name}" for name in own if name not in there]
    problems += [
        f"of another shape: {name} is {tuple(there[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in there and there[name].shape != value.shape
    ]
    if problems:
        rest = len(problems) - _SHOWN
        lines = "".join(f"\n  {problem}" for problem in problems[:_SHOWN])
        raise CheckpointError(
            f"expected weights of {_architecture(model)} of {config}, got {checkpoint}, in which {len(problems)} of "
            f"{len(own)} do not fit:{lines}"
            + (f"\n  and {rest} more" if rest > 0 else "")
            + "\nTest it with the config "
            "that it was trained with, and the same --cfg-options"
        )


def _architecture(model: nn.Module) -> str:
    """Classes of a model and of what it wraps, as the message calls them."""
    inner = getattr(model, "backbone", None) or getattr(model, "model", None)
    name = type(model).__name__
    return f"{name} with {type(inner).__name__}" if isinstance(inner, nn.Module) else name
