"""COCO's evaluation tried on the ground truth itself, before anything expensive is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dtn_det._optional import require
from dtn_det.errors import AnnotationError
from dtn_det.robustness.detection.evaluation import KINDS, CellDetections, CocoScorer
from dtn_det.robustness.detection.truth import CocoTruth

_TRIED = 200
"""Images of the trial: reading has checked every annotation, and evaluating takes a while."""


_FORMS = ('"counts": [', '"counts": "', '"iscrowd": 1', '"segmentation"', "bbox")


def try_evaluation(path: Path, truth: CocoTruth, *, masks: bool) -> None:
    """Evaluate the objects of some images as if a detector had found them.

    Args:
        path: The annotation file, for the message.
        truth: Images and objects. Of many images some are taken, at equal distances, and one for each form that
            objects have.
        masks: Evaluate masks besides boxes.

    Raises:
        AnnotationError: The evaluation fails; names the first image or object that it fails on.
    """
    part = truth.select(_varied(truth))
    for kind in KINDS if masks else KINDS[:1]:
        if _failure(part, kind) is None:
            continue
        for number in range(len(part.images)):
            one = part.select([number])
            error = _failure(one, kind)
            if error is not None:
                place = f"image {one.images[0].key}"
                objects = json.loads(one.images[0].annotations)
                for index in range(len(objects)):
                    if _failure(_single(one, objects[index]), kind) is not None:
                        place = f"object {index + 1} of {place}"
                        break
                raise AnnotationError(path, f"objects that COCO's evaluation of {kind} takes", error, place)


def _varied(truth: CocoTruth) -> list[int]:
    """Numbers of images at equal distances, and of the first with each form of objects."""
    count = len(truth.images)
    chosen = set(range(0, count, max(1, count // _TRIED)))
    forms: set[str] = set()
    for number, image in enumerate(truth.images):
        # As text, for reading all objects again would take long.
        form = " ".join(str(text in image.annotations) for text in _FORMS)
        if form not in forms:
            forms.add(form)
            chosen.add(number)
    return sorted(chosen)


def _single(truth: CocoTruth, annotation: dict[str, Any]) -> CocoTruth:
    return CocoTruth((replace(truth.images[0], annotations=json.dumps([annotation])),), truth.categories)


def _failure(truth: CocoTruth, kind: str) -> str | None:
    """What goes wrong when a truth is evaluated against itself."""
    try:
        scorer = CocoScorer(truth)
        scorer.matches(_found(truth, scorer.coco, kind), kind)
    except Exception as error:  # the libraries raise what their C++ code raises
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return None


def _found(truth: CocoTruth, coco: Any, kind: str) -> CellDetections:
    """The objects of a truth as detections."""
    places = {image.id: number for number, image in enumerate(truth.images)}
    labels = {number: label for label, (number, _) in enumerate(truth.categories)}
    rows = [row for image in truth.images for row in coco.imgToAnns.get(image.id, ())]
    boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.ones(len(rows), np.float32)
    return CellDetections(
        0,
        np.array([places[row["image_id"]] for row in rows], np.int32),
        boxes,
        scores,
        np.array([labels[row["category_id"]] for row in rows], np.int32),
        _masks(rows, coco) if kind == "segm" else None,
        scores,
    )


def _masks(rows: Sequence[dict[str, Any]], coco: Any) -> list[bytes]:
    to_runs = require("faster_coco_eval.core.mask", "det").segmToRle
    found = []
    for row in rows:
        image = coco.imgs[row["image_id"]]
        counts = to_runs(row["segmentation"], image["width"], image["height"])["counts"]
        found.append(counts if isinstance(counts, bytes) else counts.encode())
    return found
