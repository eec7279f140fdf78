"""The state dict within a checkpoint, and which of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from dtn_det.checkpoints.errors import CheckpointError
from dtn_det.checkpoints.names import StateDict, some

WeightsKind = Literal["ema", "plain"]
"""The exponential moving average of the weights, or the weights that the optimizer moved."""

PLAIN_PLACES = ("state_dict", "model", "model_state_dict", "module", "net", "network", "weights", "student")
AVERAGED_PLACES = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "model_state_dict_ema"),
    *("ema_model_state_dict", "ema_model", "ema", "averaged_state_dict", "shadow", "teacher"),
)

# Counters of averages, which are no weights.
_COUNTERS = frozenset({"steps", "n_averaged", "num_updates", "decay"})


@dataclass(frozen=True)
class Chosen:
    """A state dict, and where it was found.

    Attributes:
        state: Names and tensors.
        kind: What it is, where the checkpoint has both or an average alone; None where it does not say.
        place: Key of the checkpoint under which it stood; empty for a bare state dict.
        other: Key of the other kind, empty where there is none.
    """

    state: StateDict
    kind: WeightsKind | None = None
    place: str = ""
    other: str = ""


def choose_weights(content: Mapping[str, Any], wanted: WeightsKind | None = None) -> Chosen:
    """Find the state dict of a checkpoint.

    Of a checkpoint with both kinds the average is taken, as timm does and as MMEngine means it: its ``EMAHook`` saves
    the average under ``state_dict`` and the weights of the optimizer under ``ema_state_dict``.

    Args:
        content: A state dict, or a dict with one under a key of :data:`PLAIN_PLACES` or :data:`AVERAGED_PLACES`,
            perhaps nested.
        wanted: Which of the two kinds; None for the average where there is one.

    Returns:
        The state dict, with the names of the file.

    Raises:
        CheckpointError: No state dict, or none of the kind that is wanted.
    """
    plain = next(((key, state) for key in PLAIN_PLACES if (state := _weights(content.get(key)))), None)
    averaged = next(((key, state) for key in AVERAGED_PLACES if (state := _weights(content.get(key)))), None)
    if plain and averaged and _is_mmengines(content):
        # What EMAHook calls so holds the weights that it put in the place of the average.
        plain, averaged = averaged, plain
    if plain is None and averaged is None:
        bare = _tensors(content)
        if not bare:
            raise CheckpointError(
                f"expected a state dict, or one under {', '.join(map(repr, PLAIN_PLACES[:3]))} or the like, got a "
                f"dict with the keys {some(content) or '(none)'}: name a checkpoint that training has written"
            )
        return Chosen(bare)
    found: dict[WeightsKind, tuple[str, StateDict] | None] = {"ema": averaged, "plain": plain}
    kind: WeightsKind = wanted or ("ema" if averaged else "plain")
    chosen = found[kind]
    other = found["plain" if kind == "ema" else "ema"]
    # Names within the state dict may tell the two apart, such as ``ema_model.`` of Lightning.
    if chosen is None and kind == "ema" and plain is not None:
        return Chosen(plain[1], None, plain[0])
    if chosen is None:
        raise CheckpointError(
            f"expected the weights of the optimizer, got an average under {averaged[0] if averaged else ''!r} alone: "
            "take it, --weights ema"
        )
    place, state = chosen
    said = kind if other is not None or kind == "ema" or wanted else None
    return Chosen(state, said, place, "" if other is None else other[0])


def _is_mmengines(content: Mapping[str, Any]) -> bool:
    average = content.get("ema_state_dict")
    return isinstance(average, Mapping) and isinstance(content.get("state_dict"), Mapping) and "steps" in average


def _weights(value: object) -> StateDict:
    """The tensors of a state dict, or of one that is nested in what may be one."""
    if not isinstance(value, Mapping):
        return {}
    for key in (*PLAIN_PLACES, "shadow"):
        if isinstance(value.get(key), Mapping) and (inner := _weights(value[key])):
            return inner
    return _tensors(value)


def _tensors(content: Mapping[str, Any]) -> StateDict:
    found = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    return {} if set(found) <= _COUNTERS else {key: value for key, value in found.items() if key not in _COUNTERS}
