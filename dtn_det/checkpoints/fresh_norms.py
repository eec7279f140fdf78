"""Norms of a model whose weights are those of LayerNorm in a file: what they take, and what begins anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dtn_det.layers import DTN, TokenNorm
from dtn_det.layers.options import EXTRA_STATE


@dataclass(frozen=True)
class FreshNorm:
    """A norm that finds LayerNorm's parameters in a file, and none of its own.

    Attributes:
        added: Names of the norm's own parameters, which keep their initialisation.
        unused: Names of LayerNorm's parameters in the file that the norm does not have.
    """

    norm: TokenNorm
    added: frozenset[str]
    unused: frozenset[str]


def find_fresh_norms(model: nn.Module, names: Collection[str]) -> tuple[FreshNorm, ...]:
    """Find the norms of a model for which a file has LayerNorm's parameters alone.

    Args:
        names: Names of the weights in the file.
    """
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, TokenNorm):
            continue
        own = {f"{name}.{key}" for key in module.state_dict() if key != EXTRA_STATE}
        of_layer_norm = {f"{name}.weight", f"{name}.bias"}
        added, unused = own - of_layer_norm, (of_layer_norm - own) & set(names)
        if not added & set(names) and (added or unused) and of_layer_norm & set(names):
            found.append(FreshNorm(module, frozenset(added), frozenset(unused)))
    return tuple(found)


def describe_fresh_norms(fresh: Sequence[FreshNorm], option: str) -> tuple[list[str], list[str]]:
    """Describe the start of norms that have LayerNorm's parameters of a file.

    Args:
        option: The option of the config that sets ``init``, as it is written there with ``init='layernorm'``.

    Returns:
        Parts of a sentence that say what the norms took, and sentences that warn where the features change.
    """
    norms: list[Any] = [one.norm for one in fresh]
    of_dtn = [norm for norm in norms if isinstance(norm, DTN)]
    others = Counter(type(norm).__name__ for norm in norms if not isinstance(norm, DTN))
    told, warnings = [], []
    if of_dtn:
        told.append(f"{len(of_dtn)} DTN norms got LayerNorm's weight and bias and keep their initial gates and kernels")
    for name, count in others.items():
        told.append(f"{count} norms {name} got what they have of LayerNorm's weight and bias and keep their start")
    if others:
        warnings.append(
            f"LayerNorm weights went into norms {', '.join(others)}, which give other features from the first step on"
        )
    if any(norm.init != "layernorm" for norm in of_dtn):
        warnings.append(
            "LayerNorm weights went into DTN norms with init='local', which gives other features from the first step "
            f"on: set {option} to start from what the checkpoint learned"
        )
    return told, warnings
