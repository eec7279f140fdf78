"""Bootstrap replicates of the numbers of classifiers, from arrays with one row an image and one column a cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtn_det.metrics.calibration import BINS, bin_of, check_bins, confidences, numbers
from dtn_det.metrics.cells import Cell
from dtn_det.metrics.resampling import REPLICATES, Samples, check_cells, digest, image_counts

_CHUNK = 64
# float32 holds whole numbers exactly up to here, and its matrix product runs twice as fast.
_EXACT_IN_FLOAT32 = 2**24


def error_samples(
    correct: ArrayLike,
    cells: Sequence[Cell],
    images: Sequence[object],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    metric: str = "error",
) -> Samples:
    """Errors of a classifier on every cell, for all images and for each replicate.

    Args:
        correct: Whether each image of each cell was recognised, (images, cells) of booleans.
        cells: Of the columns.
        images: Names of the images, of the rows.
        replicates: Number of replicates.
        seed: Of the draws. Models to compare need the same images, replicates and seed.
        metric: `error` (top-1) or a name such as `top5_error`.

    Raises:
        ValueError: An array that is not boolean or does not fit, or unknown cells.
    """
    hits = np.asarray(correct)
    if hits.dtype != np.bool_:
        raise ValueError(f"expected an array of booleans, got {hits.dtype}: compare predictions with labels")
    found = _check_shape(hits, cells, images)
    exact = np.float32 if len(hits) < _EXACT_IN_FLOAT32 else np.float64
    counted = _weighted_sums((~hits).astype(exact), replicates, seed)
    # The same division as for the replicates, so that all images drawn once give the point exactly.
    point = np.count_nonzero(~hits, axis=0) / len(hits)
    return Samples(metric, found, point, counted / len(hits), len(hits), digest(images), seed)


def mean_samples(
    metric: str,
    values: ArrayLike,
    cells: Sequence[Cell],
    images: Sequence[object],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Samples:
    """As :func:`error_samples` for the mean of any number an image has, such as its NLL or Brier score.

    Args:
        metric: Name of the number.
        values: (images, cells).
        cells: Of the columns.
        images: Names of the images, of the rows.
        replicates: Number of replicates.
        seed: Of the draws.

    Raises:
        ValueError: An array that does not fit or is not finite, or unknown cells.
    """
    each = numbers(metric, values)
    found = _check_shape(each, cells, images)
    if not np.isfinite(each).all():
        raise ValueError(f"expected finite values of `{metric}`, got NaN or infinity: mend the records")
    summed = _weighted_sums(each, replicates, seed)
    size = len(each)
    return Samples(metric, found, each.mean(0), summed / size, size, digest(images), seed)


def calibration_error_samples(
    confidence: ArrayLike,
    correct: ArrayLike,
    cells: Sequence[Cell],
    images: Sequence[object],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    bins: int = BINS,
) -> Samples:
    """As :func:`error_samples` for the expected calibration error.

    Args:
        confidence: Largest probability, (images, cells).
        correct: Whether the prediction is right, (images, cells).
        cells: Of the columns.
        images: Names of the images, of the rows.
        replicates: Number of replicates.
        seed: Of the draws.
        bins: Bins of equal width.

    Raises:
        ValueError: Arrays that do not fit, a confidence outside [0, 1], a `correct` that is not 0 or 1, no bin, or
            unknown cells.
    """
    check_bins(bins)
    scores, hits = confidences(confidence, correct)
    found = _check_shape(scores, cells, images)
    size = len(scores)
    point = np.empty(len(found))
    values = np.empty((replicates, len(found)))
    for column in range(len(found)):
        # |sum of (correct - confidence)| over the images of each bin, added up, is the ECE times the images.
        gaps = np.zeros((size, bins))
        gaps[np.arange(size), bin_of(scores[:, column], bins)] = hits[:, column] - scores[:, column]
        point[column] = np.abs(gaps.sum(0)).sum() / size
        values[:, column] = np.abs(_weighted_sums(gaps, replicates, seed)).sum(1) / size
    return Samples("ece", found, point, values, size, digest(images), seed)


def _weighted_sums(values: NDArray[Any], replicates: int, seed: int) -> NDArray[np.float64]:
    """Sums over the drawn images: (images, columns) to (replicates, columns)."""
    parts = [
        (counts.astype(values.dtype) @ values).astype(np.float64)
        for counts in image_counts(len(values), replicates, seed, _CHUNK)
    ]
    return np.concatenate(parts)


def _check_shape(values: NDArray[np.generic], cells: Sequence[Cell], images: Sequence[object]) -> tuple[Cell, ...]:
    found = check_cells(cells)
    if values.shape != (len(images), len(found)) or not len(images):
        raise ValueError(
            f"expected an array of {len(images)} images x {len(found)} cells (at least one each), got {values.shape}"
        )
    if len(set(images)) != len(images):
        raise ValueError("expected each image once, got one twice: drop the copies, which would narrow the intervals")
    return found
