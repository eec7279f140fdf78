"""Key maps of Swin: of timm and of its authors to MMDetection's names. Pure functions on state dicts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from dtn_det.checkpoints.names import Rules, StateDict, rename

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
    """The authors' Swin in MMDetection's names, with the channels of patch merging in the order of ``nn.Unfold``."""
    out = {}
    for key, value in state.items():
        if re.search(r"\.downsample\.(reduction|norm)\.(weight|bias)$", key):
            value = merging_to_unfold_order(value)
        out[rename(key, _SWIN_RULES)] = value
    return out


def merging_to_unfold_order(value: Tensor) -> Tensor:
    """Reorder the last axis from (column, row, channel), as the authors concatenate, to (channel, row, column).

    Args:
        value: ``(..., 4 * C)``.

    Returns:
        ``(..., 4 * C)``.
    """
    return value.reshape(*value.shape[:-1], 2, 2, -1).transpose(-1, -3).reshape(value.shape)
