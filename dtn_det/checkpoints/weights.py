"""The weights of a model in a checkpoint, and a record of how they were found there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from dtn_det.checkpoints.files import folder_remarks
from dtn_det.checkpoints.fit import with_tied_names
from dtn_det.checkpoints.lit_ema import choose_lit_ema
from dtn_det.checkpoints.mmcv_ema import EmaCopies, find_copies
from dtn_det.checkpoints.parametrizations import check_parametrizations, fold_weight_norm
from dtn_det.checkpoints.state_dict import (
    Chosen,
    StateDict,
    apply_masks,
    averages_without_names,
    check_whole,
    choose_weights,
)
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.checkpoints.unwrap import Unwrapped, unwrap_names
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import CheckpointError

PRUNED = "pruned_weights"
"""Kind of the remark on pruned weights."""

WEIGHT_NORM = "weight_norm"
"""Kind of the remark on weights that were stored as magnitude and direction."""

COPIES = "ema_copies"
"""Kind of the remark on a second set of weights within the state dict."""

_SAID = {"ema": "the average of the weights (EMA)", "plain": "the weights without average"}


@dataclass(frozen=True)
class Weights:
    """The weights of a model, and how they were found in a file.

    Attributes:
        chosen: The state dict that was chosen from the file.
        named: The weights of this state dict, under the names of the model.
        unnamed: Keys of averages that are lists without names. They cannot be loaded.
        pruned: Names of the pruned weights. In ``named`` they are multiplied by their masks.
        copies: Averaged and plain weights, if mmcv's EMAHook wrote both into the state dict; else None.
        folded: Names of the weights that the file stores as magnitude and direction (weight normalization). In
            ``named`` the two are joined.
    """

    chosen: Chosen
    named: Unwrapped
    unnamed: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    copies: EmaCopies | None = None
    folded: tuple[str, ...] = ()

    @property
    def state(self) -> StateDict:
        """Tensors under the names of the model."""
        return self.named.state

    @property
    def kind(self) -> WeightsKind | None:
        """``'ema'`` or ``'plain'`` if the file shows which; else None."""
        return self.chosen.kind or (self.copies and self.copies.kind) or self.named.kind

    def check_kind(self, wanted: WeightsKind | None) -> None:
        """Check that an average was found if one is wanted.

        Raises:
            CheckpointError: An average is wanted, and nothing in the file marks its weights as an average.
        """
        if wanted == "ema" and self.kind != "ema" and self.copies is None:
            raise CheckpointError(
                "expected an average of the weights (EMA), got weights that the file does not call so: leave out "
                "--weights"
            )

    def fact(self) -> dict[str, str]:
        """Return the kind of the weights as an entry for a store's manifest; an empty dict if the kind is unknown."""
        if self.copies is not None:
            return {"weights": self.copies.fact()}
        place = self.chosen.place if self.chosen.kind else self.named.prefix.rstrip(".")
        if self.kind is not None:
            return {"weights": f"{self.kind} ({place or 'names of the model'})"}
        if not self.aside:
            return {}
        others = " and ".join(name.rstrip(".") for name in self.aside)
        return {"weights": f"{self._taken.rstrip('.') or 'names of the model'}, not {others}"}

    @property
    def aside(self) -> tuple[str, ...]:
        """Keys and prefixes of other networks in the file, such as the teacher of a distillation."""
        return (*self.chosen.aside, *self.named.aside)

    @property
    def _taken(self) -> str:
        """Key or prefix of the weights that were taken, if the file has other networks too."""
        return self.chosen.place if self.chosen.aside else self.named.prefix

    def remarks(self, source: str) -> tuple[Remark, ...]:
        """Return remarks on the choice of file and state dict, on pruned weights, and on weight normalization."""
        found = (self._of_average, self._of_networks, self._of_pruning, self._of_weight_norm)
        return (*folder_remarks(source), *(remark for of_kind in found for remark in of_kind(source)))

    def _of_networks(self, source: str) -> tuple[Remark, ...]:
        if not self.aside:
            return ()
        taken = f"those under {self._taken!r}" if self._taken else "those under the names of the model"
        what = (
            f"other set of weights is in the file, under {', '.join(map(repr, self.aside))}, and was left out: {taken} "
            "were taken; to evaluate the others, write them to a file of their own"
        )
        return (Remark("other_networks", what, source, len(self.aside)),)

    def _of_weight_norm(self, source: str) -> tuple[Remark, ...]:
        if not self.folded:
            return ()
        what = agreeing(
            len(self.folded),
            "{weight is|weights are} under weight normalization, kept as magnitude and direction: the model takes the "
            "{weight|weights} that the two make, as torch.nn.utils.parametrize.remove_parametrizations does",
        )
        return (Remark(WEIGHT_NORM, what, source, len(self.folded), self.folded[:3]),)

    def _of_pruning(self, source: str) -> tuple[Remark, ...]:
        what = (
            "weights are pruned, kept as X_orig and X_mask: the model takes their product X, as "
            "torch.nn.utils.prune.remove makes it"
        )
        return (Remark(PRUNED, what, source, len(self.pruned), self.pruned[:3]),) if self.pruned else ()

    def _of_average(self, source: str) -> tuple[Remark, ...]:
        """Return a remark if the average was taken, if it was left out, or if it is a list without names."""
        if self.copies is not None:
            return (Remark(COPIES, self.copies.remark(), source),)
        if self.kind is None:
            what = (
                "average of the weights (EMA) is a list without names, which cannot be matched to a model: the weights "
                "without average were taken; write a state dict of the averaged model to evaluate that"
            )
            named = tuple(map(repr, self.unnamed))
            return (Remark("average_without_names", what, source, len(named), named),) if named else ()
        by_key = self.chosen.kind is not None
        place, other = (self.chosen.place, self.chosen.other) if by_key else (self.named.prefix, self.named.other)
        if other:
            turn = "plain" if self.kind == "ema" else "ema"
            taken = f"state dict of two was taken, {_SAID[self.kind]} under {place or 'the names of the model'!r}"
            return (Remark("averaged_weights", f"{taken}; --weights {turn} takes that under {other!r}", source),)
        if self.kind == "ema":
            return (Remark("averaged_weights", f"state dict is there, {_SAID['ema']} under {place!r}", source),)
        return ()


def choose_whole(
    content: Mapping[str, Any], wanted: WeightsKind | None = None, own: Iterable[str] = ()
) -> tuple[Chosen, tuple[str, ...], tuple[str, ...], EmaCopies | None]:
    """Choose the state dict of a checkpoint and one set of weights in it, apply masks, and fold weight normalization.

    Args:
        wanted: See :func:`find_weights`.
        own: Parameter names of the model, if the model is known.

    Returns:
        The state dict with the names of the file; the names of the pruned weights; the names of the weights with weight
        normalization; and averaged and plain weights of mmcv's EMAHook, or None if the state dict has only one set.

    Raises:
        CheckpointError: There is no state dict, or none of the wanted kind. Or the state dict is an adapter, or lacks
            the values of its weights.
    """
    chosen = choose_weights(content, wanted)
    own = tuple(own)
    check_whole(chosen.state, own)
    chosen = choose_lit_ema(chosen, wanted, own)
    copies = None if chosen.other else find_copies(chosen.state, content, own)
    if copies is not None:
        copies = copies.choose(wanted)
        chosen = replace(chosen, state=copies.state, kind=None)
    state, pruned = apply_masks(chosen.state, own)
    state, folded = fold_weight_norm(state, own)
    return replace(chosen, state=state), pruned, folded, copies


def find_weights(
    own: Mapping[str, Tensor], content: Mapping[str, Any], source: str, wanted: WeightsKind | None = None
) -> Weights:
    """Find the state dict of a checkpoint, and give its weights the model's names where they match.

    Args:
        wanted: ``'ema'`` or ``'plain'``, for a checkpoint with both. None takes the average if there is one. The names
            in a file of mmcv's EMAHook do not show which set is the average: there, None takes the weights under the
            model's names.

    Raises:
        CheckpointError: There is no state dict, or none of the wanted kind. Or the state dict is an adapter, lacks
            values of its weights, or has parts of a parametrization that cannot be joined. Or several sets of weights
            fit equally well.
    """
    try:
        chosen, pruned, folded, copies = choose_whole(content, wanted, own)
        named = unwrap_names(chosen.state, {name: value.shape for name, value in own.items()}, wanted)
        named = replace(named, state=with_tied_names(named.state, own))
        folded = tuple(name for name in folded if any(name[start:] in own for start in _starts(name)))
        found = Weights(chosen, named, averages_without_names(content), pruned, copies, folded)
        found.check_kind(wanted)
        check_parametrizations(named.state, own)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    return found


def _starts(name: str) -> list[int]:
    """Return the start indices of the dot-separated parts of a name."""
    return [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]
