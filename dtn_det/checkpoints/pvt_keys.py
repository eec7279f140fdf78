"""Key maps of PVT and PVTv2: of timm and of their authors to MMDetection's names. Pure functions on state dicts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from dtn_det.checkpoints.names import Rules, StateDict, rename
from dtn_det.checkpoints.tables import without_class_token


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
        key = rename(key, rules)
        key = re.sub(r"^patch_embed(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.0.", key)
        key = re.sub(r"^pos_embed(\d+)$", lambda m: f"layers.{int(m[1]) - 1}.1.0.pos_embed", key)
        key = re.sub(r"^block(\d+)\.(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.1.{int(m[2]) + first_block}.", key)
        out[re.sub(r"^norm(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.2.", key)] = value
    return out
