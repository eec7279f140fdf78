"""Matches of detections and ground truth, from which the AP of any resample of the images can be computed.

The matching follows COCO's evaluation (cocoapi, PythonAPI/pycocotools/cocoeval.py, `evaluateImg`) and is given the
IoUs. So the AP of all images equals the AP of pycocotools, hotcoco and faster-coco-eval.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtn_det.system.compiled import compiled_exactly

UNMATCHED, TRUE_POSITIVE, IGNORED = 0, 1, 2
"""The outcome of a detection. It matches no ground truth, a ground truth that counts, or a ground truth that COCO
ignores (a crowd, or an object outside the area range)."""


@dataclass(frozen=True)
class MatchSettings:
    """The settings of an evaluation: in the shapes, A is the number of area ranges.

    Attributes:
        areas: Labels of the area ranges.
        ranges: Smallest and largest area of each range in square pixels, both included, (A, 2).
        iou_thresholds: The IoU thresholds, (T,).
        recall_thresholds: The recalls at which the precision is read, (R,).
        most: Largest number of detections of a category in an image that count.
    """

    areas: tuple[str, ...]
    ranges: NDArray[np.float64]
    iou_thresholds: NDArray[np.float64]
    recall_thresholds: NDArray[np.float64]
    most: int


COCO_SETTINGS = MatchSettings(
    ("all", "small", "medium", "large"),
    np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]]),
    np.linspace(0.5, 0.95, 10, dtype=np.float64),
    np.linspace(0, 1, 101, dtype=np.float64),
    100,
)
"""The settings of COCO's evaluation (cocoapi, PythonAPI/pycocotools/cocoeval.py, `Params.setDetParams`)."""


@dataclass(frozen=True)
class InPairs:
    """Objects or detections, sorted by category and then by image. A pair is a category and an image.

    Attributes:
        category: Index of the category of each, (N,).
        image: Index of the image of each, (N,).
        area: Area of each in square pixels, (N,).
    """

    category: NDArray[np.int64]
    image: NDArray[np.int64]
    area: NDArray[np.float64]

    def keys(self, num_images: int) -> NDArray[np.int64]:
        """Return a number for the pair of each element, in rising order."""
        return self.category * num_images + self.image


@dataclass(frozen=True)
class CocoMatches:
    """The matches of one model on one set of images under one cell.

    In the shapes, K is the number of categories, A of area ranges, T of IoU thresholds and R of recall thresholds.
    Detections are sorted by category, then by falling score. The matches contain only detections that matched a ground
    truth, sorted by category, then area range, then threshold.

    Attributes:
        images: Ids of the images.
        areas: Labels of the area ranges (`all`, `small`, ...).
        iou_thresholds: The IoU thresholds, (T,).
        recall_thresholds: The recalls at which the precision is read, (R,).
        starts: Index of the first detection of each category, then the number of all detections, (K + 1,).
        image: Image of each detection, an index into `images`, (detections,).
        inside: Whether the area of each detection is in each range, (A, detections). A detection without a match is a
            false positive in the ranges with its area and is ignored in the other ranges.
        match_starts: Index of the first match of each category, area range and threshold, then the number of all
            matches, (K * A * T + 1,).
        match_position: Detection of each match, an index among the detections of its category, (matches,).
        match_counts: Whether the matched ground truth counts, (matches,). If not, the detection is ignored.
        ground_truth_starts: Index of the first entry of each category, then the number of all entries, (K + 1,). An
            entry is an image with ground truth of the category.
        ground_truth_image: Image of each entry, an index into `images`, (entries,).
        ground_truths: Number of ground truths of each entry that count in each area range, (A, entries).
    """

    images: tuple[int, ...]
    areas: tuple[str, ...]
    iou_thresholds: NDArray[np.float64]
    recall_thresholds: NDArray[np.float64]
    starts: NDArray[np.int64]
    image: NDArray[np.int32]
    inside: NDArray[np.bool_]
    match_starts: NDArray[np.int64]
    match_position: NDArray[np.int32]
    match_counts: NDArray[np.bool_]
    ground_truth_starts: NDArray[np.int64]
    ground_truth_image: NDArray[np.int32]
    ground_truths: NDArray[np.int32]


Overlap = Callable[[slice, slice], NDArray[np.float64]]
"""Returns the IoUs (detections, objects) of some detections and some objects of one pair."""


def match_pairs(
    images: Sequence[int],
    num_categories: int,
    truths: InPairs,
    crowd: NDArray[np.bool_],
    found: InPairs,
    scores: NDArray[np.float64],
    overlap: Overlap,
    settings: MatchSettings = COCO_SETTINGS,
) -> CocoMatches:
    """Match detections with the objects of the same category and image.

    Args:
        images: Ids of the images.
        crowd: Whether each object is a crowd, (objects,).
        found: The detections. Those of a pair are sorted by falling score and are at most ``settings.most``.
        scores: Score of each detection, (detections,).
        overlap: Called once for each pair that has both, with slices of `found` and `truths`.
    """
    pairs, truth_starts = np.unique(truths.keys(len(images)), return_index=True)
    truth_ends = np.append(truth_starts, len(crowd))[1:]
    keys = found.keys(len(images))
    starts, ends = np.searchsorted(keys, pairs, "left"), np.searchsorted(keys, pairs, "right")
    both = np.flatnonzero(ends > starts)
    bounds = np.stack([starts, ends, truth_starts, truth_ends], axis=1)[both]
    sizes = np.stack([bounds[:, 1] - bounds[:, 0], bounds[:, 3] - bounds[:, 2]], axis=1).astype(np.int64)
    ious = np.empty(int(sizes.prod(axis=1).sum()))
    place = 0
    for start, end, truth_start, truth_end in bounds.tolist():
        last = place + (end - start) * (truth_end - truth_start)
        ious[place:last] = overlap(slice(start, end), slice(truth_start, truth_end)).ravel()
        place = last
    matched = _ranges(bounds[:, 0], sizes[:, 0])
    objects = _ranges(bounds[:, 2], sizes[:, 1])
    outcome = _match(
        sizes,
        ious,
        truths.area[objects],
        crowd[objects],
        settings.ranges,
        settings.iou_thresholds,
        len(matched),
    )

    # The sort is stable, like COCO's: detections with equal scores stay in the order of their images.
    order = np.lexsort((-scores, found.category))
    category_starts = np.searchsorted(found.category, np.arange(num_categories + 1)).astype(np.int64)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    by_rank = np.argsort(rank[matched])
    outcome, ranks = outcome[:, :, by_rank], rank[matched[by_rank]]
    positions, match_counts, lengths = [], [], []
    for category, (first, last) in enumerate(itertools.pairwise(np.searchsorted(ranks, category_starts).tolist())):
        area_index, threshold_index, index = np.nonzero(outcome[:, :, first:last])
        positions.append(ranks[first + index] - category_starts[category])
        match_counts.append(outcome[area_index, threshold_index, first + index] == TRUE_POSITIVE)
        slots = area_index * outcome.shape[1] + threshold_index
        lengths.append(np.bincount(slots, minlength=outcome.shape[0] * outcome.shape[1]))
    counting = _within(truths.area, settings.ranges) & ~crowd
    totals = np.concatenate([np.zeros((len(counting), 1), np.int64), np.cumsum(counting, axis=1)], axis=1)
    return CocoMatches(
        images=tuple(images),
        areas=settings.areas,
        iou_thresholds=settings.iou_thresholds,
        recall_thresholds=settings.recall_thresholds,
        starts=category_starts,
        image=found.image[order].astype(np.int32),
        inside=_within(found.area[order], settings.ranges),
        match_starts=np.concatenate([[0], np.cumsum(np.concatenate([*lengths, []]))]).astype(np.int64),
        match_position=np.concatenate([*positions, []]).astype(np.int32),
        match_counts=np.concatenate([*match_counts, []]).astype(np.bool_),
        ground_truth_starts=np.searchsorted(pairs, np.arange(num_categories + 1) * len(images)).astype(np.int64),
        ground_truth_image=(pairs % len(images)).astype(np.int32) if len(images) else np.empty(0, np.int32),
        ground_truths=(totals[:, truth_ends] - totals[:, truth_starts]).astype(np.int32),
    )


def best_of_pairs(scores: NDArray[np.float64], keys: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return the order in which detections are by pair and then by falling score, with the best of each pair alone.

    Args:
        keys: Number of the pair of each detection, (detections,). Detections with equal scores keep their order.
        most: Largest number of detections of a pair.
    """
    order = np.lexsort((-scores, keys))
    ordered = keys[order]
    first = np.searchsorted(ordered, ordered, "left")
    return order[np.arange(len(order)) - first < most]


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of all ranges one after the other; a range is given by its start and its length."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def _within(areas: NDArray[np.float64], ranges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether each area is in each range, as an array (ranges, areas); NaN is in all ranges, as for COCO."""
    inside: NDArray[np.bool_] = ~((areas < ranges[:, :1]) | (areas > ranges[:, 1:]))
    return inside


@compiled_exactly
def _match(
    sizes: NDArray[np.int64],
    ious: NDArray[np.float64],
    truth_area: NDArray[np.float64],
    crowd: NDArray[np.bool_],
    ranges: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    num_detections: int,
) -> NDArray[np.uint8]:
    """Match the detections of each image and category, best score first; return outcomes as (A, T, detections)."""
    outcome = np.zeros((len(ranges), len(thresholds), num_detections), dtype=np.uint8)
    most = 0
    for pair in range(len(sizes)):
        most = max(most, sizes[pair, 1])
    order = np.empty(most, dtype=np.int64)
    taken = np.empty(most, dtype=np.bool_)
    for area in range(len(ranges)):
        detection_start = 0
        truth_start = 0
        iou_start = 0
        for pair in range(len(sizes)):
            detections, truths = sizes[pair, 0], sizes[pair, 1]
            # Put the ground truths that count before those that COCO ignores.
            counting = 0
            for ignored in range(2):
                for truth in range(truths):
                    size = truth_area[truth_start + truth]
                    out = crowd[truth_start + truth] or size < ranges[area, 0] or size > ranges[area, 1]
                    if out == (ignored == 1):
                        order[counting] = truth
                        counting += 1
                if ignored == 0:
                    regular = counting
            for level in range(len(thresholds)):
                taken[:truths] = False
                for detection in range(detections):
                    best = min(thresholds[level], 1 - 1e-10)
                    match = -1
                    for place in range(truths):
                        truth = order[place]
                        if taken[truth] and not crowd[truth_start + truth]:
                            continue
                        # COCO ignores the ground truths from here on. Keep a match with one that counts, even if its
                        # IoU is smaller.
                        if match >= 0 and match < regular and place >= regular:
                            break
                        iou = ious[iou_start + detection * truths + truth]
                        if iou < best:
                            continue
                        best = iou
                        match = place
                    if match >= 0:
                        taken[order[match]] = True
                        outcome[area, level, detection_start + detection] = 1 if match < regular else 2
            detection_start += detections
            truth_start += truths
            iou_start += detections * truths
    return outcome
