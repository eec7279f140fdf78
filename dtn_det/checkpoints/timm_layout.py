"""Weights in an older layout of timm, or of a model's authors, renamed by timm's own function for that."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping

from torch import Tensor, nn

from dtn_det.checkpoints.fit import OWN_BUFFERS
from dtn_det.checkpoints.names import StateDict


def in_own_layout(model: nn.Module, state: Mapping[str, Tensor]) -> StateDict | None:
    """Rename weights by the ``checkpoint_filter_fn`` of the module of timm that a model is from.

    Such functions also resize and drop weights; a result with more or fewer numbers than the file is not taken.

    Args:
        model: The model.
        state: Names and tensors that do not fit it.

    Returns:
        Names and tensors, or None: the model's module has no such function, or it does not know these weights.
    """
    convert = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return None
    # It takes what it expects for given, and fails in any way on other files.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = convert(dict(state), model)
    except Exception:
        return None
    return dict(found) if _numbers(found) == _numbers(state) else None


def _numbers(state: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for name, value in state.items() if not name.endswith(OWN_BUFFERS))
