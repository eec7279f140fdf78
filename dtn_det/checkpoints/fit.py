"""Whether a checkpoint has the weights that a model is tested with: MMEngine only warns, and tests random ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn

from dtn_det.checkpoints.errors import CheckpointError
from dtn_det.checkpoints.read import read_checkpoint

_SHOWN = 4
# Buffers that a model makes for itself, and that some releases do not save.
_OWN_BUFFERS = ("num_batches_tracked", "relative_position_index", "attention_bias_idxs")


def check_weights_fit(model: nn.Module, checkpoint: str, config: str) -> None:
    """See that a checkpoint has all weights of a model, in its shapes, and that they are of the same modules.

    Weights of whole modules that the model does not have, such as an auxiliary head, do not matter. Those that a module
    of the model does not have do: its twin with another norm has the same modules, and the same names otherwise.

    Args:
        model: The model, built, perhaps in a wrapper.
        checkpoint: Path or URL.
        config: Path of the config, for the message.

    Raises:
        CheckpointError: Weights are missing, of another shape, or of other modules than the model's; the message names
            both sides.
    """
    advice = "Test it with the config that it was trained with, and the same --cfg-options"
    check_state_fits(model, read_checkpoint(checkpoint), checkpoint, config, advice)


def check_state_fits(model: nn.Module, content: Mapping[str, Any], checkpoint: str, config: str, advice: str) -> None:
    """The same of a checkpoint that is read already.

    Args:
        model: See :func:`check_weights_fit`.
        content: A state dict, or a training checkpoint with one.
        checkpoint: What the message calls it.
        config: See :func:`check_weights_fit`.
        advice: End of the message.

    Raises:
        CheckpointError: See :func:`check_weights_fit`.
    """
    while isinstance(getattr(model, "module", None), nn.Module):  # of several processes, of test-time augmentation
        model = cast("nn.Module", model.module)
    state: Mapping[str, object] = content.get("state_dict", content)
    own = {name: value for name, value in model.state_dict().items() if not name.endswith(_OWN_BUFFERS)}
    there = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    problems = [f"missing: {name}" for name in own if name not in there]
    problems += [
        f"of another shape: {name} is {tuple(there[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in there and there[name].shape != value.shape
    ]
    beyond = _beyond(model, own, there)
    if problems or beyond:
        counts = [f"in which {len(problems)} of {len(own)} do not fit"] * bool(problems)
        counts += [f"with {len(beyond)} that the modules of the model do not have"] * bool(beyond)
        problems += [f"beyond the model: {name}" for name in beyond]
        rest = len(problems) - _SHOWN
        lines = "".join(f"\n  {problem}" for problem in problems[:_SHOWN])
        raise CheckpointError(
            f"expected weights of {_architecture(model)} of {config}, got {checkpoint}, {' and '.join(counts)}:{lines}"
            + (f"\n  and {rest} more" if rest > 0 else "")
            + f"\n{advice}"
        )


def _beyond(model: nn.Module, own: Iterable[str], there: Iterable[str]) -> list[str]:
    """Names of a state dict that lie in a module of the model, where the model has nothing of that name.

    The modules are those of the names, not of the model: mmpretrain leaves out the prefix of what it wraps.
    """
    known = set(own)
    modules = {name[:dot] for name in known for dot in range(len(name)) if name[dot] == "."}
    # Buffers that are not saved any more were by older releases.
    buffers = tuple(f".{name}" for name, _ in model.named_buffers())
    return [
        name
        for name in there
        if name not in known
        and name.rpartition(".")[0] in modules
        and not name.endswith(_OWN_BUFFERS)
        and not any(buffer.endswith(f".{name}") for buffer in buffers)
    ]


def _architecture(model: nn.Module) -> str:
    """Classes of a model and of what it wraps, as the message calls them."""
    inner = getattr(model, "backbone", None) or getattr(model, "model", None)
    name = type(model).__name__
    return f"{name} with {type(inner).__name__}" if isinstance(inner, nn.Module) else name
