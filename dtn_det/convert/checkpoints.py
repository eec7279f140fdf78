"""Key maps: Swin and PVT checkpoints of their authors, of timm and of OpenMMLab in MMDetection's names.

Pure functions on state dicts. Parameters that DTN adds to a norm keep their names, so checkpoints with DTN pass
through every map as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dtn_det.convert.errors import CheckpointError

StateDict = dict[str, Tensor]
Family = Literal["swin", "pvt"]
Rules = tuple[tuple[str, str], ...]

# A key that tells family and format. timm's Swin has no `layers.0.downsample` and the authors' has; see detect_format.
_SIGNATURES: dict[tuple[Family, str], str] = {
    ("swin", "mmdet"): r"stages\.\d+\.blocks\.\d+\.attn\.w_msa\.",
    ("swin", "official"): r"layers\.\d+\.blocks\.\d+\.attn\.qkv\.",
    ("pvt", "mmdet"): r"layers\.\d+\.0\.(projection|patch_linear)\.",
    ("pvt", "official"): r"block\d+\.\d+\.attn\.q\.",
    ("pvt", "timm"): r"stages\.\d+\.blocks\.\d+\.attn\.q\.",
}

# Of the classifier, or buffers that the model makes itself.
_SWIN_DROPPED = r"(head|norm|fc_norm)\.|.*\.(relative_position_index|attn_mask)$"
_PVT_DROPPED = r"(head|norm)\.|cls_token$"

_SWIN_RULES: Rules = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^layers\.", "stages."),
    (r"\.attn\.", ".attn.w_msa."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)


def extract_state_dict(checkpoint: Mapping[str, Any], prefix: str | None = None) -> StateDict:
    """Find the backbone's state dict in a checkpoint.

    Args:
        checkpoint: A state dict, or a dict with one under ``state_dict``, ``model`` or ``module``.
        prefix: Take the keys that start with this, without it. By default ``module.`` is removed from all keys, and
            if any then start with ``backbone.``, only those are taken, without it.

    Returns:
        Names and tensors.

    Raises:
        CheckpointError: No state dict, or no key with the prefix.
    """
    state: Mapping[str, Any] = checkpoint
    while inner := [state[name] for name in ("state_dict", "model", "module") if isinstance(state.get(name), Mapping)]:
        state = inner[0]
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"expected a state dict, or one under 'state_dict', 'model' or 'module', got a dict with the keys "
            f"{_some(state)}"
        )
    if prefix is not None:
        taken = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not taken:
            raise CheckpointError(f"expected keys that start with {prefix!r}, got {_some(state)}")
        return taken
    stripped = {key.removeprefix("module."): value for key, value in state.items()}
    backbone = {key.removeprefix("backbone."): v for key, v in stripped.items() if key.startswith("backbone.")}
    return backbone or stripped


def detect_format(keys: Iterable[str], family: Family) -> str:
    """Tell whose names the keys of a state dict are.

    Args:
        keys: Names in the state dict.
        family: What the weights are for.

    Returns:
        ``'mmdet'`` (also mmpretrain's Swin), ``'official'`` or ``'timm'``.

    Raises:
        CheckpointError: The keys are of another family or unknown.
    """
    names = set(keys)
    found = {sign for sign, pattern in _SIGNATURES.items() if any(re.match(pattern, name) for name in names)}
    formats = [name for member, name in found if member == family]
    if len(formats) != 1:
        others = [f"{name} {member}" for member, name in sorted(found) if member != family]
        raise CheckpointError(
            f"expected a {family} checkpoint in the names of MMDetection, the authors or timm, got "
            f"{' and '.join(others) or 'unknown names'}: {_some(names)}"
        )
    # timm moved the downsampling from the end of a stage to the start of the next.
    if family == "swin" and formats == ["official"] and not any(k.startswith("layers.0.downsample.") for k in names):
        return "timm"
    return formats[0]


def convert(state: Mapping[str, Tensor], family: Family) -> StateDict:
    """Bring a backbone's state dict into MMDetection's names and orders, whatever its format.

    Args:
        state: Names and tensors, without the prefix of a detector or classifier around the backbone.
        family: ``'swin'`` or ``'pvt'`` (which covers PVTv2).

    Returns:
        A new dict without what belongs to a classifier and without buffers that the model makes itself.

    Raises:
        CheckpointError: The keys are of another family or unknown.
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


def swin_timm_to_official(state: Mapping[str, Tensor]) -> StateDict:
    """Rename timm's Swin (0.9 and later) as the authors': stage ``i`` ends with what timm starts ``i + 1`` with."""

    def rename(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) - 1}.downsample."

    return {re.sub(r"^layers\.(\d+)\.downsample\.", rename, key): value for key, value in state.items()}


def swin_official_to_mmdet(state: Mapping[str, Tensor]) -> StateDict:
    """The authors' Swin in MMDetection's names, with the channels of patch merging in the order of ``nn.Unfold``."""
    out = {}
    for key, value in state.items():
        if re.search(r"\.downsample\.(reduction|norm)\.", key):
            value = merging_to_unfold_order(value)
        out[_rename(key, _SWIN_RULES)] = value
    return out


def merging_to_unfold_order(value: Tensor) -> Tensor:
    """Reorder the last axis from (column, row, channel), as the authors concatenate, to (channel, row, column).

    Args:
        value: ``(..., 4 * C)``.

    Returns:
        ``(..., 4 * C)``.
    """
    return value.reshape(*value.shape[:-1], 2, 2, -1).transpose(-1, -3).reshape(value.shape)


def pvt_timm_to_official(state: Mapping[str, Tensor]) -> StateDict:
    """Rename timm's PVTv2 as the authors'."""
    out = {}
    for key, value in state.items():
        key = re.sub(r"^patch_embed\.", "patch_embed1.", key)
        key = re.sub(r"^stages\.(\d+)\.downsample\.", lambda m: f"patch_embed{int(m[1]) + 1}.", key)
        key = re.sub(r"^stages\.(\d+)\.blocks\.", lambda m: f"block{int(m[1]) + 1}.", key)
        key = re.sub(r"^stages\.(\d+)\.norm\.", lambda m: f"norm{int(m[1]) + 1}.", key)
        out[re.sub(r"\.mlp\.dwconv\.", ".mlp.dwconv.dwconv.", key)] = value
    return out


def pvt_official_to_mmdet(state: Mapping[str, Tensor]) -> StateDict:
    """The authors' PVT or PVTv2 in MMDetection's names.

    Query and key-value projections become one, linear layers of the feed-forward part 1 x 1 convolutions, and the
    class token's place goes from the position embedding of the last stage.
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
        key = _rename(key, rules)
        key = re.sub(r"^patch_embed(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.0.", key)
        key = re.sub(r"^pos_embed(\d+)$", lambda m: f"layers.{int(m[1]) - 1}.1.0.pos_embed", key)
        key = re.sub(r"^block(\d+)\.(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.1.{int(m[2]) + first_block}.", key)
        out[re.sub(r"^norm(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.2.", key)] = value
    return out


def without_class_token(embedding: Tensor) -> Tensor:
    """Drop the first position of ``(1, 1 + S * S, C)``; a square number of positions stays."""
    positions = embedding.shape[1]
    if _side(positions) is None and _side(positions - 1) is not None:
        return embedding[:, 1:]
    return embedding


def _rename(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def resize_tables(
    state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], grids: Mapping[str, tuple[int, int]]
) -> StateDict:
    """Resize, bicubically, relative-position tables and position embeddings whose size differs from the model's.

    Args:
        state: Names and tensors in MMDetection's names.
        shapes: Shapes that the model has.
        grids: Grid ``(H, W)`` of each position embedding in the model.

    Returns:
        A new dict. A table that cannot be resized (other heads or width, not of a square grid) stays as it is.
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
    """Resize a table of grid positions bicubically.

    Args:
        table: ``(1, old H * old W, C)``.
        old: Its grid ``(H, W)``.
        new: The grid wanted.

    Returns:
        ``(1, new H * new W, C)`` of the same dtype.
    """
    grid = table.float().transpose(1, 2).reshape(1, -1, *old)
    resized = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2).to(table.dtype)


def _side(area: int) -> int | None:
    side = round(area**0.5)
    return side if side * side == area else None


def check_keys(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], optional: Iterable[str]) -> None:
    """Check that a state dict fits a model, each key accounted for.

    Args:
        state: Names and tensors, in the model's names.
        shapes: Names and shapes that the model has.
        optional: Names of the model that may be missing.

    Raises:
        CheckpointError: Keys are missing, unexpected or of another shape; the message lists them.
    """
    problems = {
        "missing": sorted(set(shapes) - set(state) - set(optional)),
        "unexpected": sorted(set(state) - set(shapes)),
        "of another shape": [
            f"{key} {tuple(value.shape)} for {tuple(shapes[key])}"
            for key, value in sorted(state.items())
            if key in shapes and value.shape != shapes[key]
        ],
    }
    lines = [f"{len(keys)} {what}: {_some(keys, 20)}" for what, keys in problems.items() if keys]
    if lines:
        raise CheckpointError("expected the checkpoint's keys to be the model's, got\n  " + "\n  ".join(lines))


def _some(names: Iterable[str], limit: int = 8) -> str:
    ordered = sorted(map(str, names))
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more
