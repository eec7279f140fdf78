"""The state dict within a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dtn_det.checkpoints.errors import CheckpointError
from dtn_det.checkpoints.names import StateDict, some


def extract_state_dict(checkpoint: Mapping[str, Any], prefix: str | None = None) -> StateDict:
    """Find the backbone's state dict in a checkpoint.

    Args:
        checkpoint: A state dict, or a dict with one under ``state_dict``, ``model`` or ``module``.
        prefix: Take the keys that start with this, without it. By default ``module.`` is removed from all keys, and
            if any then start with ``backbone.``, only those are taken, without it.

    Returns:
        Names and tensors.

    Raises:
        CheckpointError: No state dict, or no key with the prefix.
    """
    state: Mapping[str, Any] = checkpoint
    while inner := [state[name] for name in ("state_dict", "model", "module") if isinstance(state.get(name), Mapping)]:
        state = inner[0]
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"expected a state dict, or one under 'state_dict', 'model' or 'module', got a dict with the keys "
            f"{some(state)}"
        )
    if prefix is not None:
        taken = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not taken:
            raise CheckpointError(f"expected keys that start with {prefix!r}, got {some(state)}")
        return taken
    stripped = {key.removeprefix("module."): value for key, value in state.items()}
    backbone = {key.removeprefix("backbone."): v for key, v in stripped.items() if key.startswith("backbone.")}
    return backbone or stripped
