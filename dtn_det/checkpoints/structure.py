"""Differences of names that show another structure: renamed weights would load, but the outputs would be wrong.

A vision transformer of timm with ``global_pool='avg'`` has ``fc_norm`` in place of ``norm``. Both have the same shapes,
but ``fc_norm`` normalises the mean over the tokens, and ``norm`` the tokens before the class token is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Role of a module, by a part of its name. Libraries have different names for a module of the same role. Two modules of
# different roles compute different things.
_ROLES = {
    **dict.fromkeys(("fc_norm", "pooler"), "after pooling"),
    **dict.fromkeys(("norm_pre", "pre_norm", "ln_pre", "pre_layrnorm"), "before the blocks"),
    **dict.fromkeys(("norm1", "ln1", "ln_1", "layernorm_before"), "first norm"),
    **dict.fromkeys(("norm2", "ln2", "ln_2", "layernorm_after"), "second norm"),
    **dict.fromkeys(("ls1", "gamma_1"), "first scale"),
    **dict.fromkeys(("ls2", "gamma_2"), "second scale"),
    **dict.fromkeys(("cls_token", "class_token"), "class token"),
    **dict.fromkeys(("dist_token", "distillation_token"), "distillation token"),
    **dict.fromkeys(("reg_token", "register_tokens", "storage_tokens"), "registers"),
    "mask_token": "mask",
    "head_dist": "distillation head",
    **dict.fromkeys(("q_norm", "q_proj", "query"), "queries"),
    **dict.fromkeys(("k_norm", "k_proj", "key"), "keys"),
    **dict.fromkeys(("v_proj", "value"), "values"),
}
# Roles whose modules also differ from every module without a role.
_OF_THEIR_OWN = frozenset({"after pooling", "before the blocks", "distillation head"})
_AFTER_POOLING = re.compile(r"(^|\.)fc_norm\.\w+$")
_CLASS_TOKEN = re.compile(r"(^|\.)cls_token$")
_DISTILLED = re.compile(r"(^|\.)(dist_token|head_dist\.\w+)$")


@dataclass(frozen=True)
class Structure:
    """A difference of structure between the model of a file and the model that is to take its weights.

    Attributes:
        cause: The difference, as a sentence.
        arguments: Arguments with which ``timm.create_model`` builds the model of the file; empty if not known.
    """

    cause: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def find_structure(
    unexpected: Iterable[str], missing: Iterable[str], pairs: Iterable[tuple[str, str]]
) -> Structure | None:
    """Find a difference of structure between two models that explains why their names differ.

    Args:
        unexpected: Names of the file that the model lacks.
        missing: Names of the model that the file lacks.
        pairs: Pairs of an unexpected and a missing name of the same shape, if every name has a partner.

    Returns:
        The difference, if known differences explain all these names, or if the two names of some pair have different
        roles; else None.
    """
    unexpected, missing, pairs = tuple(unexpected), tuple(missing), tuple(pairs)
    found = list(_known(unexpected, missing))
    explained = {name for names, _ in found for name in names}
    if found and explained >= {*unexpected, *missing}:
        known = all(one.arguments for _, one in found)
        arguments = {key: value for _, one in found for key, value in one.arguments.items()} if known else {}
        return Structure(" ".join(one.cause for _, one in found), arguments)
    other = next((pair for pair in pairs if not _may_be_same(*pair)), None)
    if other is None:
        return None
    there, here = other
    return Structure(
        f"The file has {there} where the model has {here}: they are of one shape, but of another place or task in the "
        "model, so that a renaming would change the outputs."
    )


def _known(unexpected: tuple[str, ...], missing: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Structure]]:
    """Yield pairs: the names that a known difference between models of timm explains, and the difference."""
    for beyond, lacking, is_files in ((unexpected, missing, True), (missing, unexpected, False)):
        there, here = ("file", "model") if is_files else ("model", "file")
        norms = {name: name.replace("fc_norm", "norm") for name in beyond if _AFTER_POOLING.search(name)}
        pooled = bool(norms) and {*norms.values()} <= {*lacking}
        if pooled:
            cause = (
                f"The {there} has fc_norm, a norm after average pooling (global_pool='avg' in timm), and the {here} "
                "norm, a norm before the class token is taken, so that a renaming would change the outputs."
            )
            yield (*norms, *norms.values()), Structure(cause, {"global_pool": "avg" if is_files else "token"})
        if any(map(_CLASS_TOKEN.search, lacking)) and not any(map(_CLASS_TOKEN.search, beyond)):
            cause = f"The {here} has a class token, and the {there} none."
            tokens = tuple(filter(_CLASS_TOKEN.search, lacking))
            # Only a difference of norms shows how the outputs are pooled. Without one, the arguments for timm are not
            # known.
            yield tokens, Structure(cause, {"class_token": not is_files} if pooled else {})
        distilled = tuple(filter(_DISTILLED.search, beyond))
        if distilled:
            what = f"The {there} has the second head or token of a distilled model (head_dist, dist_token)"
            yield distilled, Structure(f"{what}, and the {here} does not.")


def _may_be_same(one: str, other: str) -> bool:
    """Return whether two libraries may have given these two names to the same module."""
    first, second = _role(one), _role(other)
    return first == second or (not (first and second) and not {first, second} & _OF_THEIR_OWN)


def _role(name: str) -> str:
    return next((_ROLES[part] for part in reversed(name.split(".")) if part in _ROLES), "")


def build_advice(name: str, num_classes: int, source: str, arguments: Mapping[str, Any]) -> str:
    """Return advice to export a model of timm that is built with further arguments.

    Args:
        name: The name of the model in timm.
        num_classes: Number of classes of the model.
        source: The checkpoint.
        arguments: Arguments of ``timm.create_model`` besides the number of classes.
    """
    told = ", ".join(f"{key}={value!r}" for key, value in {"num_classes": num_classes, **arguments}.items())
    return (
        f"Build the model as the file's and export it: model = timm.create_model({name!r}, {told}); "
        f"dtn_det.checkpoints.load.load_weights(model, {source!r}); dtn_det.export.export_model(model, "
        f"pathlib.Path('exported'), {name!r}, dict({told})); then name timm:local-dir:exported"
    )
