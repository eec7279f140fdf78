"""Bootstrap replicates of a classifier's numbers, from arrays with a row for each image and a column for each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtn_det.corruptions.cells import Cell
from dtn_det.errors import InputError
from dtn_det.metrics.calibration import BINS, bin_of, check_bins, confidences, numbers
from dtn_det.metrics.resampling import REPLICATES, Samples, check_cells, digest, weights
from dtn_det.system.compiled import compiled

# Sums over bins are computed in steps of this many replicates and images, so that their arrays fit into a core's cache.
_TOGETHER = 128
_IMAGES = 8192
_THREADS = 4
# Above this number of images, sums are in float32, which is noticeably faster and precise enough for an interval.
_MANY = 4096


def error_samples(
    correct: ArrayLike,
    cells: Sequence[Cell],
    images: Sequence[object],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    metric: str = "error",
) -> Samples:
    """Compute the errors of a classifier on every cell, for all images and for each replicate.

    Args:
        correct: Whether each image was recognised under each cell, booleans of shape (images, cells).
        cells: The cell of each column.
        images: The name of the image of each row.
        seed: Seed of the draws. Models to compare need the same images, replicates and seed.
        metric: `error` (top-1) or a name such as `top5_error`.

    Raises:
        InputError: The array is not boolean or has another shape, a cell is unknown or repeated, or an image is
            repeated.
    """
    hits = np.asarray(correct)
    if hits.dtype != np.bool_:
        raise InputError(f"expected an array of booleans, got {hits.dtype}: compare predictions with labels")
    return mean_samples({metric: ~hits}, cells, images, replicates=replicates, seed=seed)[metric]


def mean_samples(
    values: Mapping[str, ArrayLike],
    cells: Sequence[Cell],
    images: Sequence[object],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Samples]:
    """Compute samples as :func:`error_samples` does, but for any number that each image has, such as its NLL.

    Args:
        values: An array (images, cells) for each metric by name; one call for several metrics is faster than one call
            each.

    Raises:
        InputError: An array has another shape or is not finite, a cell is unknown or repeated, or an image is repeated.
    """
    found = check_cells(cells)
    size, count, names = len(images), len(found), digest(images)
    each = np.empty((size, len(values) * count), _sum_type(size))
    points, offsets = [], []
    for place, (metric, array) in enumerate(values.items()):
        exact = np.asarray(array).dtype == np.bool_
        own = np.asarray(array) if exact else numbers(metric, array)
        _check_shape(own, cells, images)
        if not np.isfinite(own).all():
            raise InputError(f"expected finite values of `{metric}`, got NaN or infinity: mend the records")
        points.append(np.count_nonzero(own, axis=0) / size if exact else own.mean(0))
        # Sums of 0 and 1 are exact. Of other numbers, the differences from the mean are summed, because sums of small
        # numbers have small rounding errors.
        offsets.append(np.zeros(count) if exact else points[-1])
        into = each[:, place * count : (place + 1) * count]
        np.subtract(own, offsets[-1], out=into, casting="same_kind")
    sums = np.concatenate([drawn @ each for drawn in weights(size, replicates, seed)]).astype(np.float64)
    means = np.split(sums / size + np.concatenate(offsets), len(values), axis=1)
    return {
        metric: Samples(metric, found, point, mean, size, names, seed)
        for metric, point, mean in zip(values, points, means, strict=True)
    }


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
    """Compute the expected calibration error on every cell, for all images and for each replicate.

    Args:
        confidence: Largest probability of each image, (images, cells).
        correct: Whether the prediction is right, (images, cells).

    Raises:
        InputError: An array has another shape, a confidence is outside [0, 1], or a value of `correct` is not 0 or 1.
            `bins` is less than 1, a cell is unknown or repeated, or an image is repeated.
    """
    check_bins(bins)
    scores, hits = np.asarray(confidence), np.asarray(correct)
    found = _check_shape(scores, cells, images)
    _check_shape(hits, cells, images)
    size = len(scores)
    which, gaps = np.empty(scores.shape, np.min_scalar_type(bins)), np.empty(scores.shape, _sum_type(size))
    point = np.empty(len(found))
    for cell in range(len(found)):
        score, hit = confidences(scores[:, cell], hits[:, cell])
        which[:, cell] = bin_of(score, bins)
        # The ECE is the sum over bins of |sum of (correct - confidence) over the images of the bin|, divided by `size`.
        point[cell] = np.abs(np.bincount(which[:, cell], hit - score)).sum() / size
        gaps[:, cell] = hit - score
    parts = [_bin_sums(drawn, which, gaps, bins) for drawn in weights(size, replicates, seed)]
    values = np.concatenate([np.abs(part).sum(1).T for part in parts]) / size
    return Samples("ece", found, point, values, size, digest(images), seed)


def _bin_sums(
    drawn: NDArray[np.float32], which: NDArray[np.unsignedinteger], gaps: NDArray[np.floating], bins: int
) -> NDArray[np.float64]:
    """Sum the gaps of the images in each bin, each gap as often as a replicate has drawn its image.

    `drawn` counts the draws, (replicates, images). `which` is the bin of each image, (images, cells), and `gaps` has
    the same shape. The sums are (cells, bins, replicates).
    """
    replicates, size = drawn.shape
    sums = np.zeros((gaps.shape[1], bins, replicates))

    def add(first: int) -> None:
        some = slice(first, first + _TOGETHER)
        for start in range(0, size, _IMAGES):
            images = slice(start, start + _IMAGES)
            part = np.zeros((*sums.shape[:2], len(drawn[some])), gaps.dtype)
            _add_to_bins(drawn[some, images].T.astype(gaps.dtype, order="C"), which[images], gaps[images], part)
            sums[:, :, some] += part

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(add, range(0, replicates, _TOGETHER)):
            pass
    return sums


def _sum_type(num_images: int) -> type[np.floating]:
    return np.float32 if num_images > _MANY else np.float64


@compiled
def _add_to_bins(
    drawn: NDArray[np.floating],
    which: NDArray[np.unsignedinteger],
    gaps: NDArray[np.floating],
    sums: NDArray[np.floating],
) -> None:
    """Add each number, times how often each replicate has drawn its image, to the sum of its cell and bin."""
    for image in range(len(drawn)):
        row = drawn[image]
        for cell in range(which.shape[1]):
            into = sums[cell, which[image, cell]]
            gap = gaps[image, cell]
            for replicate in range(len(row)):
                into[replicate] += gap * row[replicate]


def _check_shape(values: NDArray[np.generic], cells: Sequence[Cell], images: Sequence[object]) -> tuple[Cell, ...]:
    found = check_cells(cells)
    if values.shape != (len(images), len(found)) or not len(images):
        raise InputError(
            f"expected an array of {len(images)} images x {len(found)} cells (at least one each), got {values.shape}"
        )
    if len(set(images)) != len(images):
        raise InputError("expected each image once, got one twice: drop the copies, which would narrow the intervals")
    return found
