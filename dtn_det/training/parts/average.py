"""The exponential moving average of a classifier's weights, for models of timm too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmpretrain.engine.hooks import EMAHook

_AVERAGED = "module."
_WRAPPED = "module.model."


class ClassifierEMAHook(EMAHook):  # type: ignore[misc]
    """mmpretrain's ``EMAHook``, which fails to save with ``TimmClassifier``.

    That class leaves its own ``model.`` out of the names of its weights, but not where the average holds a copy of it.
    Checkpoints get the same names for both, which loading completes in both.

    Args and errors as ``mmpretrain.engine.EMAHook``.
    """

    def _swap_ema_state_dict(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema_state_dict"] = outer_names(checkpoint["ema_state_dict"], checkpoint["state_dict"])
        super()._swap_ema_state_dict(checkpoint)


def outer_names(average: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The weights of an average under the names of its model.

    Args:
        average: Weights by name, ``module.`` before those of the model.
        names: Of the weights of the model.

    Returns:
        The same values; ``module.model.x`` is ``module.x`` where the model has ``x`` and no ``model.x``.
    """
    known = set(names)
    renamed = {
        name: _AVERAGED + inner
        for name in average
        if name.startswith(_WRAPPED)
        and (inner := name.removeprefix(_WRAPPED)) in known
        and name.removeprefix(_AVERAGED) not in known
    }
    return {renamed.get(name, name): value for name, value in average.items()}
