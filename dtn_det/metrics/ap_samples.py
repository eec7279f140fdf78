"""COCO's average precision with a weight for each image, so that resampled images need not be matched again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtn_det.corruptions.cells import Cell
from dtn_det.errors import InputError
from dtn_det.metrics.coco_matches import CocoMatches
from dtn_det.metrics.detection import METRICS
from dtn_det.metrics.resampling import REPLICATES, Samples, check_cells, digest, image_counts
from dtn_det.system.compiled import compiled_exactly

_CHUNK = 50


class _Slice(NamedTuple):
    """The area range and the IoU threshold of a metric; threshold None means the mean over all thresholds."""

    area: str
    threshold: float | None


_SLICES = {
    "AP": _Slice("all", None),
    "AP50": _Slice("all", 0.5),
    "AP75": _Slice("all", 0.75),
    "APs": _Slice("small", None),
    "APm": _Slice("medium", None),
    "APl": _Slice("large", None),
}


def average_precision(
    matches: CocoMatches, weights: NDArray[np.integer] | None = None, metrics: Sequence[str] = METRICS
) -> NDArray[np.float64]:
    """Compute COCO's average precisions where each image counts as often as its weight says.

    Weights of 1 give the result of COCO's evaluation of the set. A weight of 2 gives the result for a set that holds
    the image twice, up to the order of detections with equal scores in the two copies.

    Args:
        weights: Whole numbers of shape (images,) or (replicates, images); with None, each image counts once.
        metrics: Any of `AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`.

    Returns:
        Shape (metrics,) or (replicates, metrics); NaN where no ground truth is left (COCO's evaluation gives -1).

    Raises:
        InputError: The weights have another shape or are not whole numbers of at least 0, a metric is unknown, or its
            area range or IoU threshold was not evaluated.
    """
    size = len(matches.images)
    counts = np.ones(size, dtype=np.int64) if weights is None else np.asarray(weights)
    if counts.shape[-1:] != (size,) or counts.ndim > 2 or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise InputError(
            f"expected weights of {size} images, whole numbers from 0 on, got {counts.dtype} of shape {counts.shape}"
        )
    where = [_indices(matches, metric) for metric in metrics]
    needed = np.zeros((len(matches.areas), len(matches.iou_thresholds)), dtype=np.bool_)
    for area, levels in where:
        needed[area, levels] = True
    by_category = _weighted_ap(
        np.atleast_2d(counts).astype(np.float64),
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
    columns = [_mean_of_categories(by_category[:, :, area, levels].mean(-1)) for area, levels in where]
    found = np.stack(columns, axis=-1)
    return found if counts.ndim == 2 else found[0]


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
        points.append(average_precision(matches, None, metrics))
        if not draws:
            draws = [counts.astype(np.int32) for counts in image_counts(len(images), replicates, seed, _CHUNK)]
        values.append(np.concatenate([average_precision(matches, counts, metrics) for counts in draws]))
    found = check_cells(names)
    point, value = np.stack(points), np.stack(values, axis=1)
    return {
        metric: Samples(metric, found, point[:, index], value[:, :, index], len(images), digest(images), seed)
        for index, metric in enumerate(metrics)
    }


def _indices(matches: CocoMatches, metric: str) -> tuple[int, NDArray[np.intp]]:
    if metric not in _SLICES:
        raise InputError(f"expected a metric out of {', '.join(_SLICES)}, got {metric!r}")
    area, threshold = _SLICES[metric]
    wanted = matches.iou_thresholds if threshold is None else threshold
    levels = np.flatnonzero(np.isclose(matches.iou_thresholds, wanted))
    if area not in matches.areas or not len(levels):
        raise InputError(
            f"expected an evaluation with what {metric} needs (area range {area!r}"
            f"{f', IoU {threshold}' if threshold else ''}), got areas {', '.join(matches.areas)} and IoUs "
            f"{', '.join(f'{one:g}' for one in matches.iou_thresholds)}: leave it out or evaluate with COCO's settings"
        )
    return matches.areas.index(area), levels


def _mean_of_categories(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over the categories with ground truth: (replicates, categories) becomes (replicates,)."""
    present = np.isfinite(values)
    count = present.sum(-1)
    mean: NDArray[np.float64] = np.full(len(values), np.nan)
    np.divide(np.where(present, values, 0.0).sum(-1), count, out=mean, where=count > 0)
    return mean


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
    """Compute the AP of each replicate, category, area range and threshold; NaN if not needed or without ground truth.

    Precision is computed at true positives only, because between true positives it can only fall. The number of false
    positives before a true positive is the number of earlier detections inside the area range that have no match. The
    loop therefore visits only matches.
    """
    areas, levels = needed.shape
    categories = len(starts) - 1
    found = np.full((len(weights), categories, areas, levels), np.nan)
    longest = 0
    for category in range(categories):
        longest = max(longest, starts[category + 1] - starts[category])
    most = 0
    for slot in range(len(match_starts) - 1):
        most = max(most, match_starts[slot + 1] - match_starts[slot])
    weight = np.empty(longest)
    so_far = np.empty(longest)
    recall = np.empty(most)
    precision = np.empty(most)
    for replicate in range(len(weights)):
        for category in range(categories):
            first, last = starts[category], starts[category + 1]
            for place in range(last - first):
                weight[place] = weights[replicate, image[first + place]]
            for area in range(areas):
                if not needed[area].any():
                    continue
                positives = 0.0
                for entry in range(truth_starts[category], truth_starts[category + 1]):
                    positives += weights[replicate, truth_image[entry]] * truths[area, entry]
                if positives == 0:
                    continue
                total = 0.0
                for place in range(last - first):
                    if inside[area, first + place]:
                        total += weight[place]
                    so_far[place] = total
                for level in range(levels):
                    if not needed[area, level]:
                        continue
                    slot = (category * areas + area) * levels + level
                    hits = 0.0
                    not_false = 0.0
                    points = 0
                    for entry in range(match_starts[slot], match_starts[slot + 1]):
                        place = match_position[entry]
                        if weight[place] == 0:
                            continue
                        if inside[area, first + place]:
                            not_false += weight[place]
                        if match_counts[entry]:
                            hits += weight[place]
                            recall[points] = hits / positives
                            precision[points] = hits / ((so_far[place] - not_false) + hits + 2.220446049250313e-16)
                            points += 1
                    highest = 0.0
                    area_under = 0.0
                    threshold = len(recall_thresholds) - 1
                    while threshold >= 0 and (points == 0 or recall_thresholds[threshold] > recall[points - 1]):
                        threshold -= 1
                    for point in range(points - 1, -1, -1):
                        highest = max(highest, precision[point])
                        before = recall[point - 1] if point > 0 else -1.0
                        while threshold >= 0 and recall_thresholds[threshold] > before:
                            area_under += highest
                            threshold -= 1
                    found[replicate, category, area, level] = area_under / len(recall_thresholds)
    return found
