"""Averages of weights (EMA) in trainings, under the names that their models save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require

if TYPE_CHECKING:
    from mmengine.runner import Runner

_AVERAGED = "module."
_WRAPPED = "module.model."


def save_averages_by_outer_names(runner: Runner) -> None:
    """Have the EMA hooks of a Runner save a ``TimmClassifier``, with which MMEngine's own hook fails.

    That classifier omits the prefix ``model.`` from the names of its weights, but the names in the average have it.
    """
    for hook in runner.hooks:
        if isinstance(hook, require("mmengine.hooks", "det").EMAHook):
            hook._swap_ema_state_dict = _renaming(hook._swap_ema_state_dict)


def _renaming(swap: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def renamed(checkpoint: dict[str, Any]) -> None:
        checkpoint["ema_state_dict"] = outer_names(checkpoint["ema_state_dict"], checkpoint["state_dict"])
        swap(checkpoint)

    return renamed


def outer_names(average: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the weights of an average under the names that its model saves.

    Args:
        average: Weights by name; each name starts with ``module.``.
        names: Names of the weights that the model saves.

    Returns:
        The same values. ``module.model.x`` becomes ``module.x`` if the model has ``x`` and no ``model.x``.
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
