"""Two sets of weights within one state dict, as the EMAHook of mmcv 1.x and MMDetection 2.x writes them.

For ``backbone.norm0.weight`` the hook registers a buffer ``ema_backbone_norm0_weight`` and updates it in each step. It
swaps both tensors after each epoch and swaps them back before the next epoch. Which of the two names holds the average
therefore depends on whether a checkpoint was saved before or after the swap:

* With the default priority of the hook, ``'NORMAL'``, the checkpoint is saved first, and the average is under ``ema_``.
  Among hooks of one priority mmcv calls custom hooks last, because it keeps the order of registration.
* With a smaller number, such as the 49 of MMDetection's YOLOX, the swap comes first, and the average is under the names
  of the model.
* Whatever the priority, the best checkpoint has the average under the names of the model, because the evaluation saves
  it after the swap.
* Checkpoints at an interval of iterations are saved before the swap, and ``IterBasedRunner`` never swaps.

Source: ``runner/hooks/ema.py`` and ``runner/base_runner.py`` of mmcv 1.7.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from dtn_det.checkpoints.state_dict import StateDict, some
from dtn_det.checkpoints.trained_config import config_value
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.errors import CheckpointError

NameSet = Literal["own", "copies"]
"""Which names a set of weights has: the model's (``'own'``) or those of the hook's buffers (``'copies'``)."""

_COPY = re.compile(r"^(?P<wrapper>(?:module\.)?)ema_(?P<flat>[^.]+)$")
# Pattern for the names of most parameters. Each parameter must have a copy. A buffer need not have one, because the
# hook may not copy every buffer.
_PARAMETER = re.compile(r"(^|[._])(weight|bias)$")
_PRIORITIES = {
    **{"HIGHEST": 0, "VERY_HIGH": 10, "HIGH": 30, "ABOVE_NORMAL": 40, "NORMAL": 50, "BELOW_NORMAL": 60, "LOW": 70},
    **{"VERY_LOW": 90, "LOWEST": 100},
}
_SHOWN = 3


@dataclass(frozen=True)
class EmaCopies:
    """The two sets of weights in one state dict.

    Attributes:
        own: The set under the names of the model.
        copied: The copies ``ema_...``, under the names of the model.
        average: The set that is the average according to the config in the checkpoint; None if the config does not show
            it.
        taken: The set that was chosen.
    """

    own: StateDict
    copied: StateDict
    average: NameSet | None
    taken: NameSet = "own"

    @property
    def kind(self) -> WeightsKind | None:
        """Kind of the chosen weights; None if the config in the checkpoint does not show it."""
        return None if self.average is None else "ema" if self.average == self.taken else "plain"

    @property
    def state(self) -> StateDict:
        """The chosen weights, and the buffers that have no copy."""
        return self.own if self.taken == "own" else {**self.own, **self.copied}

    def choose(self, wanted: WeightsKind | None) -> EmaCopies:
        """Choose one of the two sets.

        Args:
            wanted: None for the set under the names of the model, which mmcv loads. ``'ema'`` or ``'plain'`` for the
                set of this kind, which the config in the checkpoint identifies. If the config does not identify it, the
                copies ``ema_...`` count as the average.

        Raises:
            CheckpointError: The copies are chosen, and some weights have no copy.
        """
        average = self.average or "copies"
        taken: NameSet = "own" if wanted is None or (wanted == "ema") == (average == "own") else "copies"
        lacking = [name for name in self.own if name not in self.copied and _PARAMETER.search(name)]
        if taken == "copies" and lacking:
            raise CheckpointError(
                f"expected a copy ema_... of mmcv's EMAHook of each weight, got none of {some(lacking, _SHOWN)}: take "
                f"the names of the model, --weights {'ema' if average == 'own' else 'plain'}"
            )
        return EmaCopies(self.own, self.copied, self.average, taken)

    def fact(self) -> str:
        """Describe the chosen set, for the manifest of a store."""
        which = "names of the model" if self.taken == "own" else "copies ema_*"
        return f"{self.kind or 'ema or plain'} ({which}, of mmcv's EMAHook)"

    def remark(self) -> str:
        """Describe to the user which set was chosen, why, and how to choose the other set."""
        which, other = "names of the model", "copies ema_*"
        if self.taken == "copies":
            which, other = other, which
        turn = "plain" if (self.average or "copies") == self.taken else "ema"
        start = "state dict has weights in two sets, under the names of the model and as copies ema_* of mmcv's EMAHook"
        end = f"the {which} were taken; --weights {turn} takes the {other}"
        if self.average is not None:
            average = "names of the model" if self.average == "own" else "copies"
            return f"{start}; by its config the {average} hold the average (EMA); {end}"
        return (
            f"{start}, and does not tell which is the average (EMA): with the hook's default priority the copies, with "
            f"a priority below 50, such as 49 in MMDetection's YOLOX, and in best_*.pth the names of the model; {end}"
        )


def find_copies(state: Mapping[str, Tensor], content: Mapping[str, Any], own: Iterable[str] = ()) -> EmaCopies | None:
    """Find the copies of the EMAHook in a state dict.

    Args:
        content: Content of the file, whose config has the priority of the hook.
        own: Names of the model, if known. Buffers ``ema_...`` that the model itself has are not copies.

    Returns:
        Both sets; the set under the names of the model is chosen. None if there are no copies, or if a tensor
        ``ema_...`` does not match exactly one other tensor by name (with underscores for dots) and shape.
    """
    copies = {name: found for name in state if (found := _COPY.match(name))}
    if not copies or not copies.keys().isdisjoint(own):
        return None
    flat = Counter(_flat(name) for name in state if name not in copies)
    of_flat = {_flat(name): name for name in state if name not in copies and flat[_flat(name)] == 1}
    copied: StateDict = {}
    for name, found in copies.items():
        original = of_flat.get(found["wrapper"] + found["flat"])
        if original is None or state[original].shape != state[name].shape:
            return None
        copied[original] = state[name]
    own = {name: value for name, value in state.items() if name not in copies}
    return EmaCopies(own, copied, _average(content))


def _flat(name: str) -> str:
    """Return a name with underscores instead of dots, except for the dot after the wrapper ``module``."""
    wrapper = "module." if name.startswith("module.") else ""
    return wrapper + name.removeprefix(wrapper).replace(".", "_")


def _average(content: Mapping[str, Any]) -> NameSet | None:
    """Return the set that the config (saved by mmcv 1.x as text) shows to be the average; None if it is unclear."""
    meta = content.get("meta")
    text = meta.get("config") if isinstance(meta, Mapping) else None
    if not isinstance(text, str):
        return None
    hooks = [hook for hook in config_value(text, "custom_hooks") or () if isinstance(hook, Mapping)]
    hooks = [hook for hook in hooks if str(hook.get("type")).endswith("EMAHook")]
    runner, saving, evaluation = (
        config_value(text, name) or {} for name in ("runner", "checkpoint_config", "evaluation")
    )
    if len(hooks) != 1 or not all(isinstance(one, Mapping) for one in (runner, saving, evaluation)):
        return None
    priority = hooks[0].get("priority", "NORMAL")
    priority = _PRIORITIES.get(priority.upper()) if isinstance(priority, str) else priority
    if runner.get("type") == "IterBasedRunner":
        return "copies"
    if runner.get("type") != "EpochBasedRunner" or not isinstance(priority, int):
        return None
    if priority < _PRIORITIES["NORMAL"] and saving.get("by_epoch", True):
        return "own"
    # The file may be the best checkpoint, which is saved after the swap, so the set is unclear.
    return None if evaluation.get("save_best") else "copies"
