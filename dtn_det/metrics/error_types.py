"""The error type of each detection, and the matches that remain when all errors of a type are repaired.

The types and repairs are those of TIDE (Bolya et al., ECCV 2020, arXiv:2008.08115, Section 2.2, and tidecv 1.0.1). The
file docs/error_types.md lists the differences.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.errors import InputError
from dtn_det.metrics.coco_matches import COCO_SETTINGS, CocoMatches
from dtn_det.metrics.coco_objects import CocoObjects, Runs, check_scores
from dtn_det.system.compiled import compiled_exactly

FOREGROUND = 0.5
"""Smallest IoU with which a detection is at the place of an object."""

BACKGROUND = 0.1
"""Largest IoU with which a detection is still on the background."""

ERROR_TYPES = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
"""The error types: wrong class, bad localization, both of these, duplicate, background, and an object not found."""

REPAIRS = (*ERROR_TYPES, "FalsePos", "FalseNeg")
"""What can be repaired: all errors of one type, all false positives, or all false negatives."""

OUTCOMES = ("correct", *ERROR_TYPES[:5], "ignored")
"""The outcomes of a detection. An ignored one is on a crowd, or is beyond the best 100 of its category and image."""

_AREAS = ("all", "Both", "Dupe", "Bkg", "FalsePos", "Cls", "Loc", "Miss", "FalseNeg")
"""Labels of the area ranges of the matches. Ranges with the same recalls are neighbours, to compute these once."""
_CORRECT, _CLS, _LOC, _BOTH, _DUPE, _BKG, _IGNORED = range(len(OUTCOMES))
_MISSED, _FOUND, _REPAIRABLE, _UNCOUNTED = range(4)


@dataclass(frozen=True)
class DetectionErrors:
    """The errors of a detector on one set of images under one cell.

    Attributes:
        outcomes: Outcome of each detection in the order given, an index into :data:`OUTCOMES`, (detections,).
        missed: Objects that count, have no correct detection, and that no repair of a class or a place would give one.
        repairs: Matches at IoU 0.5. Their area ranges are `all`, without a repair, and each of :data:`REPAIRS`. A
            detection that a repair removes is outside its range.
    """

    outcomes: NDArray[np.uint8]
    missed: int
    repairs: CocoMatches

    @property
    def counts(self) -> dict[str, int]:
        """Number of errors of each type, in the order of :data:`ERROR_TYPES`."""
        found = np.bincount(self.outcomes, minlength=len(OUTCOMES)).tolist()
        return {**dict(zip(OUTCOMES[1:6], found[1:6], strict=True)), "Miss": self.missed}


def detection_errors(
    objects: CocoObjects,
    category: NDArray[np.int64],
    image: NDArray[np.int64],
    shapes: NDArray[np.float64] | Sequence[Runs],
    scores: NDArray[np.float64],
) -> DetectionErrors:
    """Find the errors of detected boxes or masks.

    Args:
        category: Index of the category of each detection, (detections,).
        image: Index in ``objects.images`` of the image of each detection, (detections,).
        shapes: Boxes as x, y, width, height in pixels, (detections, 4), or the mask of each detection.

    Raises:
        InputError: A score is NaN, or masks are given and an object has none.
    """
    check_scores(scores)
    # Like COCO's: detections with equal scores are in the order of their images.
    by_score = _stable_order(image)
    by_score = by_score[np.argsort(-scores[by_score], kind="stable")]
    order = by_score[_stable_order(image[by_score])]
    order = order[_best_of_pairs(category[order], image[order], COCO_SETTINGS.most)]
    by_image = np.argsort(objects.pairs.image, kind="stable")
    bounds = _Bounds.of(image[order], objects.pairs.image[by_image], len(objects.images))
    primitives, crowd = require("hotcoco", "det").primitives, objects.crowd[by_image]
    found: Any
    truths: Any
    if isinstance(shapes, np.ndarray):
        iou, found, truths = primitives.bbox_iou, np.ascontiguousarray(shapes[order]), objects.boxes[by_image]
    elif objects.masks is None:
        raise InputError("expected a mask of each object to find errors of masks, got objects without: use boxes alone")
    else:
        iou, found = primitives.mask_iou, [shapes[row] for row in order.tolist()]
        truths = [objects.masks[row] for row in by_image.tolist()]
    ious = [iou(found[rows], truths[places], crowd[places]).ravel() for rows, places in bounds.slices()]
    smallest, largest = COCO_SETTINGS.ranges[0]
    area, truth_category = objects.pairs.area[by_image], objects.pairs.category[by_image]
    kinds, targets, states = _classify(
        *bounds,
        category[order].astype(np.int64),
        truth_category,
        np.concatenate([np.empty(0), *ious]),
        crowd | (area < smallest) | (area > largest),
        crowd,
    )
    outcomes = np.full(len(scores), _IGNORED, np.uint8)
    outcomes[order] = kinds
    # A repair of the class moves a detection to another category, where it is a detection of its own.
    kept = np.flatnonzero(kinds != _IGNORED)
    moved = np.flatnonzero((kinds == _CLS) & (targets >= 0))
    both = np.concatenate([kept, moved])
    is_moved = np.arange(len(both)) >= len(kept)
    rows = order[both]
    categories = np.where(is_moved, truth_category[targets[both]], category[rows]) if len(truths) else category[rows]
    rank = np.empty(len(scores), np.int64)
    rank[by_score] = np.arange(len(scores))
    sort = np.argsort(rank[rows])
    sort = sort[_stable_order(categories[sort])]
    repairs = _repairs(kinds[both[sort]], targets[both[sort]] >= 0, is_moved[sort])
    missed = np.empty_like(states)
    missed[by_image] = states
    matches = _matches(objects, categories[sort], image[rows[sort]], repairs, missed)
    return DetectionErrors(outcomes, int((states == _MISSED).sum()), matches)


def _stable_order(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the order that sorts small whole numbers; NumPy sorts those below 65,536 several times faster."""
    small = len(values) and values.max() < 2**16
    return np.argsort(values.astype(np.uint16) if small else values, kind="stable")


def _best_of_pairs(category: NDArray[np.integer], image: NDArray[np.integer], most: int) -> NDArray[np.int64]:
    """Return the indices of the first few detections of each category in each image; they are sorted by image."""
    by_category = _stable_order(category)
    new = np.diff(category[by_category], prepend=-1).astype(bool) | np.diff(image[by_category], prepend=-1).astype(bool)
    start = np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))
    return np.sort(by_category[np.arange(len(new)) - start < most])


def image_outcomes(
    ious: NDArray[np.float64],
    category: NDArray[np.int64],
    truth_category: NDArray[np.int64],
    crowd: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Find the outcomes of the detections of one image, indices into :data:`OUTCOMES`, (detections,).

    Args:
        ious: COCO's IoU of each detection, by falling score, with each object, (detections, objects).
        category: Category of each detection, (detections,).
        truth_category: Category of each object, (objects,).
        crowd: Whether each object is a crowd, (objects,).
    """
    found, truths = (np.array([0, size]) for size in ious.shape)
    return _classify(found, truths, category, truth_category, ious.ravel(), crowd, crowd)[0]


class _Bounds(NamedTuple):
    """Index of the first detection and of the first object of each image, then their numbers, (images + 1,)."""

    found: NDArray[np.int64]
    truths: NDArray[np.int64]

    @classmethod
    def of(cls, found: NDArray[np.int64], truths: NDArray[np.int64], num_images: int) -> _Bounds:
        edges = np.arange(num_images + 1)
        return cls(np.searchsorted(found, edges).astype(np.int64), np.searchsorted(truths, edges).astype(np.int64))

    def slices(self) -> list[tuple[slice, slice]]:
        """Return the detections and the objects of each image that has both."""
        rows, places = itertools.pairwise(self.found.tolist()), itertools.pairwise(self.truths.tolist())
        both = zip(rows, places, strict=True)
        return [(slice(*one), slice(*other)) for one, other in both if one[0] < one[1] and other[0] < other[1]]


class _Repaired(NamedTuple):
    """Which detections are correct after each repair, and which are still there, (1 + repairs, detections)."""

    correct: NDArray[np.bool_]
    present: NDArray[np.bool_]


def _repairs(kind: NDArray[np.uint8], repaired: NDArray[np.bool_], moved: NDArray[np.bool_]) -> _Repaired:
    """Repair all errors of each type; a moved detection has the right class and is there after the repair `Cls` alone.

    Args:
        kind: Outcome of each detection; that of a moved one is `Cls`.
        repaired: Whether the detection becomes the correct one of an object if its error is repaired.
    """
    shape = (len(_AREAS), len(kind))
    correct = np.broadcast_to((kind == _CORRECT) & ~moved, shape).copy()
    present = np.broadcast_to(~moved, shape).copy()
    for error in (_CLS, _LOC, _BOTH, _DUPE, _BKG):
        present[_AREAS.index(OUTCOMES[error])] &= kind != error
    wrong_class, misplaced = _AREAS.index("Cls"), _AREAS.index("Loc")
    correct[wrong_class] |= moved
    present[wrong_class] |= moved
    correct[misplaced] |= (kind == _LOC) & repaired
    present[misplaced] |= correct[misplaced]
    present[_AREAS.index("FalsePos")] &= kind == _CORRECT
    return _Repaired(correct, present)


def _matches(
    objects: CocoObjects,
    category: NDArray[np.int64],
    image: NDArray[np.int64],
    repairs: _Repaired,
    states: NDArray[np.uint8],
) -> CocoMatches:
    num_images, num_categories = len(objects.images), objects.num_categories
    starts = np.searchsorted(category, np.arange(num_categories + 1)).astype(np.int64)
    row, detection = np.nonzero(repairs.correct)
    slots = category[detection] * len(repairs.correct) + row
    by_slot = np.argsort(slots, kind="stable")
    counts = np.bincount(slots, minlength=num_categories * len(repairs.correct))
    pairs, first = np.unique(objects.pairs.keys(num_images), return_index=True)
    counting = np.broadcast_to(states != _UNCOUNTED, (len(repairs.correct), len(states))).copy()
    counting[_AREAS.index("Miss")] &= states != _MISSED
    counting[_AREAS.index("FalseNeg")] &= states == _FOUND
    truths = (
        np.add.reduceat(counting, first, axis=1, dtype=np.int32) if len(first) else np.empty((len(_AREAS), 0), np.int32)
    )
    detection = detection[by_slot]
    return CocoMatches(
        images=objects.images,
        areas=_AREAS,
        iou_thresholds=np.array([FOREGROUND]),
        recall_thresholds=COCO_SETTINGS.recall_thresholds,
        starts=starts,
        image=image.astype(np.int32),
        inside=repairs.present,
        match_starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        match_position=(detection - starts[category[detection]]).astype(np.int32),
        match_counts=np.ones(len(detection), np.bool_),
        ground_truth_starts=np.searchsorted(pairs, np.arange(num_categories + 1) * num_images).astype(np.int64),
        ground_truth_image=(pairs % num_images).astype(np.int32) if num_images else np.empty(0, np.int32),
        ground_truths=truths,
    )


@compiled_exactly
def _classify(
    found_starts: NDArray[np.int64],
    truth_starts: NDArray[np.int64],
    category: NDArray[np.int64],
    truth_category: NDArray[np.int64],
    ious: NDArray[np.float64],
    uncounted: NDArray[np.bool_],
    crowd: NDArray[np.bool_],
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
    """Return the outcome and the repaired object (or -1) of each detection, and the state of each object."""
    kinds = np.full(len(category), _BKG, dtype=np.uint8)
    targets = np.full(len(category), -1, dtype=np.int64)
    states = np.where(uncounted, _UNCOUNTED, _MISSED).astype(np.uint8)
    taken = np.zeros(len(truth_category), dtype=np.bool_)
    iou_start = 0
    for image in range(len(found_starts) - 1):
        first, last = truth_starts[image], truth_starts[image + 1]
        size = last - first
        if size == 0:
            continue
        image_start = iou_start
        for detection in range(found_starts[image], found_starts[image + 1]):
            # COCO's matching: objects that count come first, and of equal IoUs the last is taken.
            match = -1
            for ignored in range(2):
                best = FOREGROUND
                for truth in range(first, last):
                    if uncounted[truth] != (ignored == 1) or truth_category[truth] != category[detection]:
                        continue
                    if taken[truth] and not crowd[truth]:
                        continue
                    if ious[iou_start + truth - first] >= best:
                        best = ious[iou_start + truth - first]
                        match = truth
                if match >= 0:
                    break
            if match >= 0:
                taken[match] = True
                kinds[detection] = _IGNORED if uncounted[match] else _CORRECT
                if not uncounted[match]:
                    states[match] = _FOUND
            iou_start += size
        iou_start = image_start
        for detection in range(found_starts[image], found_starts[image + 1]):
            if kinds[detection] == _BKG:
                own, other = 0.0, 0.0
                own_truth, other_truth = -1, -1
                for truth in range(first, last):
                    iou = ious[iou_start + truth - first]
                    if uncounted[truth]:
                        continue
                    if truth_category[truth] == category[detection]:
                        if iou > own:
                            own, own_truth = iou, truth
                    elif iou > other:
                        other, other_truth = iou, truth
                target = -1
                if BACKGROUND <= own <= FOREGROUND:
                    kinds[detection], target = _LOC, own_truth
                elif other >= FOREGROUND:
                    kinds[detection], target = _CLS, other_truth
                elif own > FOREGROUND:
                    kinds[detection] = _DUPE
                elif other > BACKGROUND:
                    kinds[detection] = _BOTH
                # The best-scored error at an object that no detection found is the one to be repaired.
                if target >= 0 and states[target] == _MISSED:
                    states[target] = _REPAIRABLE
                    targets[detection] = target
            iou_start += size
    return kinds, targets, states
