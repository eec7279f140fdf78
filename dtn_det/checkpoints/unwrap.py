"""Remove the prefixes that wrappers add to names of weights. The names of the model show what is a prefix."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dtn_det.checkpoints.state_dict import StateDict, WeightsKind
from dtn_det.layers.options import EXTRA_STATE

# Number of prefixes to try, the most frequent first.
_TRIED = 6
_AVERAGED_NAME = re.compile(r"(^|[._])(ema|teacher|averaged|shadow)([._]|$)")
# Parts of names that torch.compile, activation checkpointing and FSDP insert; they can wrap any module of a model.
_COMPILED = re.compile(r"(^|\.)(?:(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.)+")
_IN_PARALLEL = re.compile(r"(^|\.)module\.")


@dataclass(frozen=True)
class Unwrapped:
    """A state dict in the names of a model.

    Attributes:
        prefix: Prefix that was removed from all names.
        added: Prefix that was added to all names.
        left_out: Names of the file without the prefix; their weights are not in ``state``.
        kind: Kind of the weights if ``prefix`` or ``other`` is that of an average; else None.
        other: Prefix of the weights of the other kind; empty if there are none.
    """

    state: StateDict
    prefix: str = ""
    added: str = ""
    left_out: tuple[str, ...] = ()
    kind: WeightsKind | None = None
    other: str = ""


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
        wanted: Kind to choose if two prefixes fit equally well, such as ``teacher.`` and ``student.``; None for the
            average.

    Returns:
        The state dict under the names that match the model best; unchanged if its own names do.
    """
    best, best_score = Unwrapped(dict(state)), _score(state, shapes)
    for rename in _SPELLINGS:
        names = {name: rename(name) for name in state}
        prefixes = _prefixes(names.values(), shapes)
        for prefix, _ in prefixes.most_common(_TRIED):
            found = {new.removeprefix(prefix): state[old] for old, new in names.items() if new.startswith(prefix)}
            score = _score(found, shapes)
            # If only a few names match without the prefix, they may match by chance.
            if prefix and 2 * score[0] <= min(len(shapes), len(state)):
                continue
            if score <= best_score and not (prefix and score == best_score and _better(prefix, best.prefix, wanted)):
                continue
            left = tuple(old for old, new in names.items() if not new.startswith(prefix))
            best, best_score = Unwrapped(found, prefix, left_out=left), score
    if not best_score[0]:
        added = _prefixes(shapes, state).most_common(1)
        if added and added[0][0] and 2 * added[0][1] > len(shapes):
            best = Unwrapped({added[0][0] + name: value for name, value in state.items()}, added=added[0][0])
    return _with_kind(best, shapes)


def unwrap_by(state: Mapping[str, Tensor], pattern: re.Pattern[str], wanted: WeightsKind | None = None) -> Unwrapped:
    """Remove the prefix before names that match a pattern, unless some of these names have no prefix.

    Args:
        pattern: Pattern of the beginnings of the model's names.
        wanted: See :func:`unwrap_names`.

    Returns:
        The weights under the most frequent prefix, without the prefix; unchanged if no name matches. If weights of both
        kinds are frequent, ``wanted`` decides.
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
    first, *rest = (prefix for prefix, count in known.most_common() if 2 * count > max(known.values()))
    prefix = next((other for other in rest if _better(other, first, wanted)), first)
    other = next((one for one in (first, *rest) if one != prefix and _is_average(one) != _is_average(prefix)), "")
    taken = {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
    left = tuple(name for name in named if not name.startswith(prefix))
    return replace(Unwrapped(taken, prefix, left_out=left), kind=_kind(prefix, other), other=other)


def _without_compile(name: str) -> str:
    return _COMPILED.sub(r"\1", name)


def _without_parallel(name: str) -> str:
    return _IN_PARALLEL.sub(r"\1", _without_compile(name))


_SPELLINGS: tuple[Callable[[str], str], ...] = (str, _without_compile, _without_parallel)


def _score(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> tuple[int, int]:
    """Count the names that the model has, and how many of these also have the model's shapes."""
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


def _is_average(prefix: str) -> bool:
    return _AVERAGED_NAME.search(prefix) is not None


def _better(prefix: str, than: str, wanted: WeightsKind | None) -> bool:
    """Return whether ``prefix`` marks the wanted kind and ``than`` does not."""
    average = wanted != "plain"
    return _is_average(prefix) == average and _is_average(than) != average


def _kind(prefix: str, other: str) -> WeightsKind | None:
    """Return the kind of the weights under ``prefix``; None if neither prefix marks an average."""
    return "ema" if _is_average(prefix) else "plain" if _is_average(other) else None


def _with_kind(found: Unwrapped, shapes: Mapping[str, torch.Size]) -> Unwrapped:
    """Add the kind of the weights, and the prefix of a second complete set if the file has one."""
    prefixes = _prefixes(map(_without_parallel, found.left_out), shapes)
    other = next((prefix for prefix, count in prefixes.most_common(1) if prefix and 2 * count > len(shapes)), "")
    kind = _kind(found.prefix, other)
    return found if kind is None else replace(found, kind=kind, other=other)
