"""Matches of detections and ground truth, from which the AP of any resample of the images can be computed.

The matching follows COCO's evaluation (cocoapi, PythonAPI/pycocotools/cocoeval.py, `evaluateImg`) and uses the IoUs of
pycocotools or faster-coco-eval. So the AP of all images equals the AP that these libraries compute.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtn_det.errors import InputError
from dtn_det.system.compiled import compiled_exactly

UNMATCHED, TRUE_POSITIVE, IGNORED = 0, 1, 2
"""The outcome of a detection. It matches no ground truth, a ground truth that counts, or a ground truth that COCO
ignores (a crowd, or an object outside the area range)."""


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


def matches_from_evaluator(evaluator: Any) -> CocoMatches:
    """Extract the matches of an evaluation of boxes or masks.

    Args:
        evaluator: `COCOeval` of pycocotools or of faster-coco-eval, after `evaluate()`.

    Raises:
        InputError: The evaluation was not run, is of keypoints, merges the categories, or is in LVIS style.
    """
    _check(evaluator)
    settings = evaluator.params
    images, categories = [int(one) for one in settings.imgIds], [int(one) for one in settings.catIds]
    truths = _by_pair(evaluator.cocoGt, images, categories)
    found = _by_pair(evaluator.cocoDt, images, categories)
    most = int(settings.maxDets[-1])

    # The pairs of category and image, sorted by category first.
    pairs = sorted({*truths, *found})
    scores, areas, truth_areas, crowds, ious = [], [], [], [], []
    sizes = np.zeros((len(pairs), 2), dtype=np.int64)
    for index, pair in enumerate(pairs):
        category, image = pair
        annotations = truths.get(pair, [])
        # The sort is stable, as in COCO's code: detections with equal scores keep their order.
        detections = sorted(found.get(pair, ()), key=_falling_score)[:most]
        sizes[index] = len(detections), len(annotations)
        scores += [one["score"] for one in detections]
        areas += [one["area"] for one in detections]
        truth_areas += [one["area"] for one in annotations]
        crowds += [bool(one.get("iscrowd", 0)) for one in annotations]
        if detections and annotations:
            table = np.asarray(evaluator.ious[images[image], categories[category]], dtype=np.float64)
            ious.append(table.reshape(len(detections), len(annotations)).ravel())
    ranges = np.asarray(settings.areaRng, dtype=np.float64)
    thresholds = np.asarray(settings.iouThrs, dtype=np.float64)
    truth_area, crowd = np.array(truth_areas, dtype=np.float64), np.array(crowds, dtype=np.bool_)
    outcome = _match(
        sizes,
        np.concatenate(ious) if ious else np.empty(0),
        truth_area,
        crowd,
        np.ascontiguousarray(ranges),
        thresholds,
        len(scores),
    )
    return _assembled(
        settings,
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
        sizes,
        np.array(scores, dtype=np.float64),
        inside=_within(np.array(areas, dtype=np.float64), ranges),
        counts=_within(truth_area, ranges) & ~crowd,
        outcome=outcome,
    )


def _falling_score(detection: Mapping[str, Any]) -> float:
    return -float(detection["score"])


def join_categories(parts: Sequence[CocoMatches], images: Sequence[int]) -> CocoMatches:
    """Join the matches of different categories into one object, with the categories in the order of the parts.

    Args:
        parts: At least one part, all with the same area ranges and thresholds.
        images: Ids of all images. The images of each part must appear here in the same order.
    """
    place = {image: number for number, image in enumerate(images)}
    moved = [np.array([place[image] for image in part.images], np.int32) for part in parts]
    return replace(
        parts[0],
        images=tuple(images),
        starts=_joined_starts([part.starts for part in parts]),
        image=np.concatenate([to[part.image] for part, to in zip(parts, moved, strict=True)]),
        inside=np.ascontiguousarray(np.concatenate([part.inside for part in parts], axis=1)),
        match_starts=_joined_starts([part.match_starts for part in parts]),
        match_position=np.concatenate([part.match_position for part in parts]),
        match_counts=np.concatenate([part.match_counts for part in parts]),
        ground_truth_starts=_joined_starts([part.ground_truth_starts for part in parts]),
        ground_truth_image=np.concatenate([to[part.ground_truth_image] for part, to in zip(parts, moved, strict=True)]),
        ground_truths=np.concatenate([part.ground_truths for part in parts], axis=1),
    )


def _joined_starts(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Join the start indices of several parts, each offset by the number of elements in the parts before it."""
    ends = np.cumsum([0, *(part[-1] for part in parts)])
    return np.concatenate([[0], *(part[1:] + end for part, end in zip(parts, ends, strict=False))]).astype(np.int64)


def _check(evaluator: Any) -> None:
    if not getattr(evaluator, "ious", None):
        raise InputError("expected an evaluator whose evaluate() was called, got one without IoUs: call it first")
    kind, lvis = evaluator.params.iouType, getattr(evaluator, "lvis_style", False)
    if kind not in ("bbox", "segm") or lvis or not evaluator.params.useCats:
        raise InputError(
            f"expected a COCO evaluation of boxes or masks by category, got iouType={kind!r}, "
            f"lvis_style={bool(lvis)}, useCats={int(evaluator.params.useCats)}: set these"
        )


def _by_pair(
    coco: Any, images: Sequence[int], categories: Sequence[int]
) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Group annotations by (category index, image index), each group in the order of COCO's code."""
    index = {category: place for place, category in enumerate(categories)}
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for place, image in enumerate(images):
        for annotation in coco.imgToAnns.get(image, ()):
            if annotation["category_id"] in index:
                found.setdefault((index[annotation["category_id"]], place), []).append(annotation)
    return found


def _within(areas: NDArray[np.float64], ranges: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether each area is in each range, including both ends, as an array (ranges, areas)."""
    inside: NDArray[np.bool_] = (areas >= ranges[:, :1]) & (areas <= ranges[:, 1:])
    return inside


def _assembled(
    settings: Any,
    pairs: NDArray[np.int64],
    sizes: NDArray[np.int64],
    scores: NDArray[np.float64],
    *,
    inside: NDArray[np.bool_],
    counts: NDArray[np.bool_],
    outcome: NDArray[np.uint8],
) -> CocoMatches:
    num_categories = len(settings.catIds)
    category = np.repeat(pairs[:, 0], sizes[:, 0])
    image = np.repeat(pairs[:, 1], sizes[:, 0])
    # The sort is stable, like COCO's: detections with equal scores stay in the order of their images.
    order = np.lexsort((-scores, category))
    starts = np.searchsorted(category[order], np.arange(num_categories + 1))
    outcome = outcome[:, :, order]

    parts, match_counts, lengths = [], [], []
    for first, last in itertools.pairwise(starts):
        area_index, threshold_index, position = np.nonzero(outcome[:, :, first:last])
        parts.append(position)
        match_counts.append(outcome[area_index, threshold_index, first + position] == TRUE_POSITIVE)
        slots = area_index * outcome.shape[1] + threshold_index
        lengths.append(np.bincount(slots, minlength=outcome.shape[0] * outcome.shape[1]))
    with_truth = sizes[:, 1] > 0
    truth_ends = np.cumsum(sizes[:, 1])
    totals = np.concatenate([np.zeros((len(counts), 1), dtype=np.int64), np.cumsum(counts, axis=1)], axis=1)
    per_pair = totals[:, truth_ends] - totals[:, truth_ends - sizes[:, 1]]
    return CocoMatches(
        images=tuple(map(int, settings.imgIds)),
        areas=tuple(settings.areaRngLbl),
        iou_thresholds=np.asarray(settings.iouThrs, dtype=np.float64),
        recall_thresholds=np.asarray(settings.recThrs, dtype=np.float64),
        starts=starts.astype(np.int64),
        image=image[order].astype(np.int32),
        inside=np.ascontiguousarray(inside[:, order]),
        match_starts=np.concatenate([[0], np.cumsum(np.concatenate([*lengths, []]))]).astype(np.int64),
        match_position=np.concatenate([*parts, []]).astype(np.int32),
        match_counts=np.concatenate([*match_counts, []]).astype(np.bool_),
        ground_truth_starts=np.searchsorted(pairs[with_truth, 0], np.arange(num_categories + 1)).astype(np.int64),
        ground_truth_image=pairs[with_truth, 1].astype(np.int32),
        ground_truths=per_pair[:, with_truth].astype(np.int32),
    )


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
