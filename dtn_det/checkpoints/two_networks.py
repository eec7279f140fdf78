"""Choose among several sets of weights in one checkpoint. One set may be the average (EMA) of another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dtn_det.errors import CheckpointError

WeightsKind = Literal["ema", "plain"]
"""``'ema'`` is an exponential moving average of the weights, ``'plain'`` the weights that the optimizer updated."""


def _word(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[._-])(?:{words})(?=[._-]|$)", re.IGNORECASE)


AVERAGED_NAME = _word("ema|swa|averaged?|shadow|polyak")
"""Pattern of the words that mark a set of weights as an average, in a key or a prefix."""

TEACHER = _word("teacher")
"""Pattern of the word for a network that another network learns from: an average of that network, or a separate one."""

_STUDENT = _word("student")
# Pairs of words in the names of two networks: the moving average, and the trained network that it follows. They come
# from BYOL, MoCo and MoCo v3, whose authors evaluate the trained network.
_FOLLOWERS = (
    (_word("target"), _word("online")),
    (_word("encoder_k"), _word("encoder_q")),
    (_word("key"), _word("query")),
    (_word("momentum"), re.compile("")),
)
# Names that show a distillation, such as the `distiller` and its `connectors` of mmrazor.
_DISTILLATION = re.compile(r"distill|(^|[._])(kd|connectors?)([._]|$)", re.IGNORECASE)
# Smallest cosine between the matrices of a network and of its average. The cosine is near 1 for an average, and near 0
# for two networks that were trained separately.
_SAME_DIRECTION = 0.5
_MATRICES = 24
_IN_PARALLEL = re.compile(r"(^|\.)module\.")


@dataclass(frozen=True)
class Relation:
    """How two sets of weights relate.

    Attributes:
        meant: Name of the set that is loaded by default, unless the user asks for the other kind.
        average: Name of the set that is an average of the other set; empty if neither is.
    """

    meant: str
    average: str = ""

    def choose(self, one: str, other: str, wanted: WeightsKind | None) -> str:
        """Return which set of weights to load: the one of the ``wanted`` kind, or with None the default."""
        if wanted is None or not self.average:
            return self.meant
        return self.average if wanted == "ema" else one if self.average == other else other


def relate(
    one: str, other: str, sets: Mapping[str, Mapping[str, Tensor]], beside: Iterable[str] = ()
) -> Relation | None:
    """Decide by names and weights how two sets of weights relate.

    A teacher is the average of a student only under three conditions: it has the names and shapes of the student, the
    matrices of both point in the same direction, and no name shows a distillation. Otherwise the teacher is another
    network, which only served to train the student.

    Args:
        one: Key or prefix of a set.
        other: Key or prefix of another set.
        sets: Names and tensors by key or prefix, without the prefix.
        beside: All names of the checkpoint.

    Returns:
        The relation; None if nothing shows which of the two is meant.
    """
    for first, second in ((one, other), (other, one)):
        if AVERAGED_NAME.search(first) and not AVERAGED_NAME.search(second):
            return Relation(first, first)
    for first, second in ((one, other), (other, one)):
        if TEACHER.search(first) and not TEACHER.search(second):
            apart = not _STUDENT.search(second) or any(map(_DISTILLATION.search, beside))
            return Relation(second) if apart or not follows(sets[first], sets[second]) else Relation(first, first)
        for follower, partner in _FOLLOWERS:
            if not follower.search(first) or follower.search(second):
                continue
            if partner.search(second) or follower.sub("", first).lstrip("._-") == second.lstrip("._-"):
                return Relation(second, first)
    return None


def follows(average: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> bool:
    """Return whether one set of weights can be a moving average of another, by names, shapes and matrices."""
    average, trained = (
        {_IN_PARALLEL.sub(r"\1", name): value for name, value in state.items()} for state in (average, trained)
    )
    if any(name not in trained or trained[name].shape != value.shape for name, value in average.items()):
        return False
    matrices = [name for name, value in average.items() if value.ndim > 1 and value.is_floating_point()]
    if any(state[name].is_meta for name in matrices for state in (average, trained)):
        return True
    largest = sorted(matrices, key=lambda name: -average[name].numel())[:_MATRICES]
    dot = torch.zeros(3, dtype=torch.float64)
    for name in largest:
        first, second = average[name].detach().flatten().double(), trained[name].detach().flatten().double()
        dot += torch.stack([first @ second, first @ first, second @ second]).cpu()
    return not largest or bool(dot[0] > _SAME_DIRECTION * (dot[1] * dot[2]).sqrt())


def same_weights(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two sets have the same names and values, as a module that is saved under two names does."""
    return one.keys() == other.keys() and all(
        value is other[name] or (value.shape == other[name].shape and torch.equal(value, other[name]))
        for name, value in one.items()
    )


def choose_set(
    sets: Mapping[str, Mapping[str, Tensor]], wanted: WeightsKind | None = None, beside: Iterable[str] = ()
) -> str | None:
    """Choose among sets that all fit: the set of the wanted kind, or the set that is meant.

    Args:
        sets: Names and tensors by key or prefix, at least one.
        wanted: Kind of weights to take; None for the set that is meant.
        beside: All names of the checkpoint.

    Returns:
        Key or prefix of the chosen set; None if nothing shows which one is meant.
    """
    beside = tuple(beside)

    def would_do(name: str, other: str) -> bool:
        relation = relate(name, other, sets, beside)
        return (
            same_weights(sets[name], sets[other]) if relation is None else relation.choose(name, other, wanted) == name
        )

    return next((name for name in sets if all(would_do(name, other) for other in sets if other != name)), None)


def undecided(names: Iterable[str], advice: str) -> CheckpointError:
    """Return the error for several sets of weights if nothing shows which one is meant."""
    return CheckpointError(
        f"expected one set of weights that fits, got several that differ, under "
        f"{' and '.join(map(repr, names))}, and nothing shows which one is meant: {advice}"
    )
