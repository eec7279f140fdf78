"""Corruption errors of classifiers: mCE, relative mCE, mean error.

Tables are tidy: columns `corruption`, `severity`, `error` (a fraction), and `num_images` where known; the clean images
are corruption `clean`, severity 0. Definitions: Hendrycks and Dietterich, arXiv:1903.12261, Section 4.1.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtn_det.corruptions.catalog import SEVERITIES, group_of
from dtn_det.metrics import formulas
from dtn_det.metrics.baselines import resolve_baseline
from dtn_det.metrics.cells import CellLayout, CellValues, CorruptionSet, cell_error, checked_cells, metric_name
from dtn_det.metrics.formulas import Summary


def mean_corruption_error(
    frame: pd.DataFrame,
    baseline: str | pd.DataFrame = "alexnet",
    *,
    corruptions: CorruptionSet = "benchmark",
    allow_partial: bool = False,
    column: str = "error",
) -> Summary:
    """Compute the mCE in percent, the mean of the CE over the corruptions.

    The CE of a corruption is the sum of the model's errors over the severities, divided by the sum of the baseline's
    errors.

    Args:
        baseline: `alexnet`, or the table of a model evaluated on the same cells; that model itself has an mCE of 100.
        corruptions: `benchmark` (the paper's 15), `extra` (the 4 hold-outs) or `all`; never mixed.
        allow_partial: Whether to accept missing cells; both sums are then over the severities that the model has, and
            :attr:`Summary.label` says so.

    Raises:
        CellError: A table lacks cells or has faulty rows, which the message lists, or the baseline makes no error on a
            corruption.
        InputError: A column is missing, or the baseline or set is unknown.
    """
    return _mean_ratio(frame, baseline, corruptions, allow_partial, column, relative=False)


def relative_mean_corruption_error(
    frame: pd.DataFrame,
    baseline: str | pd.DataFrame = "alexnet",
    *,
    corruptions: CorruptionSet = "benchmark",
    allow_partial: bool = False,
    column: str = "error",
) -> Summary:
    """Compute the relative mCE in percent: from each error, the clean error of the same model is subtracted first.

    All else is computed as in :func:`mean_corruption_error`, which has the same arguments.

    Raises:
        CellError: A table lacks cells or the clean row, or has faulty rows, or the errors of the baseline do not rise
            under some corruption.
        InputError: A column is missing, or the baseline or set is unknown.
    """
    return _mean_ratio(frame, baseline, corruptions, allow_partial, column, relative=True)


def _mean_ratio(
    frame: pd.DataFrame,
    baseline: str | pd.DataFrame,
    corruptions: CorruptionSet,
    allow_partial: bool,
    column: str,
    *,
    relative: bool,
) -> Summary:
    model = checked_cells(
        frame, column, corruptions=corruptions, needs_clean=relative, allow_partial=allow_partial, what="the model"
    )
    against = resolve_baseline(
        baseline, model.cells, corruptions=corruptions, needs_clean=relative, num_images=model.num_images, column=column
    )
    layout = CellLayout.of(model.cells)
    if relative:
        clean, baseline_clean = np.array(model.clean), np.array(against.clean)
        harm = formulas.degradations(against.errors, baseline_clean, layout)
        check_denominators(harm, layout, "the corruption does not harm the baseline")
        ratios = formulas.relative_corruption_errors(model.values, clean, against.errors, baseline_clean, layout)
    else:
        check_denominators(formulas.sums(against.errors, layout), layout, "the baseline makes no error there")
        ratios = formulas.corruption_errors(model.values, against.errors, layout)
    name = metric_name("relative mCE" if relative else "mCE", corruptions)
    return _summary(name, ratios, layout, model, against.name)


def mean_error(
    frame: pd.DataFrame,
    *,
    corruptions: CorruptionSet = "benchmark",
    allow_partial: bool = False,
    column: str = "error",
    at_most: float | None = 1.0,
) -> Summary:
    """Compute the mean of a column over the severities of each corruption, then over the corruptions.

    The result has the unit of the column.

    Args:
        corruptions: `benchmark` (the paper's 15), `extra` (the 4 hold-outs) or `all`; never mixed.
        column: `error` (top-1), `top5_error`, or a column of :func:`~dtn_det.metrics.calibration.calibration`.
        at_most: The largest value to accept; None (no limit) for NLL, 2 for the Brier score.

    Raises:
        CellError: The table lacks cells or has faulty rows.
        InputError: A column is missing, or the set is unknown.
    """
    model = checked_cells(
        frame, column, corruptions=corruptions, allow_partial=allow_partial, at_most=at_most, what="the model"
    )
    layout = CellLayout.of(model.cells)
    severities = formulas.severity_means(model.values, layout)
    name = metric_name(f"mean {column.replace('_', ' ')}", corruptions)
    return _summary(name, formulas.means(model.values, layout), layout, model, None, severities)


def corruption_error(
    frame: pd.DataFrame,
    baseline: str | pd.DataFrame = "alexnet",
    *,
    corruptions: CorruptionSet = "benchmark",
    allow_partial: bool = False,
    column: str = "error",
) -> pd.DataFrame:
    """Compute the CE of each corruption, of which :func:`mean_corruption_error` is the mean.

    Returns:
        One row for each corruption, with the columns `corruption`, `group`, `value` (the CE in percent), `cells` (how
        many severities the model has) and `expected_cells`.
    """
    mean = mean_corruption_error(frame, baseline, corruptions=corruptions, allow_partial=allow_partial, column=column)
    return _table(mean, frame)


def relative_corruption_error(
    frame: pd.DataFrame,
    baseline: str | pd.DataFrame = "alexnet",
    *,
    corruptions: CorruptionSet = "benchmark",
    allow_partial: bool = False,
    column: str = "error",
) -> pd.DataFrame:
    """Compute the relative CE of each corruption, in a table like the table of :func:`corruption_error`."""
    mean = relative_mean_corruption_error(
        frame, baseline, corruptions=corruptions, allow_partial=allow_partial, column=column
    )
    return _table(mean, frame)


def is_at_chance(clean_error: float, num_images: int | None, num_classes: int) -> bool:
    """Return whether a model's clean accuracy is no better than random guessing, so that corruption cannot harm it.

    Accuracies up to three standard deviations above the accuracy of guessing count as guessing.

    Args:
        clean_error: The clean error, a fraction.
        num_images: Number of images on which the clean error was measured; None if the error is exact, so that the
            deviation is 0.
    """
    chance = 1 / num_classes
    spread = math.sqrt(chance * (1 - chance) / num_images) if num_images else 0.0
    return 1 - clean_error <= chance + 3 * spread


def chance_remark(clean_error: float, who: str = "the model") -> str:
    """Return a sentence that explains why a model that guesses cannot have, or be the baseline of, a relative mCE."""
    return (
        f"no relative mCE: with a clean error of {100 * clean_error:.2f} % {who} is no better than chance, so "
        "corruption has nothing to take from it"
    )


def check_denominators(values: NDArray[np.float64], layout: CellLayout, reason: str) -> None:
    """Raise a :class:`~dtn_det.errors.CellError` for corruptions whose denominator is not positive.

    Args:
        values: The denominator of each corruption, (corruptions,).
        reason: What a denominator of 0 means, for the message.
    """
    faulty = [name for name, value in zip(layout.corruptions, values, strict=True) if not value > 0]
    if faulty:
        cells = tuple((name, severity) for name in faulty for severity in SEVERITIES)
        raise cell_error("the baseline", {reason: cells}, "a ratio to it is undefined; choose another baseline")


def _summary(
    metric: str,
    values: NDArray[np.float64],
    layout: CellLayout,
    model: CellValues,
    baseline: str | None,
    severities: dict[int, NDArray[np.float64]] | None = None,
) -> Summary:
    return Summary(
        metric=metric,
        value=float(values.mean()),
        by_corruption=dict(zip(layout.corruptions, values.tolist(), strict=True)),
        by_group={group: float(mean) for group, mean in formulas.group_means(values, layout).items()},
        by_severity={severity: float(mean) for severity, mean in (severities or {}).items()},
        cells=len(model.cells),
        expected_cells=model.expected_cells,
        baseline=baseline,
        clean=model.clean,
        num_images=model.num_images,
    )


def _table(mean: Summary, frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame["corruption"].value_counts()
    columns = {
        "corruption": list(mean.by_corruption),
        "group": [group_of(name) for name in mean.by_corruption],
        "value": list(mean.by_corruption.values()),
        "cells": [int(rows[name]) for name in mean.by_corruption],
        "expected_cells": [len(SEVERITIES)] * len(mean.by_corruption),
    }
    return pd.DataFrame(columns)
