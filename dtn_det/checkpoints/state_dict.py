"""Find the state dict in a checkpoint, choose one of several, and check that it holds whole weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dtn_det.checkpoints.two_networks import AVERAGED_NAME, TEACHER, WeightsKind, choose_set, relate, undecided
from dtn_det.errors import CheckpointError

StateDict = dict[str, Tensor]
"""Tensors by name."""

# Keys of checkpoints under which libraries store the weights that the optimizer updates (plain), and their average.
PLAIN_PLACES = ("state_dict", "model", "model_state_dict", "module", "net", "network", "weights", "student")
AVERAGED_PLACES = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "model_state_dict_ema"),
    *("ema_model_state_dict", "ema_model", "ema", "averaged_state_dict", "shadow"),
)

# Key under which Lightning's WeightAveraging stores the plain weights; it stores the average under ``state_dict``.
_LIGHTNINGS = "current_model_state"

# Pattern of the keys under which users' programs store other training data, such as optimizers and metrics.
_OF_TRAINING_KEY = re.compile(
    r"^opt|optim|sched|scaler|loss|criterion|metric|rng|random|grad|meta|hyper|args|config|callback"
)
# A dict under an unknown key counts as a state dict if it has at least this many tensors.
_FEWEST = 2

# Names of counters that classes for weight averages store among their tensors.
_COUNTERS = frozenset({"steps", "n_averaged", "num_updates", "decay"})
# Counters of ema_pytorch, which are removed only together: a module may have its own buffer named `step`.
_COUNTERS_OF_EMA_PYTORCH = frozenset({"initted", "step"})

MERGE = (
    "with PEFT, load it into the model that it adapts, and save the state_dict() of model.merge_and_unload() as the "
    "checkpoint"
)
"""Advice on what to do with an adapter; it ends the sentence of an error."""

# `torch.nn.utils.prune` replaces a weight `X` by `X_orig` and `X_mask`.
_ORIGINAL, _MASK = "_orig", "_mask"
# The name `base_layer` alone does not show an adapter, because DLA has a module of that name.
_OF_ADAPTER = re.compile(
    r"(^|\.)(lora_\w+|modules_to_save|ia3_l|hada_w\d_\w|lokr_w\d\w*|vera_lambda_\w)(\.|$)"
    r"|^base_model\.model\..*\.base_layer\."
)
# Name of the flat tensor in which FSDP1 with `use_orig_params=False` joins the parameters of a wrapped module.
_FLAT = re.compile(r"(^|\.)_?flat_param(_\d+)?$")
_SHOWN = 3


@dataclass(frozen=True)
class Chosen:
    """A state dict, and the place in the checkpoint where it was found.

    Attributes:
        kind: Kind of the weights if the checkpoint has both kinds or only an average, or if the user asked for a kind;
            else None.
        place: Key of the state dict in the checkpoint; empty if the checkpoint is itself the state dict.
        other: Key of the average if plain weights were chosen, and the reverse; empty if the checkpoint has only one
            kind.
        aside: Keys of the state dicts of other networks, such as the teacher of a distillation.
    """

    state: StateDict
    kind: WeightsKind | None = None
    place: str = ""
    other: str = ""
    aside: tuple[str, ...] = ()


def choose_weights(content: Mapping[str, Any], wanted: WeightsKind | None = None) -> Chosen:
    """Find the state dict of a checkpoint.

    If a checkpoint has an average and plain weights, the average is taken, as timm does. MMEngine intends the average
    too: its ``EMAHook`` saves the average under ``state_dict`` and the weights that the optimizer updates under
    ``ema_state_dict``. If a checkpoint has several networks, their names may show which one to load, see
    :mod:`dtn_det.checkpoints.two_networks`.

    Args:
        content: A state dict; or a dict with one, perhaps nested, under a key of :data:`PLAIN_PLACES` or
            :data:`AVERAGED_PLACES`; or a dict without these keys in which exactly one key holds a state dict.
        wanted: Kind of weights to take; None to decide as described above.

    Returns:
        The state dict, with the names of the file.

    Raises:
        CheckpointError: There is no state dict, or none of the wanted kind. Or there are several, and nothing shows
            which one to load.
    """
    _check_same_places(content)
    plain = next(((key, state) for key in PLAIN_PLACES if (state := _weights(content.get(key)))), None)
    averaged = next(((key, state) for key in AVERAGED_PLACES if (state := _weights(content.get(key)))), None)
    if plain and averaged and _is_mmengines(content):
        # EMAHook swaps the two sets of weights: ``ema_state_dict`` holds the weights that the average has replaced.
        plain, averaged = averaged, plain
    if composer := _composers(content):
        plain, averaged = composer
    if plain and not averaged and (moved := _weights(content.get(_LIGHTNINGS))):
        plain, averaged = (_LIGHTNINGS, moved), plain
    others = dict(_others(content))
    nested = [key for key in others if not {*PLAIN_PLACES, *AVERAGED_PLACES}.isdisjoint(content.get(key, ()))]
    if not plain and not averaged and len(others) == len(nested) == 1:
        inner = choose_weights(content[nested[0]], wanted)
        place, beside, *rest = (key and f"{nested[0]}.{key}" for key in (inner.place, inner.other, *inner.aside))
        return replace(inner, place=place, other=beside, aside=tuple(rest))
    averaged = averaged or _only({key: state for key, state in others.items() if AVERAGED_NAME.search(key)})
    bare = _tensors(content)
    unnamed = {key: state for key, state in others.items() if not AVERAGED_NAME.search(key)}
    if plain is None:
        networks = {key: state for key, state in unnamed.items() if len(state) > len(bare)}
        key = choose_set(networks, "plain") if networks else None
        plain = (key, networks.pop(key)) if key is not None else _only(networks)
    else:
        networks = {key: state for key, state in unnamed.items() if TEACHER.search(key)}
    aside: list[str] = []
    meant: WeightsKind = "ema" if averaged else "plain"
    for key, state in networks.items():
        if plain is None:
            break
        relation = relate(plain[0], key, {plain[0]: plain[1], key: state})
        if relation is None or relation.average != key or averaged:
            aside.append(key)
        else:
            averaged, meant = (key, state), "ema" if relation.meant == key else "plain"
    if plain is None and averaged is None:
        if not bare and (lists := averages_without_names(content)):
            raise CheckpointError(
                f"expected a state dict, got an average of the weights (EMA) that is a list without names, under "
                f"{lists[0]!r}: copy it into the model in the program that wrote it, and save the model's state_dict()"
            )
        if not bare:
            raise CheckpointError(
                f"expected a state dict, or one under {', '.join(map(repr, PLAIN_PLACES[:3]))} or the like, got a "
                f"dict with the keys {some(content) or '(none)'}: name a checkpoint that training has written"
            )
        if not _is_averaged_model(content):
            return Chosen(bare)
        plain, averaged, meant = None, ("module", bare), "ema"
    elif plain is not None and averaged is None and _is_averaged_model(content.get(plain[0])):
        plain, averaged, meant = None, plain, "ema"
    found: dict[WeightsKind, tuple[str, StateDict] | None] = {"ema": averaged, "plain": plain}
    kind: WeightsKind = wanted or meant
    chosen = found[kind]
    other = found["plain" if kind == "ema" else "ema"]
    # Prefixes of names within the state dict may still mark an average, such as ``ema_model.`` of Lightning.
    if chosen is None and kind == "ema" and plain is not None:
        return Chosen(plain[1], None, plain[0], aside=tuple(aside))
    if chosen is None:
        raise CheckpointError(
            f"expected the weights that the optimizer updated, got only their average, under "
            f"{averaged[0] if averaged else ''!r}: take it, --weights ema"
        )
    place, state = chosen
    said = kind if other is not None or kind == "ema" or wanted else None
    return Chosen(state, said, place, "" if other is None else other[0], tuple(aside))


_WRITE = (
    "write the one that is meant to a file of its own, with torch.save({'state_dict': torch.load(FILE)[KEY]}, NEW_FILE)"
)


def _check_same_places(content: Mapping[str, Any]) -> None:
    """Check that no two keys of :data:`PLAIN_PLACES` hold different weights of the same model."""
    places = {key: state for key in PLAIN_PLACES if (state := _weights(content.get(key)))}
    shapes = {key: {name: value.shape for name, value in state.items()} for key, state in places.items()}
    same = {key: state for key, state in places.items() if shapes[key] == next(iter(shapes.values()))}
    if len(same) > 1 and choose_set(same) is None:
        raise undecided(same, _WRITE)


def _others(content: Mapping[str, Any]) -> Iterator[tuple[str, StateDict]]:
    """Yield unknown keys and their state dicts, without those of optimizers and other training data."""
    for key, value in content.items():
        key = str(key)
        if key in PLAIN_PLACES or key in AVERAGED_PLACES or key == _LIGHTNINGS or _OF_TRAINING_KEY.search(key.lower()):
            continue
        state = _weights(value)
        if len(state) >= _FEWEST:
            yield key, state
    callbacks = content.get("callbacks")
    for name, value in callbacks.items() if isinstance(callbacks, Mapping) else ():
        for key, inner in value.items() if isinstance(value, Mapping) else ():
            if AVERAGED_NAME.search(str(key)) and len(state := _weights(inner)) >= _FEWEST:
                yield f"callbacks.{name}.{key}", state


def _only(states: Mapping[str, StateDict]) -> tuple[str, StateDict] | None:
    """Return the only state dict and its key; None if there is none. Raise an error if there are several."""
    if len(states) > 1:
        raise CheckpointError(
            f"expected one state dict, or one under {', '.join(map(repr, PLAIN_PLACES[:3]))}, got several, under "
            f"{', '.join(map(repr, states))}: {_WRITE}"
        )
    return next(iter(states.items()), None)


def averages_without_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of averages that are lists of tensors, as torch_ema, diffusers and Lightning's callbacks write.

    Such an average cannot be loaded into a model, because its tensors have no names.
    """
    callbacks = content.get("callbacks")
    of_callbacks = callbacks.items() if isinstance(callbacks, Mapping) else ()
    places = [("", content), *content.items(), *((f"callbacks.{key}", value) for key, value in of_callbacks)]
    found = []
    for key, value in places:
        for name, inner in value.items() if isinstance(value, Mapping) else ():
            named = name == "shadow_params" or (str(key).startswith("callbacks.") and AVERAGED_NAME.search(str(name)))
            if named and isinstance(inner, list | tuple) and any(isinstance(one, Tensor) for one in inner):
                found.append(str(key or name))
    return tuple(found)


def _is_averaged_model(value: object) -> bool:
    """Return whether ``value`` is, or contains, a state dict of ``torch.optim.swa_utils.AveragedModel``."""
    if not isinstance(value, Mapping):
        return False
    inner = next((value[key] for key in PLAIN_PLACES if isinstance(value.get(key), Mapping)), None)
    return _is_averaged_model(inner) if inner is not None else isinstance(value.get("n_averaged"), Tensor)


def _composers(content: Mapping[str, Any]) -> tuple[tuple[str, StateDict], tuple[str, StateDict]] | None:
    """Return the plain and the averaged weights, each with its key, of a checkpoint of Composer with EMA; else None.

    Composer's EMA exchanges plain and averaged weights before it saves. Source: ``composer/algorithms/ema/ema.py``.
    """
    algorithms = content.get("algorithms")
    pairs = algorithms.items() if isinstance(algorithms, Mapping) else algorithms
    for pair in pairs if isinstance(pairs, Iterable) and not isinstance(pairs, str) else ():
        state = pair[1] if isinstance(pair, tuple | list) and len(pair) == 2 else None
        if not isinstance(state, Mapping) or "ema_weights_active" not in state:
            continue
        own = "model", _weights(content.get("model"))
        other = "training_model" if state["ema_weights_active"] else "ema_model"
        beside = f"algorithms.{pair[0]}.{other}", _weights(state.get(other))
        if own[1] and beside[1]:
            return (beside, own) if state["ema_weights_active"] else (own, beside)
    return None


def _is_mmengines(content: Mapping[str, Any]) -> bool:
    average = content.get("ema_state_dict")
    return isinstance(average, Mapping) and isinstance(content.get("state_dict"), Mapping) and "steps" in average


def _weights(value: object) -> StateDict:
    """Return the tensors of a state dict, which may be nested in ``value``; empty if there is no state dict."""
    if not isinstance(value, Mapping):
        return {}
    for key in (*PLAIN_PLACES, "shadow"):
        if isinstance(value.get(key), Mapping) and (inner := _weights(value[key])):
            return inner
    return _tensors(value)


def _tensors(content: Mapping[str, Any]) -> StateDict:
    found = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    found = {key: value if value.layout is torch.strided else value.to_dense() for key, value in found.items()}
    counters = _COUNTERS | (_COUNTERS_OF_EMA_PYTORCH if found.keys() >= _COUNTERS_OF_EMA_PYTORCH else frozenset())
    return {} if set(found) <= _COUNTERS else {key: value for key, value in found.items() if key not in counters}


def apply_masks(state: Mapping[str, Tensor], own: Iterable[str] = ()) -> tuple[StateDict, tuple[str, ...]]:
    """Replace each pruned weight and its mask by their product, as ``torch.nn.utils.prune.remove`` does.

    Args:
        state: Names and tensors of a file, in which a pruned weight ``X`` is stored as ``X_orig`` and ``X_mask``.
        own: Parameter names of the model. If the model itself is pruned, nothing is replaced.

    Returns:
        The state dict, and the names ``X`` of the pruned weights.
    """
    pruned = {
        original.removesuffix(_ORIGINAL): (value, mask)
        for original, value in state.items()
        if original.endswith(_ORIGINAL)
        and (mask := state.get(original.removesuffix(_ORIGINAL) + _MASK)) is not None
        and mask.shape == value.shape
        and original.removesuffix(_ORIGINAL) not in state
    }
    if not pruned or any(name.endswith(_ORIGINAL) for name in own):
        return dict(state), ()
    gone = {name + end for name in pruned for end in (_ORIGINAL, _MASK)}
    kept = {name: value for name, value in state.items() if name not in gone}
    return {**kept, **{name: mask.to(value.dtype) * value for name, (value, mask) in pruned.items()}}, tuple(pruned)


def check_whole(state: Mapping[str, Tensor], own: Iterable[str] = ()) -> None:
    """Check that a state dict holds each weight of a whole model as a separate tensor.

    Adapters add to the weights of another file. DeepSpeed's ZeRO-3 stores the values in other files. FSDP may join all
    weights of a module in one flat tensor.

    Args:
        own: Parameter names of the model. If the model itself has adapters or flat tensors, the state dict may have
            them too.

    Raises:
        CheckpointError: The state dict has an adapter, lacks values as with ZeRO-3, or has a flat tensor of FSDP.
    """
    # Skip adapters that are parametrizations of PyTorch: they are not PEFT's, and `check_parametrizations` reports
    # them.
    adapters = [name for name in state if _OF_ADAPTER.search(name) and "parametrizations." not in name]
    if adapters and not any(map(_OF_ADAPTER.search, own)):
        raise CheckpointError(
            f"expected the weights of a model, got {len(adapters):,} tensors in the names of an adapter "
            f"such as LoRA ({some(adapters, _SHOWN)}), which adds to the weights of another checkpoint: {MERGE}"
        )
    flat = [name for name in state if _FLAT.search(name)]
    if flat and not any(map(_FLAT.search, own)):
        raise CheckpointError(
            f"expected the weights of a model, got {len(flat):,} flat rows of weights ({some(flat, _SHOWN)}), into "
            "which FSDP joins those of a module: load the checkpoint into the FSDP model that wrote it, and save its "
            "state_dict() within FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT)"
        )
    empty = [name for name, value in state.items() if tuple(value.shape) == (0,) and name.endswith("weight")]
    if empty:
        raise CheckpointError(
            f"expected the weights of a model, got {len(empty):,} empty tensors ({some(empty, _SHOWN)}), as DeepSpeed "
            "ZeRO-3 writes where the values are in a file of each process: run the zero_to_fp32.py that DeepSpeed has "
            "put into the folder of the checkpoint, and name the file that it writes"
        )


def some(names: Iterable[str], limit: int = 8) -> str:
    """Join names in alphabetical order, up to a limit, and add the number of names left out."""
    ordered = sorted(map(str, names))
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more
