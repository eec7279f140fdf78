"""The matches of an evaluation that another library has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtn_det.errors import InputError
from dtn_det.metrics.coco_matches import CocoMatches, InPairs, MatchSettings, OfCategory, match_categories


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

    def of_category(place: int) -> OfCategory:
        """Return the detections of a category; equal scores keep their order, as in COCO's code."""
        own = {image: found[place, image] for image in range(len(images)) if (place, image) in found}
        best = [(image, one) for image in own for one in sorted(own[image], key=_falling_score)[:most]]
        numbers = np.array([image for image, _ in best], np.int64)

        def overlap(rows: slice, columns: slice) -> NDArray[np.float64]:
            table = np.asarray(evaluator.ious[images[numbers[rows.start]], categories[place]], dtype=np.float64)
            return table.reshape(rows.stop - rows.start, columns.stop - columns.start)

        return OfCategory(
            numbers,
            np.array([one["score"] for _, one in best], np.float64),
            np.array([one["area"] for _, one in best], np.float64),
            np.zeros(len(best), np.bool_),
            overlap,
        )

    objects = [(pair, one) for pair in sorted(truths) for one in truths[pair]]
    pairs = np.array([pair for pair, _ in objects], np.int64).reshape(-1, 2)
    return match_categories(
        images,
        InPairs(pairs[:, 0], pairs[:, 1], np.array([one["area"] for _, one in objects], np.float64)),
        np.array([bool(one.get("iscrowd", 0)) for _, one in objects], np.bool_),
        map(of_category, range(len(categories))),
        MatchSettings(
            tuple(settings.areaRngLbl),
            np.ascontiguousarray(settings.areaRng, np.float64),
            np.asarray(settings.iouThrs, np.float64),
            np.asarray(settings.recThrs, np.float64),
            most,
        ),
    )


def _falling_score(detection: Mapping[str, Any]) -> float:
    return -float(detection["score"])


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
