"""COCO's average precision with a weight for each image, so that resampled images need not be matched again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtn_det.corruptions.cells import Cell
from dtn_det.errors import InputError
from dtn_det.metrics.coco_matches import CocoMatches
from dtn_det.metrics.detection import METRICS
from dtn_det.metrics.resampling import REPLICATES, Samples, check_cells, digest, image_counts
from dtn_det.system.compiled import compiled_exactly

# _CHUNK: number of replicates that are computed side by side. _MOST_NUMBERS: largest number of matches of a category
# times replicates, of which three arrays of 64 MB are kept.
_CHUNK = 128
_MOST_NUMBERS = 2**23


class _Slice(NamedTuple):
    """The area range, IoU threshold and categories of a metric.

    The threshold None means the mean over all thresholds, and the frequency None means all categories.
    """

    area: str
    threshold: float | None
    frequency: str | None = None


_SLICES = {
    "AP": _Slice("all", None),
    "AP50": _Slice("all", 0.5),
    "AP75": _Slice("all", 0.75),
    "APs": _Slice("small", None),
    "APm": _Slice("medium", None),
    "APl": _Slice("large", None),
    "APr": _Slice("all", None, "r"),
    "APc": _Slice("all", None, "c"),
    "APf": _Slice("all", None, "f"),
}


def average_precision(
    matches: CocoMatches, weights: NDArray[np.integer] | None = None, metrics: Sequence[str] = METRICS
) -> NDArray[np.float64]:
    """Compute COCO's average precisions where each image counts as often as its weight says.

    Weights of 1 give the result of COCO's evaluation of the set. A weight of 2 gives the result for a set that holds
    the image twice, up to the order of detections with equal scores in the two copies.

    Args:
        weights: Whole numbers of shape (images,) or (replicates, images); with None, each image counts once.
        metrics: Any of `AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`, and with LVIS's rule `APr`, `APc`, `APf`.

    Returns:
        Shape (metrics,) or (replicates, metrics); NaN where no ground truth is left (COCO's evaluation gives -1).

    Raises:
        InputError: The weights have another shape or are not whole numbers of at least 0, a metric is unknown, or its
            area range or IoU threshold was not evaluated.
    """
    counts = image_weights(matches, weights)
    where = [_indices(matches, metric) for metric in metrics]
    needed = np.zeros((len(matches.areas), len(matches.iou_thresholds)), dtype=np.bool_)
    for area, levels in where:
        needed[area, levels] = True
    by_category = category_precisions(matches, np.atleast_2d(counts), needed)
    frequencies = np.array(matches.frequencies or [""] * by_category.shape[1])
    columns = []
    for metric, (area, levels) in zip(metrics, where, strict=True):
        frequency = _SLICES[metric].frequency
        own = np.ones(len(frequencies), np.bool_) if frequency is None else frequencies == frequency
        columns.append(mean_of_categories(by_category[:, own, area][:, :, levels].mean(-1)))
    found = np.stack(columns, axis=-1)
    return found if counts.ndim == 2 else found[0]


def category_average_precision(matches: CocoMatches, weights: NDArray[np.integer] | None = None) -> NDArray[np.float64]:
    """Compute COCO's AP of each category, where each image counts as often as its weight says.

    Args:
        weights: Whole numbers of shape (images,) or (replicates, images); with None, each image counts once.

    Returns:
        Shape (K,) or (replicates, K); NaN for categories without ground truth.

    Raises:
        InputError: As for :func:`average_precision`.
    """
    counts = image_weights(matches, weights)
    area, levels = _indices(matches, "AP")
    needed = np.zeros((len(matches.areas), len(matches.iou_thresholds)), np.bool_)
    needed[area, levels] = True
    found: NDArray[np.float64] = category_precisions(matches, np.atleast_2d(counts), needed)[:, :, area, levels].mean(
        -1
    )
    return found if counts.ndim == 2 else found[0]


def category_precisions(
    matches: CocoMatches, counts: NDArray[np.integer], needed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Compute the average precision of each category.

    Args:
        counts: How often each image counts, (replicates, images).
        needed: The area ranges and thresholds to compute, (A, T).

    Returns:
        Shape (replicates, K, A, T); NaN where it is not needed, and where there is no ground truth.
    """
    arrays = (
        needed,
        matches.starts,
        matches.image,
        matches.inside,
        matches.match_starts,
        matches.match_position,
        matches.match_counts,
        matches.ground_truth_starts,
        matches.ground_truth_image,
        matches.ground_truths,
        matches.recall_thresholds,
    )
    most = int(np.diff(matches.match_starts).max(initial=1))
    together = max(1, min(_CHUNK, _MOST_NUMBERS // max(1, most)))
    parts = [
        _weighted_ap(np.ascontiguousarray(counts[start : start + together].T, np.float64), *arrays)
        for start in range(0, len(counts), together)
    ]
    # In one block of memory, so that later means do not depend on how many replicates were computed together.
    return np.ascontiguousarray(np.moveaxis(np.concatenate(parts, axis=-1), -1, 0))


def image_weights(matches: CocoMatches, weights: NDArray[np.integer] | None) -> NDArray[np.integer]:
    """Return the weights of the images as an array, 1 for each image if they are None.

    Raises:
        InputError: The weights have another shape or are not whole numbers of at least 0.
    """
    size = len(matches.images)
    counts = np.ones(size, dtype=np.int64) if weights is None else np.asarray(weights)
    if counts.shape[-1:] != (size,) or counts.ndim > 2 or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise InputError(
            f"expected weights of {size} images, whole numbers from 0 on, got {counts.dtype} of shape {counts.shape}"
        )
    return counts


def ap_samples(
    cells: Iterable[tuple[Cell, CocoMatches]],
    metrics: Sequence[str] = METRICS,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Samples]:
    """Compute the average precisions of a detector on every cell, for all images and for each replicate.

    Args:
        cells: Each cell with its matches; if this is a generator, only the matches of one cell are in memory at a time.
        metrics: Any of `AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`.
        seed: Seed of the draws. Models to compare need the same images, replicates and seed.

    Returns:
        The samples of each metric by its name; values are NaN where there is no ground truth.

    Raises:
        InputError: A cell is unknown or repeated or has other images than the first one. For metrics, see
            :func:`average_precision`.
    """
    return cell_samples(cells, metrics, partial(average_precision, metrics=metrics), replicates, seed)


def cell_samples(
    cells: Iterable[tuple[Cell, CocoMatches]],
    metrics: Sequence[str],
    compute: Callable[[CocoMatches, NDArray[np.integer] | None], NDArray[np.float64]],
    replicates: int,
    seed: int,
) -> dict[str, Samples]:
    """Compute numbers of a detector on every cell, for all images and for each replicate; see :func:`ap_samples`.

    Args:
        metrics: Names of the numbers.
        compute: Returns the numbers, (metrics,) for None and (replicates, metrics) for weights of the images.
    """
    names: list[Cell] = []
    points, values = [], []
    images: tuple[int, ...] = ()
    draws: list[NDArray[np.int32]] = []
    for cell, matches in cells:
        if names and matches.images != images:
            raise InputError(
                f"expected the images of {names[0]} in every cell, got others in {cell}: evaluate all alike"
            )
        images = matches.images
        names.append(cell)
        points.append(compute(matches, None))
        if not draws:
            draws = [counts.astype(np.int32) for counts in image_counts(len(images), replicates, seed, _CHUNK)]
        values.append(np.concatenate([compute(matches, counts) for counts in draws]))
    found = check_cells(names)
    point, value = np.stack(points), np.stack(values, axis=1)
    return {
        metric: Samples(metric, found, point[:, index], value[:, :, index], len(images), digest(images), seed)
        for index, metric in enumerate(metrics)
    }


def _indices(matches: CocoMatches, metric: str) -> tuple[int, NDArray[np.intp]]:
    if metric not in _SLICES:
        raise InputError(f"expected a metric out of {', '.join(_SLICES)}, got {metric!r}")
    area, threshold, _ = _SLICES[metric]
    wanted = matches.iou_thresholds if threshold is None else threshold
    levels = np.flatnonzero(np.isclose(matches.iou_thresholds, wanted))
    if area not in matches.areas or not len(levels):
        raise InputError(
            f"expected an evaluation with what {metric} needs (area range {area!r}"
            f"{f', IoU {threshold}' if threshold else ''}), got areas {', '.join(matches.areas)} and IoUs "
            f"{', '.join(f'{one:g}' for one in matches.iou_thresholds)}: leave it out or evaluate with COCO's settings"
        )
    return matches.areas.index(area), levels


def mean_of_categories(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over the categories that are not NaN: (replicates, categories) becomes (replicates,), NaN without any."""
    present = np.isfinite(values)
    count = present.sum(-1)
    mean: NDArray[np.float64] = np.full(len(values), np.nan)
    np.divide(np.where(present, values, 0.0).sum(-1), count, out=mean, where=count > 0)
    return mean


@compiled_exactly
def _sum_weights(
    sums: NDArray[np.float64],
    base: NDArray[np.float64],
    area: int,
    relative: bool,
    weights: NDArray[np.float64],
    image: NDArray[np.int32],
    inside: NDArray[np.bool_],
    place_of: NDArray[np.int64],
) -> None:
    """Sum the weights of the detections inside an area range up to each place, perhaps from the sums of the first."""
    replicates = weights.shape[1]
    total = np.zeros(replicates)
    seen = 0
    for detection in range(len(image)):
        if seen == len(sums):
            break
        if inside[area, detection] != (relative and inside[0, detection]):
            row = weights[image[detection]]
            sign = 1.0 if inside[area, detection] else -1.0
            for replicate in range(replicates):
                total[replicate] += sign * row[replicate]
        if place_of[detection] >= 0:
            for replicate in range(replicates):
                sums[seen, replicate] = total[replicate] + (base[seen, replicate] if relative else 0.0)
            seen += 1


@compiled_exactly
def _weighted_ap(
    weights: NDArray[np.float64],
    needed: NDArray[np.bool_],
    starts: NDArray[np.int64],
    image: NDArray[np.int32],
    inside: NDArray[np.bool_],
    match_starts: NDArray[np.int64],
    match_position: NDArray[np.int32],
    match_counts: NDArray[np.bool_],
    truth_starts: NDArray[np.int64],
    truth_image: NDArray[np.int32],
    truths: NDArray[np.int32],
    recall_thresholds: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Compute the AP of each category, area range, threshold and replicate; weights are of (images, replicates).

    The innermost loops go over the replicates, whose weights lie side by side in memory, so that the processor computes
    several at once. Precision is computed at true positives only, because between true positives it can only fall. The
    number of false positives before a true positive is the number of earlier detections inside the area range that have
    no match. A true positive of weight 0 has no effect: its precision is at most that of the one before. Recalls are
    computed once for neighbouring area ranges with the same ground truth and the same matches at a single threshold.
    """
    areas, levels = needed.shape
    categories = len(starts) - 1
    replicates = weights.shape[1]
    found = np.full((categories, areas, levels, replicates), np.nan)
    most = 0
    for slot in range(len(match_starts) - 1):
        most = max(most, match_starts[slot + 1] - match_starts[slot])
    longest = 0
    for category in range(categories):
        longest = max(longest, starts[category + 1] - starts[category])
    precision = np.empty((most, replicates))
    place_of = np.empty(longest, dtype=np.int64)
    hits, matched = np.empty(replicates), np.empty(replicates)
    positives, enough = np.empty(replicates), np.empty(replicates)
    reached = np.empty(replicates, dtype=np.int64)
    crossing = np.empty((len(recall_thresholds), replicates), dtype=np.int64)
    for category in range(categories):
        first, last = starts[category], starts[category + 1]
        slots = match_starts[category * areas * levels : (category + 1) * areas * levels + 1]
        # The place of each detection among those that have a match in some area range at some threshold.
        place_of[: last - first] = -1
        for entry in range(slots[0], slots[-1]):
            place_of[match_position[entry]] = 0
        matches = 0
        for place in range(last - first):
            if place_of[place] == 0:
                place_of[place] = matches
                matches += 1
        base = np.empty((matches, replicates))
        so_far = np.empty((matches, replicates))
        if needed[0].any():
            _sum_weights(base, base, 0, False, weights, image[first:last], inside[:, first:last], place_of)
        previous = -1
        for area in range(areas):
            if not needed[area].any():
                continue
            alike = False
            if previous >= 0 and levels == 1:
                one, other, size = slots[previous], slots[area], slots[area + 1] - slots[area]
                alike = size == slots[previous + 1] - one
                for entry in range(truth_starts[category], truth_starts[category + 1]):
                    alike = alike and truths[area, entry] == truths[previous, entry]
                for entry in range(size if alike else 0):
                    alike = alike and match_position[one + entry] == match_position[other + entry]
                    alike = alike and match_counts[one + entry] == match_counts[other + entry]
            previous = area
            if not alike:
                positives[:] = 0.0
                for entry in range(truth_starts[category], truth_starts[category + 1]):
                    count = truths[area, entry]
                    if count:
                        row = weights[truth_image[entry]]
                        for replicate in range(replicates):
                            positives[replicate] += count * row[replicate]
            if not positives.any():
                continue
            others, own = 0, 0
            for place in range(first, last):
                others += inside[area, place] != inside[0, place]
                own += inside[area, place]
            sums = base
            if area and (others or not needed[0].any()):
                sums = so_far
                relative = needed[0].any() and others < own
                _sum_weights(so_far, base, area, relative, weights, image[first:last], inside[:, first:last], place_of)
            for level in range(levels):
                if not needed[area, level]:
                    continue
                slot = area * levels + level
                hits[:] = 0.0
                matched[:] = 0.0
                if not alike:
                    reached[:] = 0
                    enough[:] = 0.0
                points = 0
                for entry in range(slots[slot], slots[slot + 1]):
                    place = match_position[entry]
                    row = weights[image[first + place]]
                    if inside[area, first + place]:
                        for replicate in range(replicates):
                            matched[replicate] += row[replicate]
                    if not match_counts[entry]:
                        continue
                    before = sums[place_of[place]]
                    at = precision[points]
                    crossed = False
                    for replicate in range(replicates):
                        hits[replicate] += row[replicate]
                        false = before[replicate] - matched[replicate]
                        at[replicate] = hits[replicate] / (false + hits[replicate] + 2.220446049250313e-16)
                        crossed |= hits[replicate] >= enough[replicate]
                    if crossed and not alike:
                        for replicate in range(replicates):
                            if hits[replicate] < enough[replicate] or positives[replicate] == 0:
                                continue
                            recall = hits[replicate] / positives[replicate]
                            threshold = reached[replicate]
                            while threshold < len(recall_thresholds) and recall_thresholds[threshold] <= recall:
                                crossing[threshold, replicate] = points
                                threshold += 1
                            reached[replicate] = threshold
                            # No smaller sum of weights reaches the next threshold, whatever the rounding.
                            enough[replicate] = np.inf
                            if threshold < len(recall_thresholds):
                                enough[replicate] = recall_thresholds[threshold] * positives[replicate] * (1 - 1e-12)
                    points += 1
                for point in range(points - 2, -1, -1):
                    at, after = precision[point], precision[point + 1]
                    for replicate in range(replicates):
                        at[replicate] = max(at[replicate], after[replicate])
                for replicate in range(replicates):
                    if positives[replicate] == 0:
                        continue
                    area_under = 0.0
                    for threshold in range(reached[replicate] - 1, -1, -1):
                        area_under += precision[crossing[threshold, replicate], replicate]
                    found[category, area, level, replicate] = area_under / len(recall_thresholds)
    return found
