"""The numbers of pycocotools on generated detections near the objects of an annotation file."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def detections(content: dict[str, Any], order: dict[Any, int] | None = None) -> list[dict[str, Any]]:
    """Boxes near the objects of a file, with equal scores among them."""
    order = order or {}
    rows = []
    for place, row in enumerate(content["annotations"]):
        rng = np.random.default_rng(place)
        box = (np.array(row["bbox"], float) + rng.normal(0, 4, 4)).clip(1).tolist()
        image, category = row["image_id"], row["category_id"]
        rows.append({"image_id": image, "category_id": category, "bbox": box, "score": int(rng.integers(1, 5)) / 5})
    return rows


def pycocotools_stats(content: dict[str, Any], results: list[dict[str, Any]], kind: str) -> list[float]:
    """The twelve numbers of pycocotools' summary."""
    coco = COCO()
    coco.dataset = json.loads(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(json.loads(json.dumps(results))), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()
