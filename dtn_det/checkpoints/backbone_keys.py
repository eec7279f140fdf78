"""Rename weights of Swin, PVT and PVTv2 to MMDetection's names, from the names of the authors, timm or OpenMMLab.

The key maps are pure functions on state dicts. They also reorder channels as in MMDetection, and resize position tables
and embeddings to the grid of a model. Parameters that DTN adds to a norm keep their names, so checkpoints with DTN pass
through every key map too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dtn_det.checkpoints.fit import OWN_BUFFERS
from dtn_det.checkpoints.state_dict import StateDict, some
from dtn_det.checkpoints.two_networks import WeightsKind
from dtn_det.checkpoints.unwrap import Unwrapped, unwrap_by
from dtn_det.checkpoints.weights import Weights, choose_whole
from dtn_det.errors import CheckpointError
from dtn_det.layers.options import EXTRA_STATE, unpack_options

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

# Patterns of names that are dropped: the classifier, and buffers that the model computes itself.
_DROPPED: dict[Family, str] = {
    "swin": r"(head|norm|fc_norm)\.|.*\.(relative_position_index|attn_mask)$",
    "pvt": r"(head|norm)\.|cls_token$",
}
_MODELS: dict[Family, str] = {"swin": "Swin", "pvt": "PVT"}

Rules = tuple[tuple[str, str], ...]

_OF_MERGING = re.compile(r"\.downsample\.(?P<layer>reduction|norm)\.(?P<name>.+)$")

_SWIN_RULES: Rules = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^layers\.", "stages."),
    (r"\.attn\.", ".attn.w_msa."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)


def backbone_weights(
    content: Mapping[str, Any], family: Family, prefix: str | None = None, wanted: WeightsKind | None = None
) -> Weights:
    """Find the weights of a backbone in a checkpoint that may also hold other weights and settings.

    Args:
        content: A state dict, or a dict with one: see :func:`dtn_det.checkpoints.state_dict.choose_weights`.
        prefix: Only names that start with this prefix are taken, and it is removed. A missing dot at its end is added,
            as in MMEngine. By default, whatever stands before the names of the family is removed: the prefix of
            ``torch.compile``, data parallelism, Lightning, a detector or a classifier.
        wanted: ``'ema'`` or ``'plain'``, for a checkpoint with both. None chooses the average; in a file of mmcv's
            EMAHook, None chooses the weights under the names of the model.

    Returns:
        The tensors, under the names of the library that wrote them.

    Raises:
        CheckpointError: The checkpoint has no weights, none with the prefix, none of the wanted kind, or not all
            weights of a model.
    """
    chosen, pruned, folded, copies = choose_whole(content, wanted)
    if prefix is not None:
        prefix = prefix if prefix.endswith(".") or not prefix else f"{prefix}."
        taken = {name.removeprefix(prefix): v for name, v in chosen.state.items() if name.startswith(prefix)}
        if not taken:
            raise CheckpointError(f"expected keys that start with {prefix!r}, got {some(chosen.state)}")
        return Weights(chosen, Unwrapped(taken, prefix), pruned=pruned, copies=copies, folded=folded)
    typical = re.compile("|".join(pattern for (member, _), pattern in _SIGNATURES.items() if member == family))
    named = unwrap_by(chosen.state, typical, wanted)
    found = Weights(chosen, named, pruned=pruned, copies=copies, folded=folded)
    found.check_kind(wanted)
    return found


def detect_format(keys: Iterable[str], family: Family) -> str:
    """Recognise the format of a state dict by its names.

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
    """Convert a backbone's state dict from any known format to MMDetection's names and channel orders.

    Args:
        state: Names and tensors, without the prefix of a detector or classifier around the backbone.
        family: ``'swin'`` or ``'pvt'`` (which covers PVTv2).

    Returns:
        A new dict, without the classifier and without the buffers that the model computes itself.

    Raises:
        CheckpointError: The names are of another family, or unknown.
    """
    source = detect_format(state, family)
    state = {key: value for key, value in state.items() if not re.match(_DROPPED[family], key)}
    if source == "mmdet":
        return state
    if family == "swin":
        return swin_official_to_mmdet(swin_timm_to_official(state) if source == "timm" else state)
    return pvt_official_to_mmdet(pvt_timm_to_official(state) if source == "timm" else state)


def whose_names(names: Iterable[str]) -> str:
    """Return the library and family that use names like these, such as ``MMDetection's Swin``; ``""`` if unknown."""
    names = list(names)
    for (family, source), pattern in _SIGNATURES.items():
        if any(map(re.compile(rf"(?:^|\.){pattern}").search, names)):
            author = {"mmdet": "MMDetection", "official": "its authors", "timm": "timm"}[source]
            return f"{author}'{'' if author.endswith('s') else 's'} {_MODELS[family]}"
    return ""


@dataclass(frozen=True)
class RenamedBackbone:
    """The state dict of a whole model, after its backbone was converted to MMDetection's names.

    Attributes:
        renamed: New names, which the file does not have.
        what: Format of the backbone's names before the conversion, for messages, such as ``timm's Swin``.
    """

    state: StateDict
    renamed: tuple[str, ...]
    what: str


def rename_backbone(state: Mapping[str, Tensor], own: Iterable[str]) -> RenamedBackbone | None:
    """Convert the Swin or PVT within a whole model to MMDetection's names and channel orders.

    Args:
        state: Names and tensors of a detector or classifier. The backbone's names have the same prefix as in the model.

    Returns:
        The state dict with the backbone renamed and everything else unchanged, including a classifier, which
        :func:`to_mmdet` would drop. None if the model has no such backbone, if the names are MMDetection's already, or
        if their format is unknown.

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
        of_classifier = {name: value for name, value in before.items() if re.match(_DROPPED[family], name)}
        kept = {name: value for name, value in of_classifier.items() if not name.endswith(OWN_BUFFERS)}
        after = {prefix + name: value for name, value in {**to_mmdet(before, family), **kept}.items()}
        rest = {name: value for name, value in state.items() if not name.startswith(prefix)}
        author = "timm's" if format_of_file == "timm" else "its authors'"
        what = f"{author} {_MODELS[family]}"
        return RenamedBackbone({**rest, **after}, tuple(name for name in after if name not in state), what)
    return None


def swin_timm_to_official(state: Mapping[str, Tensor]) -> StateDict:
    """Change the names of timm's Swin (0.9 and later) to the names of Swin's authors.

    The authors downsample at the end of a stage, timm at the start of the next.
    """

    def of_the_stage_before(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) - 1}.downsample."

    return {re.sub(r"^layers\.(\d+)\.downsample\.", of_the_stage_before, key): value for key, value in state.items()}


def swin_official_to_mmdet(state: Mapping[str, Tensor]) -> StateDict:
    """Change the names of the authors' Swin to MMDetection's, and reorder the channels of patch merging to match.

    Raises:
        CheckpointError: A norm of patch merging has several groups, and the new order would mix their channels.
    """
    out = {}
    for key, value in state.items():
        found = _OF_MERGING.search(key)
        if found is not None and found["layer"] == "norm":
            norm = key[: found.start("name")]
            _check_one_group(state, norm)
            # The weight and BatchNorm's statistics have one value per channel. Other parameters of norms do not.
            by_channel = value.shape == state.get(f"{norm}weight", value[..., :0]).shape
        else:
            by_channel = found is not None and found["name"] == "weight"
        if by_channel:
            value = merging_to_unfold_order(value)
        out[rename(key, _SWIN_RULES)] = value
    return out


def _check_one_group(state: Mapping[str, Tensor], norm: str) -> None:
    """Check that a norm of patch merging has a single group; the names of its weights start with `norm`."""
    options = unpack_options(state.get(f"{norm}{EXTRA_STATE}")) or {}
    said = options.get("num_groups")
    gates = state.get(f"{norm}var_norm_weight")
    groups = said if isinstance(said, int) else len(gates) if gates is not None else 1
    if groups > 1:
        raise CheckpointError(
            f"expected norms of patch merging with one group, got {groups} groups in {norm.removesuffix('.')!r}: "
            "MMDetection has the channels of patch merging in another order, in which those of a group do not lie "
            "together, so load the checkpoint into the model that wrote it, or train that norm with num_groups=1"
        )


def merging_to_unfold_order(value: Tensor) -> Tensor:
    """Reorder the last axis, ``4 * C``, from the authors' (column, row, channel) to (channel, row, column)."""
    return value.reshape(*value.shape[:-1], 2, 2, -1).transpose(-1, -3).reshape(value.shape)


def pvt_timm_to_official(state: Mapping[str, Tensor]) -> StateDict:
    """Change the names of timm's PVTv2 to the names of PVT's authors."""
    out = {}
    for key, value in state.items():
        key = re.sub(r"^patch_embed\.", "patch_embed1.", key)
        key = re.sub(r"^stages\.(\d+)\.downsample\.", lambda m: f"patch_embed{int(m[1]) + 1}.", key)
        key = re.sub(r"^stages\.(\d+)\.blocks\.", lambda m: f"block{int(m[1]) + 1}.", key)
        key = re.sub(r"^stages\.(\d+)\.norm\.", lambda m: f"norm{int(m[1]) + 1}.", key)
        out[re.sub(r"\.mlp\.dwconv\.", ".mlp.dwconv.dwconv.", key)] = value
    return out


def pvt_official_to_mmdet(state: Mapping[str, Tensor]) -> StateDict:
    """Change the names of the authors' PVT or PVTv2 to MMDetection's.

    The projection of queries and the joint projection of keys and values become one. The linear layers of the
    feed-forward network become 1 x 1 convolutions. The position embedding of the last stage loses the position of the
    class token.
    """
    first_block = int(any(key.startswith("pos_embed") for key in state))
    second_linear = 4 if any(".dwconv." in key for key in state) else 3
    rules: Rules = (
        (r"\.attn\.proj\.", ".attn.attn.out_proj."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0."),
        (r"\.mlp\.dwconv\.dwconv\.", ".ffn.layers.1."),
        (r"\.mlp\.fc2\.", f".ffn.layers.{second_linear}."),
        (r"^(patch_embed\d+)\.proj\.", r"\1.projection."),
    )
    out = {}
    for key, value in state.items():
        if ".attn.kv." in key and key.replace(".kv.", ".q.") in state:
            continue
        if ".attn.q." in key and key.replace(".q.", ".kv.") in state:
            value = torch.cat([value, state[key.replace(".q.", ".kv.")]])
            key = key.replace(".attn.q.", ".attn.attn.in_proj_")
        elif re.search(r"\.mlp\.fc[12]\.weight$", key):
            value = value[:, :, None, None]
        elif key.startswith("pos_embed"):
            value = without_class_token(value)
        key = rename(key, rules)
        key = re.sub(r"^patch_embed(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.0.", key)
        key = re.sub(r"^pos_embed(\d+)$", lambda m: f"layers.{int(m[1]) - 1}.1.0.pos_embed", key)
        key = re.sub(r"^block(\d+)\.(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.1.{int(m[2]) + first_block}.", key)
        out[re.sub(r"^norm(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.2.", key)] = value
    return out


def without_class_token(embedding: Tensor) -> Tensor:
    """Drop the class token's position from ``(1, 1 + S * S, C)``; leave a square number of positions unchanged."""
    positions = embedding.shape[1]
    if _side(positions) is None and _side(positions - 1) is not None:
        return embedding[:, 1:]
    return embedding


def resize_tables(
    state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], grids: Mapping[str, tuple[int, int]]
) -> StateDict:
    """Resize relative-position tables and position embeddings to the model's size, by bicubic interpolation.

    Args:
        state: Tensors under MMDetection's names.
        grids: Grid ``(H, W)`` of each position embedding in the model.

    Returns:
        A new dict. A table stays unchanged if its number of heads or channels differs from the model's, or if its grid
        is not square.
    """
    out = dict(state)
    for key, value in state.items():
        shape = shapes.get(key)
        if shape is None or shape == value.shape:
            continue
        if key.endswith("relative_position_bias_table") and value.dim() == 2 and value.shape[1] == shape[1]:
            old, new = _side(value.shape[0]), _side(shape[0])
            if old is not None and new is not None:
                out[key] = resize_grid(value[None], (old, old), (new, new))[0]
        elif key in grids and value.dim() == 3 and value.shape[2] == shape[2]:
            old = _side(value.shape[1])
            if old is not None:
                out[key] = resize_grid(value, (old, old), grids[key])
    return out


def resize_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize a table ``(1, H * W, C)`` from grid ``old`` to grid ``new`` by bicubic interpolation."""
    grid = table.float().transpose(1, 2).reshape(1, -1, *old)
    resized = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2).to(table.dtype)


def _side(area: int) -> int | None:
    side = round(area**0.5)
    return side if side * side == area else None


def rename(key: str, rules: Rules) -> str:
    """Apply rules to a name, one after the other. A rule is a regular expression and its replacement."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
