"""Data frames with the data of an inspection's figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtn_det.inspection.forward_pass import BlockLook, Looks, NormLook
from dtn_det.inspection.norms import offset_moments, spread

NORMS = {"layer_norm": "LN", "instance_norm": "IN", "dtn": "DTN"}
"""Short names of the three norms, by their fields in :class:`~dtn_det.inspection.norms.Magnitudes`."""
SMALLEST_WEIGHT = 1e-6
"""Smaller weights of a kernel are left out of the table."""


def gates_frame(looks: Looks) -> pd.DataFrame:
    """Make a row for each DTN layer and group; ``mean_gate`` is empty if the layer uses only LayerNorm's mean."""
    rows = []
    for block, norm in looks.norms:
        if norm.gates is None:
            continue
        for group, var in enumerate(norm.gates.var):
            mean = None if norm.gates.mean is None else float(norm.gates.mean[group])
            rows.append({**_norm(block, norm), "group": group + 1, "mean_gate": mean, "var_gate": float(var)})
    return pd.DataFrame(rows)


def kernels_frame(looks: Looks) -> pd.DataFrame:
    """Make a row for each DTN layer and group: the kernel's coefficients, and mean and deviation of its offsets."""
    rows = []
    for block, norm in looks.norms:
        kernels = norm.kernels
        if kernels is None:
            continue
        row_mean, row_sd = offset_moments(kernels.rows, kernels.row_offsets)
        column_mean, column_sd = offset_moments(kernels.columns, kernels.column_offsets)
        for group, (a_x, a_y, a_d) in enumerate(kernels.coefficients):
            rows.append(
                {
                    **_norm(block, norm),
                    "group": group + 1,
                    "a_x": a_x,
                    "a_y": a_y,
                    "a_d": a_d,
                    "right": column_mean[group],
                    "right_sd": column_sd[group],
                    "down": row_mean[group],
                    "down_sd": row_sd[group],
                }
            )
    return pd.DataFrame(rows)


def axis_kernels_frame(looks: Looks) -> pd.DataFrame:
    """Make a row for each DTN layer, group, axis and offset: the weight of the tokens at that offset."""
    parts = []
    for block, norm in looks.norms:
        if norm.kernels is None:
            continue
        axes = (
            ("right", norm.kernels.columns, norm.kernels.column_offsets),
            ("down", norm.kernels.rows, norm.kernels.row_offsets),
        )
        for axis, weights, offsets in axes:
            group, place = np.nonzero(weights >= SMALLEST_WEIGHT)
            columns = {"group": group + 1, "axis": axis, "offset": offsets[place], "weight": weights[group, place]}
            parts.append(pd.DataFrame({**_norm(block, norm), **columns}))
    return pd.concat(parts, ignore_index=True)


def kernel_maps_frame(looks: Looks, radius: int) -> pd.DataFrame:
    """Make a row for each DTN layer, group and offset of at most ``radius``: the weight of one neighbouring token."""
    parts = []
    for block, norm in looks.norms:
        if norm.kernels is not None:
            group, down, right, weight = _cells(norm.kernels.window(radius))
            columns = {"group": group + 1, "down": down - radius, "right": right - radius, "weight": weight}
            parts.append(pd.DataFrame({**_norm(block, norm), **columns}))
    return pd.concat(parts, ignore_index=True)


def magnitudes_frame(chosen: Sequence[BlockLook], norm_name: str) -> pd.DataFrame:
    """Make a row for each chosen block and token: its magnitude before and after three norms, averaged over groups."""
    parts = []
    for block in chosen:
        norm = block.norms[norm_name]
        row, column = (index.ravel() for index in np.indices(block.inside.shape))
        fields = {"tokens": "input", **NORMS}
        sizes = {title: getattr(norm.magnitudes, field).mean(axis=0).ravel() for field, title in fields.items()}
        columns = {"row": row, "column": column, "inside": block.inside.ravel(), **sizes}
        parts.append(pd.DataFrame({**_norm(block, norm), **columns}))
    return pd.concat(parts, ignore_index=True)


def spread_frame(looks: Looks) -> pd.DataFrame:
    """Make a row for each norm: standard deviation of the magnitudes of the image's tokens, divided by their mean."""
    rows = []
    for block, norm in looks.norms:
        magnitudes = norm.magnitudes
        fields = {"tokens": "input", **NORMS}
        spreads = {
            title: spread(getattr(magnitudes, field).mean(axis=0)[block.inside]) for field, title in fields.items()
        }
        rows.append({**_norm(block, norm), "kind": norm.kind, **spreads})
    return pd.DataFrame(rows)


def distance_frame(looks: Looks) -> pd.DataFrame:
    """Make a row for each block and head: mean attention distance in tokens and in pixels of the network's input."""
    rows = []
    for block in looks.blocks:
        look = block.attention
        for head, tokens in enumerate(look.distance):
            rows.append(
                {
                    **_block(block),
                    "attention": block.kind,
                    "head": head + 1,
                    "tokens": tokens,
                    "pixels": tokens * block.stride,
                    "uniform_tokens": look.uniform_distance,
                    "uniform_pixels": look.uniform_distance * block.stride,
                    "stride": block.stride,
                    "on_map": look.on_map[head],
                }
            )
    return pd.DataFrame(rows)


def received_frame(chosen: Sequence[BlockLook]) -> pd.DataFrame:
    """Make a row for each chosen block and key: the attention that the key receives, relative to uniform attention."""
    parts = []
    for block in chosen:
        received = block.attention.received.mean(axis=0)
        row, column = (index.ravel() for index in np.indices(received.shape))
        parts.append(pd.DataFrame({**_block(block), "row": row, "column": column, "over_uniform": received.ravel()}))
    return pd.concat(parts, ignore_index=True)


def class_attention_frame(chosen: Sequence[BlockLook]) -> pd.DataFrame:
    """Make a row for each chosen block, head and key: the class token's attention to the key, divided by the mean."""
    parts = []
    for block in chosen:
        if block.attention.class_map is not None:
            head, row, column, value = _cells(block.attention.class_map)
            parts.append(
                pd.DataFrame({**_block(block), "head": head + 1, "row": row, "column": column, "over_uniform": value})
            )
    return pd.concat(parts, ignore_index=True)


def _block(block: BlockLook) -> dict[str, Any]:
    return {"layer": block.name, "stage": block.stage, "block": block.index}


def _norm(block: BlockLook, norm: NormLook) -> dict[str, Any]:
    return {**_block(block), "norm": norm.name}


def _cells(maps: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the indices along the three axes and the values of all elements of ``maps``."""
    first, second, third = (index.ravel() for index in np.indices(maps.shape))
    return first, second, third, maps.ravel()


def all_frames(looks: Looks, chosen: Sequence[BlockLook], norm_name: str, radius: int) -> dict[str, pd.DataFrame]:
    """Return all tables by the names of their files; ``radius``, in tokens, limits the two-dimensional kernels."""
    frames = {
        "attention_distance": distance_frame(looks),
        "magnitudes": magnitudes_frame(chosen, norm_name),
        "magnitude_spread": spread_frame(looks),
        "attention_received": received_frame(chosen),
    }
    if any(block.attention.class_map is not None for block in chosen):
        frames["class_attention"] = class_attention_frame(chosen)
    if looks.has_dtn:
        frames["gates"] = gates_frame(looks)
        frames["kernels"] = kernels_frame(looks)
        frames["kernel_axes"] = axis_kernels_frame(looks)
        frames["kernel_maps"] = kernel_maps_frame(looks, radius)
    return dict(sorted(frames.items()))
