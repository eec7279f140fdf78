"""Conversion of backbone weights to MMDetection's names, from the names of the authors, timm or OpenMMLab.

Parameters that DTN adds to a norm keep their names, so checkpoints with DTN pass through every key map too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from dtn_det.checkpoints.fit import OWN_BUFFERS
from dtn_det.checkpoints.key_maps import (
    pvt_official_to_mmdet,
    pvt_timm_to_official,
    swin_official_to_mmdet,
    swin_timm_to_official,
)
from dtn_det.checkpoints.state_dict import StateDict, WeightsKind, some
from dtn_det.checkpoints.unwrap import Unwrapped, unwrap_by
from dtn_det.checkpoints.weights import Weights, choose_whole
from dtn_det.errors import CheckpointError

Family = Literal["swin", "pvt"]

# For each family and format, a pattern that matches names of that format alone. timm's Swin has the authors' names,
# except that it has no `layers.0.downsample`: see detect_format.
_SIGNATURES: dict[tuple[Family, str], str] = {
    ("swin", "mmdet"): r"stages\.\d+\.blocks\.\d+\.attn\.w_msa\.",
    ("swin", "official"): r"layers\.\d+\.blocks\.\d+\.attn\.qkv\.",
    ("pvt", "mmdet"): r"layers\.\d+\.0\.(projection|patch_linear)\.",
    ("pvt", "official"): r"block\d+\.\d+\.attn\.q\.",
    ("pvt", "timm"): r"stages\.\d+\.blocks\.\d+\.attn\.q\.",
}

# Names of the classifier, and of buffers that the model computes itself.
_SWIN_DROPPED = r"(head|norm|fc_norm)\.|.*\.(relative_position_index|attn_mask)$"
_PVT_DROPPED = r"(head|norm)\.|cls_token$"


def backbone_weights(
    content: Mapping[str, Any], family: Family, prefix: str | None = None, wanted: WeightsKind | None = None
) -> Weights:
    """Find the weights of a backbone in a checkpoint, whatever is around it.

    Args:
        content: A state dict, or a dict with one: see :func:`dtn_det.checkpoints.state_dict.choose_weights`.
        family: Family of the backbone.
        prefix: Only names that start with this prefix are taken, and it is removed. By default, whatever stands before
            the names of the family is removed: the prefix of ``torch.compile``, data parallelism, Lightning, a detector
            or a classifier.
        wanted: ``'ema'`` or ``'plain'`` of a checkpoint with both. None takes the average, but from a file of mmcv's
            EMAHook the weights under the names of the model.

    Returns:
        The tensors, under the names of the library that wrote them.

    Raises:
        CheckpointError: The checkpoint has no weights, none with the prefix, none of the wanted kind, or not all
            weights of a model.
    """
    chosen, pruned, copies = choose_whole(content, wanted)
    if prefix is not None:
        taken = {name.removeprefix(prefix): v for name, v in chosen.state.items() if name.startswith(prefix)}
        if not taken:
            raise CheckpointError(f"expected keys that start with {prefix!r}, got {some(chosen.state)}")
        return Weights(chosen, Unwrapped(taken, prefix), pruned=pruned, copies=copies)
    found = Weights(chosen, unwrap_by(chosen.state, _name_of(family), wanted), pruned=pruned, copies=copies)
    found.check_kind(wanted)
    return found


def _name_of(family: Family) -> re.Pattern[str]:
    """Return a pattern that finds a typical name of a family anywhere in a longer name."""
    return re.compile("|".join(pattern for (member, _), pattern in _SIGNATURES.items() if member == family))


def detect_format(keys: Iterable[str], family: Family) -> str:
    """Return the format that the names of a state dict have.

    Args:
        keys: Names in the state dict.
        family: Family of the backbone.

    Returns:
        ``'mmdet'`` (also mmpretrain's Swin), ``'official'`` or ``'timm'``.

    Raises:
        CheckpointError: The names are of another family, or unknown.
    """
    names = set(keys)
    found = {sign for sign, pattern in _SIGNATURES.items() if any(re.match(pattern, name) for name in names)}
    formats = [name for member, name in found if member == family]
    if len(formats) != 1:
        others = [f"{name} {member}" for member, name in sorted(found) if member != family]
        raise CheckpointError(
            f"expected a {family} checkpoint in the names of MMDetection, the authors or timm, got "
            f"{' and '.join(others) or 'unknown names'}: {some(names)}"
        )
    # The authors downsample at the end of a stage, timm at the start of the next.
    if family == "swin" and formats == ["official"] and not any(k.startswith("layers.0.downsample.") for k in names):
        return "timm"
    return formats[0]


def to_mmdet(state: Mapping[str, Tensor], family: Family) -> StateDict:
    """Convert a backbone's state dict to MMDetection's names and channel orders, whatever its format.

    Args:
        state: Names and tensors, without the prefix of a detector or classifier around the backbone.
        family: ``'swin'`` or ``'pvt'`` (which covers PVTv2).

    Returns:
        A new dict, without the classifier and without the buffers that the model computes itself.

    Raises:
        CheckpointError: The names are of another family, or unknown.
    """
    source = detect_format(state, family)
    if family == "swin":
        state = {key: value for key, value in state.items() if not re.match(_SWIN_DROPPED, key)}
        if source == "timm":
            state = swin_timm_to_official(state)
        return dict(state) if source == "mmdet" else swin_official_to_mmdet(state)
    state = {key: value for key, value in state.items() if not re.match(_PVT_DROPPED, key)}
    if source == "timm":
        state = pvt_timm_to_official(state)
    return dict(state) if source == "mmdet" else pvt_official_to_mmdet(state)


def whose_names(names: Iterable[str]) -> str:
    """Return whose format some names of a Swin or PVT have, such as ``MMDetection's Swin``; empty if unknown."""
    names = list(names)
    for (family, source), pattern in _SIGNATURES.items():
        if any(map(re.compile(rf"(?:^|\.){pattern}").search, names)):
            author = {"mmdet": "MMDetection", "official": "its authors", "timm": "timm"}[source]
            return f"{author}'{'' if author.endswith('s') else 's'} {'Swin' if family == 'swin' else 'PVT'}"
    return ""


@dataclass(frozen=True)
class RenamedBackbone:
    """The state dict of a whole model, after its backbone was converted to MMDetection's names.

    Attributes:
        state: Names and tensors of the whole model.
        renamed: New names, which the file does not have.
        what: Whose names the backbone had, for messages, such as ``timm's Swin``.
    """

    state: StateDict
    renamed: tuple[str, ...]
    what: str


def rename_backbone(state: Mapping[str, Tensor], own: Iterable[str]) -> RenamedBackbone | None:
    """Convert the Swin or PVT within a whole model to MMDetection's names and channel orders.

    Args:
        state: Names and tensors of a detector or classifier. The backbone's names have the same prefix as in the model.
        own: Names of the model.

    Returns:
        The state dict with the backbone renamed and all else unchanged. A classifier's parameters are kept, although
        :func:`to_mmdet` drops them. None if the model has no such backbone, or if the state dict has MMDetection's
        names already or names of an unknown format.

    Raises:
        CheckpointError: A norm of patch merging has several groups, and the new order would mix their channels.
    """
    own = list(own)
    for (family, source), pattern in _SIGNATURES.items():
        signature = re.compile(rf"(?:^|\.)(?={pattern})")
        found = next(filter(None, map(signature.search, own)), None) if source == "mmdet" else None
        if found is None:
            continue
        prefix = found.string[: found.end()]
        before = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        try:
            format_of_file = detect_format(before, family)
        except CheckpointError:
            continue
        if format_of_file == "mmdet":
            continue
        dropped = re.compile(_SWIN_DROPPED if family == "swin" else _PVT_DROPPED)
        of_classifier = {name: value for name, value in before.items() if dropped.match(name)}
        kept = {name: value for name, value in of_classifier.items() if not name.endswith(OWN_BUFFERS)}
        after = {prefix + name: value for name, value in {**to_mmdet(before, family), **kept}.items()}
        rest = {name: value for name, value in state.items() if not name.startswith(prefix)}
        author = "timm's" if format_of_file == "timm" else "its authors'"
        what = f"{author} {'Swin' if family == 'swin' else 'PVT'}"
        return RenamedBackbone({**rest, **after}, tuple(name for name in after if name not in state), what)
    return None
