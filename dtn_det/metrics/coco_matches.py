"""Matches of detections and ground truth, from which the AP of any resample of the images can be computed.

The matching follows COCO's evaluation (cocoapi, PythonAPI/pycocotools/cocoeval.py, `evaluateImg`) and is given the
IoUs. So the AP of all images equals the AP of pycocotools, hotcoco and faster-coco-eval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
            false positive in the ranges with its area and is ignored in the other ranges. By LVIS's rule, detections of
            categories that are not annotated exhaustively are in no range.
        match_starts: Index of the first match of each category, area range and threshold, then the number of all
            matches, (K * A * T + 1,).
        match_position: Detection of each match, an index among the detections of its category, (matches,).
        match_counts: Whether the matched ground truth counts, (matches,). If not, the detection is ignored.
        ground_truth_starts: Index of the first entry of each category, then the number of all entries, (K + 1,). An
            entry is an image with ground truth of the category.
        ground_truth_image: Image of each entry, an index into `images`, (entries,).
        ground_truths: Number of ground truths of each entry that count in each area range, (A, entries).
        frequencies: LVIS's frequency of each category (`r`, `c`, `f`; empty text where unknown); empty for COCO's rule.
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
    frequencies: tuple[str, ...] = ()


Overlap = Callable[[slice, slice], NDArray[np.float64]]
"""Returns the IoUs (detections, objects) of some detections and some objects of one image and category."""


class OfCategory(NamedTuple):
    """The detections of one category, sorted by image and then by falling score, with no more than count.

    Attributes:
        image: Index of the image of each detection, (detections,).
        scores: Score of each detection, (detections,).
        area: Area of each detection in square pixels, (detections,).
        ignored: Whether each detection is ignored if it has no match, whatever its area, (detections,).
        overlap: Called once for each image that has both, with slices of these detections and of all objects.
    """

    image: NDArray[np.integer]
    scores: NDArray[np.floating]
    area: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    overlap: Overlap


def match_categories(
    images: Sequence[int],
    truths: InPairs,
    crowd: NDArray[np.bool_],
    found: Iterable[OfCategory],
    settings: MatchSettings = COCO_SETTINGS,
) -> CocoMatches:
    """Match detections with the objects of the same category and image.

    Args:
        images: Ids of the images.
        crowd: Whether each object is a crowd, (objects,).
        found: The detections of each category, in order; if this is a generator, the float arrays of one category at a
            time are in memory.
    """
    pairs, truth_starts = np.unique(truths.keys(len(images)), return_index=True)
    truth_bounds = np.stack([truth_starts, np.append(truth_starts, len(crowd))[1:]], axis=1)
    truth_image = pairs % max(len(images), 1)
    parts = []
    entry_starts = [0]
    for category, own in enumerate(found):
        first = entry_starts[-1]
        last = int(np.searchsorted(pairs, (category + 1) * len(images)))
        entry_starts.append(last)
        parts.append(
            _match_category(truths.area, crowd, truth_image[first:last], truth_bounds[first:last], own, settings)
        )
    counting = _within(truths.area, settings.ranges) & ~crowd
    totals = np.concatenate([np.zeros((len(counting), 1), np.int64), np.cumsum(counting, axis=1)], axis=1)
    return CocoMatches(
        images=tuple(images),
        areas=settings.areas,
        iou_thresholds=settings.iou_thresholds,
        recall_thresholds=settings.recall_thresholds,
        starts=np.cumsum([0, *(len(part.image) for part in parts)]),
        image=np.concatenate([np.empty(0, np.int32), *(part.image for part in parts)]),
        inside=np.concatenate([np.empty((len(settings.areas), 0), np.bool_), *(part.inside for part in parts)], axis=1),
        match_starts=np.cumsum(np.concatenate([[0], *(part.lengths for part in parts)]), dtype=np.int64),
        match_position=np.concatenate([np.empty(0, np.int32), *(part.position for part in parts)]),
        match_counts=np.concatenate([np.empty(0, np.bool_), *(part.counts for part in parts)]),
        ground_truth_starts=np.array(entry_starts, np.int64),
        ground_truth_image=truth_image.astype(np.int32),
        ground_truths=(totals[:, truth_bounds[:, 1]] - totals[:, truth_bounds[:, 0]]).astype(np.int32),
    )


class _Part(NamedTuple):
    """The matches of one category; the fields are those of :class:`CocoMatches`, with lengths instead of starts."""

    image: NDArray[np.int32]
    inside: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    position: NDArray[np.int32]
    counts: NDArray[np.bool_]


def _match_category(
    truth_area: NDArray[np.float64],
    crowd: NDArray[np.bool_],
    truth_image: NDArray[np.int64],
    truth_bounds: NDArray[np.int64],
    found: OfCategory,
    settings: MatchSettings,
) -> _Part:
    starts, ends = (np.searchsorted(found.image, truth_image, side) for side in ("left", "right"))
    both = np.flatnonzero(ends > starts)
    bounds = np.column_stack([starts, ends, truth_bounds])[both]
    sizes = np.ascontiguousarray(bounds[:, 1::2] - bounds[:, ::2])
    ious = np.empty(int(sizes.prod(axis=1).sum()))
    place = 0
    for start, end, truth_start, truth_end in bounds.tolist():
        last = place + (end - start) * (truth_end - truth_start)
        ious[place:last] = found.overlap(slice(start, end), slice(truth_start, truth_end)).ravel()
        place = last
    matched, objects = _ranges(bounds[:, 0], sizes[:, 0]), _ranges(bounds[:, 2], sizes[:, 1])
    thresholds = settings.iou_thresholds
    outcome = _match(sizes, ious, truth_area[objects], crowd[objects], settings.ranges, thresholds, len(matched))
    # The sort is stable, like COCO's: detections with equal scores stay in the order of their images.
    order = np.argsort(-found.scores, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    by_rank = np.argsort(rank[matched])
    outcome = outcome[:, :, by_rank]
    area, level, index = np.nonzero(outcome)
    return _Part(
        image=found.image[order].astype(np.int32),
        inside=_within(found.area[order], settings.ranges) & ~found.ignored[order],
        lengths=np.bincount(area * len(thresholds) + level, minlength=len(settings.areas) * len(thresholds)),
        position=rank[matched[by_rank]][index].astype(np.int32),
        counts=outcome[area, level, index] == TRUE_POSITIVE,
    )


def best_of_groups(scores: NDArray[np.floating], groups: NDArray[np.integer], most: int) -> NDArray[np.int64]:
    """Return the order in which detections are by group and then by falling score, with the best of each group alone.

    Args:
        groups: Number of the group of each detection, such as its image, (detections,). Detections with equal scores
            keep their order.
        most: Largest number of detections of a group.
    """
    order = np.lexsort((-scores, groups))
    ordered = groups[order]
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
                        if not iou >= best:  # NaN is no overlap
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
