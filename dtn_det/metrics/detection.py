"""Performance of detectors under corruption: mPC and rPC.

Tables are tidy: columns `corruption`, `severity`, one for each metric (`AP`, `AP50`, ..., fractions), and `num_images`
where known; the clean images are corruption `clean`, severity 0. Boxes and masks need a table each. Definitions:
Michaelis et al., arXiv:1907.07484, Section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dtn_det.corruptions.cells import CLEAN
from dtn_det.errors import CellError
from dtn_det.metrics import formulas
from dtn_det.metrics.cells import CellLayout, CellValues, CorruptionSet, cell_error, checked_cells, metric_name
from dtn_det.metrics.formulas import Summary

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""Names of COCO's average precisions."""

LVIS_METRICS = (*METRICS, "APr", "APc", "APf")
"""Names of LVIS's average precisions: also those of rare, common and frequent categories."""


def mean_performance_under_corruption(
    frame: pd.DataFrame,
    metric: str = "AP",
    *,
    corruptions: CorruptionSet = "benchmark",
    allow_partial: bool = False,
) -> Summary:
    """Compute the mPC, the mean over corruptions of the mean over severities, in the unit of the table.

    Args:
        corruptions: `benchmark` (the paper's 15), `extra` (the 4 hold-outs) or `all`; never mixed.
        allow_partial: Whether to accept missing cells. The means then leave these cells out, and :attr:`Summary.label`
            says so.

    Raises:
        CellError: The table lacks cells or has faulty rows; the message lists them. Or a value is -1, as COCO's
            evaluation gives for an area range without ground truth.
        InputError: A column is missing, or the set is unknown.
    """
    return _summary("mPC", _checked(frame, metric, corruptions, allow_partial, needs_clean=False), metric, corruptions)


def relative_performance_under_corruption(
    frame: pd.DataFrame,
    metric: str = "AP",
    *,
    corruptions: CorruptionSet = "benchmark",
    allow_partial: bool = False,
) -> Summary:
    """Compute the rPC in percent: the mPC divided by the clean performance P, not a mean of ratios.

    Arguments are those of :func:`mean_performance_under_corruption`.

    Raises:
        CellError: The table lacks cells or the clean row or has faulty rows, or P is 0.
        InputError: A column is missing, or the set is unknown.
    """
    return _summary("rPC", _checked(frame, metric, corruptions, allow_partial, needs_clean=True), metric, corruptions)


def performance_table(
    frame: pd.DataFrame,
    metrics: Sequence[str] = METRICS,
    *,
    corruptions: CorruptionSet = "benchmark",
    allow_partial: bool = False,
) -> pd.DataFrame:
    """Compute P, mPC and rPC of several metrics.

    Returns:
        One row for each metric: `metric`, `P`, `mPC`, `rPC` (percent), `cells`, `expected_cells`.

    Raises:
        CellError: See :func:`relative_performance_under_corruption`.
        InputError: A column is missing, or the set is unknown.
    """
    rows = []
    for metric in metrics:
        model = _checked(frame, metric, corruptions, allow_partial, needs_clean=True)
        mean = _summary("mPC", model, metric, corruptions)
        relative = _summary("rPC", model, metric, corruptions)
        rows.append((metric, model.clean, mean.value, relative.value, mean.cells, mean.expected_cells))
    columns = ["metric", "P", "mPC", "rPC", "cells", "expected_cells"]
    return pd.DataFrame(rows, columns=columns)


def no_clean_performance(metric: str) -> CellError:
    """Make the error to raise for a model whose clean performance is 0, so that its rPC is undefined."""
    return cell_error("the model", {f"clean `{metric}` 0": (CLEAN,)}, "the rPC is undefined; report the mPC")


def _checked(
    frame: pd.DataFrame, metric: str, corruptions: CorruptionSet, allow_partial: bool, needs_clean: bool
) -> CellValues:
    model = checked_cells(
        frame,
        metric,
        corruptions=corruptions,
        needs_clean=needs_clean,
        allow_partial=allow_partial,
        coco=True,
        what="the model",
    )
    if needs_clean and model.clean == 0:
        raise no_clean_performance(metric)
    return model


def _summary(kind: str, model: CellValues, metric: str, corruptions: CorruptionSet) -> Summary:
    layout = CellLayout.of(model.cells)
    values = formulas.means(model.values, layout)
    severities = formulas.severity_means(model.values, layout)
    groups = formulas.group_means(values, layout)
    mean = values.mean()
    if kind == "rPC":
        clean = np.array(model.clean)
        mean, values = formulas.relative_performance(mean, clean), formulas.relative_performance(values, clean)
        severities = {key: formulas.relative_performance(value, clean) for key, value in severities.items()}
        groups = {key: formulas.relative_performance(value, clean) for key, value in groups.items()}
    return Summary(
        metric=f"{metric_name(kind, corruptions)} {metric}",
        value=float(mean),
        by_corruption=dict(zip(layout.corruptions, values.tolist(), strict=True)),
        by_group={group: float(value) for group, value in groups.items()},
        by_severity={severity: float(value) for severity, value in severities.items()},
        cells=len(model.cells),
        expected_cells=model.expected_cells,
        clean=model.clean,
        num_images=model.num_images,
    )
