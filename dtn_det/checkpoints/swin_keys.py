"""Key maps of Swin: of timm and of its authors to MMDetection's names. Pure functions on state dicts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from dtn_det.checkpoints.names import Rules, StateDict, rename
from dtn_det.errors import CheckpointError
from dtn_det.layers.norm_options import EXTRA_STATE, unpack_options

_OF_MERGING = re.compile(r"\.downsample\.(?P<layer>reduction|norm)\.(?P<name>.+)$")

_SWIN_RULES: Rules = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^layers\.", "stages."),
    (r"\.attn\.", ".attn.w_msa."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)


def swin_timm_to_official(state: Mapping[str, Tensor]) -> StateDict:
    """Rename timm's Swin (0.9 and later) as the authors': stage ``i`` ends with what timm starts ``i + 1`` with."""

    def of_the_stage_before(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) - 1}.downsample."

    return {re.sub(r"^layers\.(\d+)\.downsample\.", of_the_stage_before, key): value for key, value in state.items()}


def swin_official_to_mmdet(state: Mapping[str, Tensor]) -> StateDict:
    """The authors' Swin in MMDetection's names, with the channels of patch merging in the order of ``nn.Unfold``.

    Raises:
        CheckpointError: A norm of patch merging has several groups, between which channels would move.
    """
    out = {}
    for key, value in state.items():
        found = _OF_MERGING.search(key)
        if found is not None and found["layer"] == "norm":
            norm = key[: found.start("name")]
            _check_one_group(state, norm)
            # Statistics of BatchNorm are by channel too; parameters of groups, and options, are not.
            by_channel = value.shape == state.get(f"{norm}weight", value[..., :0]).shape
        else:
            by_channel = found is not None and found["name"] == "weight"
        if by_channel:
            value = merging_to_unfold_order(value)
        out[rename(key, _SWIN_RULES)] = value
    return out


def _check_one_group(state: Mapping[str, Tensor], norm: str) -> None:
    """See that a norm of patch merging, whose names start with `norm`, has a single group."""
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
    """Reorder the last axis from (column, row, channel), as the authors concatenate, to (channel, row, column).

    Args:
        value: ``(..., 4 * C)``.

    Returns:
        ``(..., 4 * C)``.
    """
    return value.reshape(*value.shape[:-1], 2, 2, -1).transpose(-1, -3).reshape(value.shape)
