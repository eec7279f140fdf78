"""The average that LitEma stores in a Lightning module, as latent-diffusion and taming-transformers write it.

LitEma is a module, mostly named ``model_ema``, with a buffer for each trained parameter, under the parameter's name
without its dots: ``model_ema.blocks0norm1weight`` is the average of ``model.blocks.0.norm1.weight``. Buffers and frozen
parameters of the model have no average. Source: ``ldm/modules/ema.py`` of CompVis/latent-diffusion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from dtn_det.checkpoints.state_dict import Chosen, StateDict, some
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.errors import CheckpointError

_COUNTERS = ("decay", "num_updates")
_SHOWN = 3


def choose_lit_ema(chosen: Chosen, wanted: WeightsKind | None = None, own: Iterable[str] = ()) -> Chosen:
    """Choose between the average of a LitEma in a state dict and the weights that the optimizer updated.

    Args:
        chosen: The state dict of a file.
        wanted: Kind of weights to take; None for the average.
        own: Parameter names of the model, if the model is known. If it has a LitEma itself, ``chosen`` is returned
            unchanged.

    Returns:
        The chosen weights under the module's parameter names, without LitEma's buffers. Without a LitEma, ``chosen``.

    Raises:
        CheckpointError: The average is wanted, and the name of one of its buffers does not match exactly one weight.
    """
    ends = f".{_COUNTERS[1]}"
    owners = [name.removesuffix(_COUNTERS[1]) for name in chosen.state if name.endswith(ends)]
    owners = [owner for owner in owners if owner + _COUNTERS[0] in chosen.state]
    if chosen.other or len(owners) != 1 or any(name.startswith(owners[0]) for name in own):
        return chosen
    (owner,) = owners
    copies = {n.removeprefix(owner): v for n, v in chosen.state.items() if n.startswith(owner)}
    for counter in _COUNTERS:
        del copies[counter]
    if not copies or any("." in name for name in copies):
        return chosen
    plain = {name: value for name, value in chosen.state.items() if not name.startswith(owner)}
    prefix, names, lacking = _originals(copies, plain)
    other = prefix.rstrip(".") or chosen.place or "the names of the model"
    if wanted == "plain":
        return replace(chosen, state=plain, kind="plain", place=other, other=owner.rstrip("."))
    if lacking:
        raise CheckpointError(
            f"expected an average of LitEma, under {owner!r} and the names of the weights without dots, got "
            f"{len(lacking):,} that are not those of exactly one weight ({some(lacking, _SHOWN)}): take the weights "
            "that the optimizer updated, --weights plain"
        )
    averaged = {**plain, **{names[flat]: value for flat, value in copies.items()}}
    return replace(chosen, state=averaged, kind="ema", place=owner.rstrip("."), other=other)


def _originals(copies: Mapping[str, Tensor], plain: StateDict) -> tuple[str, dict[str, str], list[str]]:
    """Match the buffers of a LitEma (``copies``) to the weights that they average.

    Returns:
        The prefix of the averaged module; the weight's name in ``plain`` for each matched buffer; and the names of the
        buffers that match no weight.
    """
    # Shorter prefixes are at least as frequent, so they are tried first. If several prefixes match equally many
    # weights, the shortest one is taken.
    prefixes = Counter(name[:end] for name in plain for end in _starts(name))
    best: tuple[str, dict[str, str], list[str]] = ("", {}, list(copies))
    for prefix, _ in prefixes.most_common():
        if not best[2]:
            break
        within = [name for name in plain if name.startswith(prefix)]
        times = Counter(name.removeprefix(prefix).replace(".", "") for name in within)
        flat = {name.removeprefix(prefix).replace(".", ""): name for name in within}
        names = {
            copy: flat[copy]
            for copy, value in copies.items()
            if times[copy] == 1 and plain[flat[copy]].shape == value.shape
        }
        if len(names) > len(best[1]):
            best = prefix, names, [copy for copy in copies if copy not in names]
    return best


def _starts(name: str) -> list[int]:
    """Return the start indices of the first four parts of a name: a wrapper's prefix ends at one of these indices."""
    return [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")][:4]
