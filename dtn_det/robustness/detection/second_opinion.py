"""The numbers of one cell by faster-coco-eval alone, to check those of this package."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.errors import InputError
from dtn_det.robustness.detection.evaluation import CellDetections
from dtn_det.robustness.detection.truth import CocoTruth


def check_rule(truth: CocoTruth) -> None:
    """Check that a data set is evaluated by COCO's rule, the only one that faster-coco-eval is used for.

    Raises:
        InputError: The data set is evaluated by LVIS's rule.
    """
    if truth.frequencies:
        raise InputError(
            "expected COCO's rule for a second opinion of faster-coco-eval, got LVIS's: leave --evaluator out"
        )


class SecondOpinion:
    """Evaluation by faster-coco-eval: its reading, IoUs, matching, precision curves and summary.

    It takes several times as long as :class:`~dtn_det.robustness.detection.evaluation.CocoScorer`, needs more memory
    and gives no matches for intervals.

    Args:
        bad: Numbers of images to leave out.

    Raises:
        InputError: The data set is evaluated by LVIS's rule.
    """

    def __init__(self, truth: CocoTruth, bad: Collection[int] = ()) -> None:
        check_rule(truth)
        self.truth = truth
        self.ids = [image.id for number, image in enumerate(truth.images) if number not in bad]
        self._coco = require("faster_coco_eval", "det").COCO(coco_content(truth))

    def evaluator(self, found: CellDetections, kind: str) -> Any:
        """Run `evaluate()` of faster-coco-eval on one cell with COCO's settings, and return the evaluator."""
        results = coco_results(self.truth, found, kind)
        evaluator = require("faster_coco_eval", "det").COCOeval_faster(
            self._coco, self._coco.loadRes(results), kind, print_function=_say_nothing, separate_eval=True
        )
        evaluator.params.imgIds = self.ids
        evaluator.params.catIds = [number for number, _ in self.truth.categories]
        evaluator.evaluate()
        return evaluator

    def average_precision(self, found: CellDetections, kind: str) -> NDArray[np.float64]:
        """Return AP, AP50, AP75, APs, APm and APl of one cell as fractions; NaN where there is no object."""
        evaluator = self.evaluator(found, kind)
        evaluator.accumulate()
        evaluator.summarize()
        values = np.array(evaluator.stats[:6], np.float64)
        return np.where(values < 0, np.nan, values)


def coco_content(truth: CocoTruth) -> dict[str, Any]:
    """Return a ground truth as the content of a COCO annotation file.

    Objects get new ids from 1, because in COCO's evaluation a match with id 0 means that there is no match.
    """
    rows = [(image.id, row) for image in truth.images for row in json.loads(image.annotations)]
    return {
        "images": [
            {"id": one.id, "file_name": one.file, "height": one.height, "width": one.width} for one in truth.images
        ],
        "annotations": [{**row, "image_id": image, "id": number} for number, (image, row) in enumerate(rows, 1)],
        "categories": [{"id": number, "name": name} for number, name in truth.categories],
    }


def coco_results(truth: CocoTruth, found: CellDetections, kind: str) -> list[dict[str, Any]]:
    """Return the detections of one cell in COCO's result format."""
    images = [truth.images[number] for number in found.image.tolist()]
    labels = [truth.categories[label][0] for label in found.labels.tolist()]
    if kind == "segm":
        assert found.masks is not None
        return [
            {
                "image_id": image.id,
                "category_id": category,
                "score": score,
                "segmentation": {"size": [image.height, image.width], "counts": counts},
            }
            for image, category, score, counts in zip(
                images, labels, found.mask_scores.tolist(), found.masks, strict=True
            )
        ]
    return [
        {"image_id": image.id, "category_id": category, "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for image, category, score, (x1, y1, x2, y2) in zip(
            images, labels, found.scores.tolist(), found.boxes.tolist(), strict=True
        )
    ]


def _say_nothing(*args: object) -> None:
    """Do nothing; replaces the function with which faster-coco-eval prints its progress."""
