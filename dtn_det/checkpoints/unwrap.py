"""Remove the prefixes that wrappers add to names of weights, by comparison with the names of the model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dtn_det.checkpoints.state_dict import StateDict
from dtn_det.checkpoints.two_networks import AVERAGED_NAME, WeightsKind, choose_set, relate, same_weights, undecided
from dtn_det.layers.options import EXTRA_STATE

# Number of prefixes to try, the most frequent first.
_TRIED = 6
# Parts of names that torch.compile, activation checkpointing and FSDP insert; they can wrap any module of a model.
_COMPILED = re.compile(r"(^|\.)(?:(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.)+")
_IN_PARALLEL = re.compile(r"(^|\.)module\.")


@dataclass(frozen=True)
class Unwrapped:
    """A state dict under the names of a model.

    Attributes:
        prefix: Prefix that was removed from all names.
        added: Prefix that was added to all names.
        left_out: Names in the file that lack the prefix; their weights are not in ``state``.
        kind: ``'ema'`` or ``'plain'`` if one of ``prefix`` and ``other`` marks an average, else None.
        other: Prefix of the weights of the other kind; empty if there are none.
        aside: Prefixes of other networks that have most names of the model, such as the teacher of a distillation.
    """

    state: StateDict
    prefix: str = ""
    added: str = ""
    left_out: tuple[str, ...] = ()
    kind: WeightsKind | None = None
    other: str = ""
    aside: tuple[str, ...] = ()


def unwrap_names(
    state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], wanted: WeightsKind | None = None
) -> Unwrapped:
    """Remove the prefixes of wrappers from the names of a file if more names then match the model's.

    ``_orig_mod.`` of ``torch.compile``, the names of activation checkpointing and FSDP, and ``module.`` of data
    parallelism are removed anywhere in a name. Any other prefix, such as ``model.`` of Lightning or ``backbone.`` of
    OpenMMLab, is found by comparison with the names of the model. A prefix that the model has and the file lacks is
    added.

    Args:
        shapes: Names and shapes of the model.
        wanted: Kind to choose if two prefixes fit equally well, such as ``model.`` and ``model_ema.``; None to let
            :func:`dtn_det.checkpoints.two_networks.choose_set` decide.

    Returns:
        The state dict under the names that match the model best, which may be its own names.

    Raises:
        CheckpointError: Different weights fit equally well, and nothing shows which ones to load.
    """
    own = Unwrapped(dict(state))
    tied, best_score = {"": own}, _score(state, shapes)
    for rename in _SPELLINGS:
        names = {name: rename(name) for name in state}
        prefixes = _prefixes(names.values(), shapes)
        for prefix, _ in prefixes.most_common(_TRIED):
            found = {new.removeprefix(prefix): state[old] for old, new in names.items() if new.startswith(prefix)}
            score = _score(found, shapes)
            # If only a few names match without the prefix, they may match by chance.
            if prefix and 2 * score[0] <= min(len(shapes), len(state)):
                continue
            if score < best_score or (score == best_score and not prefix):
                continue
            left = tuple(old for old, new in names.items() if not new.startswith(prefix))
            tied, best_score = tied if score == best_score else {}, score
            tied.setdefault(prefix, Unwrapped(found, prefix, left_out=left))
    if best_score[0]:
        return _with_others(_choose(tied, shapes, state, wanted), shapes, state)
    added = _prefixes(shapes, state).most_common(1)
    if added and added[0][0] and 2 * added[0][1] > len(shapes):
        return Unwrapped({added[0][0] + name: value for name, value in state.items()}, added=added[0][0])
    return own


def _choose(
    tied: Mapping[str, Unwrapped], shapes: Iterable[str], state: Iterable[str], wanted: WeightsKind | None
) -> Unwrapped:
    """Choose among prefixes whose names match the model equally well."""
    of_model = set(shapes)
    sets = {
        prefix: found.state if prefix else {name: value for name, value in found.state.items() if name in of_model}
        for prefix, found in tied.items()
    }
    chosen = choose_set(sets, wanted, state)
    if chosen is None and "" in tied:
        # The names match the model without removing a prefix. Further names are later refused as unexpected.
        chosen = ""
    if chosen is None:
        # A set with nothing beyond the names of the model fits better than one with other weights.
        fewest = min(map(len, sets.values()))
        smallest = [prefix for prefix, found in sets.items() if len(found) == fewest]
        if len(smallest) > 1:
            raise undecided(
                smallest,
                "write the one that is meant to a file of its own, with torch.save({name.removeprefix(PREFIX): value "
                "for name, value in state.items() if name.startswith(PREFIX)}, NEW_FILE)",
            )
        (chosen,) = smallest
    return tied[chosen]


def unwrap_by(state: Mapping[str, Tensor], pattern: re.Pattern[str], wanted: WeightsKind | None = None) -> Unwrapped:
    """Remove the prefix before names that match a pattern. If some matching names have no prefix, remove nothing.

    Args:
        pattern: Pattern of the beginnings of the model's names.
        wanted: See :func:`unwrap_names`.

    Returns:
        The weights under the most frequent prefix, without the prefix; unchanged if no name matches. If weights of both
        kinds are frequent, ``wanted`` decides.

    Raises:
        CheckpointError: Several sets of weights are frequent, and nothing shows which one to load.
    """
    named = {_without_parallel(name): value for name, value in state.items()}
    known = Counter(
        name[: found.start()]
        for name in named
        for found in pattern.finditer(name)
        if found.start() == 0 or name[found.start() - 1] == "."
    )
    if not known or "" in known:
        return Unwrapped(named if known else dict(state))
    frequent = [prefix for prefix, count in known.most_common() if 2 * count > max(known.values())]
    sets = {prefix: _under(prefix, named) for prefix in frequent}
    prefix = choose_set(sets, wanted, named)
    if prefix is None:
        raise undecided(frequent, "name it, as in init_cfg=dict(type='Pretrained', checkpoint=..., prefix=PREFIX)")
    left = tuple(name for name in named if not name.startswith(prefix))
    return _with_relations(Unwrapped(sets[prefix], prefix, left_out=left), sets, named)


def _without_compile(name: str) -> str:
    return _COMPILED.sub(r"\1", name)


def _without_parallel(name: str) -> str:
    return _IN_PARALLEL.sub(r"\1", _without_compile(name))


_SPELLINGS: tuple[Callable[[str], str], ...] = (str, _without_compile, _without_parallel)


def _score(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> tuple[int, int]:
    """Count the names that the model has, and how many of these names have the same shape in the model."""
    # Extra state is not counted, because old files have none.
    known = [name for name in state if name in shapes and not name.endswith(EXTRA_STATE)]
    return len(known), sum(state[name].shape == shapes[name] for name in known)


def _prefixes(names: Iterable[str], known: Iterable[str]) -> Counter[str]:
    """Count, for each prefix, the names that are this prefix followed by a known name."""
    wanted = set(known)
    counted: Counter[str] = Counter()
    for name in names:
        starts = [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]
        counted.update(name[:start] for start in starts if name[start:] in wanted)
    return counted


def _under(prefix: str, state: Mapping[str, Tensor]) -> StateDict:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _with_others(found: Unwrapped, shapes: Mapping[str, torch.Size], state: Mapping[str, Tensor]) -> Unwrapped:
    """Add the kind of the weights, and the prefixes of other sets that have most of the model's names."""
    left = found.left_out if found.prefix else [name for name in state if name not in shapes]
    named = {_without_parallel(name): state[name] for name in left if name in state}
    prefixes = _prefixes(named, shapes).most_common(_TRIED)
    sets = {prefix: _under(prefix, named) for prefix, count in prefixes if prefix and 2 * count > len(shapes)}
    if not found.prefix:
        # Names outside these sets stay in the state dict, so that they are refused as unexpected.
        sets = {prefix: others for prefix, others in sets.items() if relate("", prefix, {"": state, prefix: others})}
    if not found.prefix and sets:
        beyond = tuple(name for name in left if _without_parallel(name).startswith(tuple(sets)))
        kept = {name: value for name, value in found.state.items() if name not in set(beyond)}
        found = replace(found, state=kept, left_out=beyond)
    return _with_relations(found, sets, state)


def _with_relations(found: Unwrapped, sets: Mapping[str, StateDict], state: Iterable[str]) -> Unwrapped:
    """Set the kind of the weights by comparison with the other sets, and record the prefixes of these sets."""
    beside, aside, other = tuple(state), [], ""
    kind: WeightsKind | None = "ema" if AVERAGED_NAME.search(found.prefix) else None
    for prefix, others in sets.items():
        if prefix == found.prefix:
            continue
        relation = relate(found.prefix, prefix, {found.prefix: found.state, prefix: others}, beside)
        if relation is None and same_weights(others, found.state):
            continue
        if relation is None or not relation.average or other:
            aside.append(prefix)
        else:
            kind, other = ("ema" if relation.average == found.prefix else "plain"), prefix
    return replace(found, kind=kind, other=other, aside=tuple(aside))
