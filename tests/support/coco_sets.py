"""Small COCO data sets with all that matching has to deal with, and their evaluation by the two libraries."""

from __future__ import annotations

import contextlib
import io

import hotcoco
import numpy as np
from faster_coco_eval import COCO as FastCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dtn_det.metrics.coco_matches import InPairs
from dtn_det.metrics.coco_objects import CocoObjects, run_lengths

LIBRARIES = {"pycocotools": (COCO, COCOeval), "faster-coco-eval": (FastCOCO, COCOeval_faster)}


def random_set(seed, images=12, categories=3, *, tied=False, per_image=6, sizes=(8, 150)):
    """Ground truth and detections: crowds, all sizes, false positives, images and categories without either.

    Scores are unique within an image and category, as their order is not defined otherwise; `tied` makes them equal
    across images.
    """
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(per_image + 1)):
            # One category more than has ground truth.
            category = int(rng.integers(1, categories))
            width, height = np.exp(rng.uniform(*np.log(sizes), size=2))
            left, top = rng.uniform(0, 200, size=2)
            box = [float(left), float(top), float(width), float(height)]
            annotation = {"image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3]}
            annotations.append({**annotation, "id": len(annotations) + 1, "iscrowd": int(rng.random() < 0.1)})
            for _ in range(rng.integers(4)):
                shift = rng.normal(scale=0.12, size=4) * [width, height, width, height]
                moved = np.maximum(np.array(box) + shift, 1)
                detections.append(_detection(image, category, moved, rng))
        for _ in range(rng.integers(4)):
            category = int(rng.integers(1, categories + 1))
            detections.append(_detection(image, category, rng.uniform(10, 150, size=4), rng))
    if tied:
        _tie(detections)
    ground_truth = {
        "images": [{"id": image, "width": 400, "height": 400} for image in range(1, images + 1)],
        "categories": [{"id": category, "name": str(category)} for category in range(1, categories + 1)],
        "annotations": annotations,
    }
    return ground_truth, detections


def with_copies(ground_truth, detections, weights):
    """The set in which each image comes as often as its weight says, copies next to each other."""
    copies = {
        image["id"]: [100 * image["id"] + copy for copy in range(weight)]
        for image, weight in zip(ground_truth["images"], weights, strict=True)
    }
    annotations = [{**one, "image_id": new} for one in ground_truth["annotations"] for new in copies[one["image_id"]]]
    return (
        {
            "images": [{**one, "id": new} for one in ground_truth["images"] for new in copies[one["id"]]],
            "categories": ground_truth["categories"],
            "annotations": [{**one, "id": number} for number, one in enumerate(annotations, 1)],
        },
        [{**one, "image_id": new} for one in detections for new in copies[one["image_id"]]],
    )


def evaluated(ground_truth, detections, library="pycocotools", kind="bbox", images=None):
    """The evaluator after all its steps; its `stats` start with AP, AP50, AP75, APs, APm, APl."""
    coco_class, evaluator_class = LIBRARIES[library]
    with contextlib.redirect_stdout(io.StringIO()):
        if isinstance(ground_truth, dict):
            truth = coco_class()
            truth.dataset = {
                **ground_truth,
                "annotations": [dict(one) for one in ground_truth["annotations"]],
                "info": {},
            }
            truth.createIndex()
            detections = [dict(one) for one in detections]
        else:
            truth = coco_class(str(ground_truth))
        evaluator = evaluator_class(truth, truth.loadRes(detections), kind)
        if images is not None:
            evaluator.params.imgIds = images
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def stats(evaluator):
    """The six average precisions, NaN for COCO's -1."""
    found = np.array(evaluator.stats[:6], dtype=float)
    return np.where(found == -1, np.nan, found)


def _detection(image, category, box, rng):
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [float(value) for value in box],
        "score": float(rng.random()),
    }


def _tie(detections):
    seen = {}
    for one in detections:
        key = one["image_id"], one["category_id"]
        seen[key] = seen.get(key, 0) + 1
        one["score"] = 1 / seen[key]


def confused_set(seed, *, crowds=False, images=15):
    """A random set with detections of the wrong class, badly placed ones, and no two equal scores."""
    truth, found = random_set(seed, images, 4)
    rng = np.random.default_rng(seed)
    scores = rng.permutation(len(found)) / len(found)
    for one, score in zip(found, scores.tolist(), strict=True):
        one["bbox"] = (np.array(one["bbox"]) * rng.normal(1, 0.12, 4)).clip(1).tolist()
        one["score"] = score
        if rng.random() < 0.25:
            one["category_id"] = int(rng.integers(1, 4))
    if not crowds:
        for one in truth["annotations"]:
            one["iscrowd"] = 0
    return truth, found


def as_arrays(truth, found, kind="bbox"):
    """The objects as `CocoObjects`; category, image, shape and score of the detections."""
    images = sorted(one["id"] for one in truth["images"])
    categories = sorted(one["id"] for one in truth["categories"])
    sizes = {one["id"]: (one["height"], one["width"]) for one in truth["images"]}

    def where(rows):
        category = np.array([categories.index(one["category_id"]) for one in rows], np.int64)
        return category, np.array([images.index(one["image_id"]) for one in rows], np.int64)

    rows = sorted(truth["annotations"], key=lambda one: (one["category_id"], images.index(one["image_id"])))
    runs = [run_lengths(one["segmentation"], *sizes[one["image_id"]]) for one in rows] if kind == "segm" else None
    objects = CocoObjects(
        tuple(images),
        len(categories),
        InPairs(*where(rows), np.array([one["area"] for one in rows], np.float64)),
        np.array([one["bbox"] for one in rows], np.float64).reshape(-1, 4),
        np.array([bool(one.get("iscrowd", 0)) for one in rows], np.bool_),
        runs,
    )
    shapes = np.array([one["bbox"] for one in found], np.float64).reshape(-1, 4) if kind == "bbox" else None
    if shapes is None:
        shapes = [one["segmentation"] for one in found]
    return objects, (*where(found), shapes, np.array([one["score"] for one in found], np.float64))


def hotcoco_errors(truth, found, kind="bbox"):
    """TIDE by hotcoco: its counts, and its costs in the order of `REPAIRS`, as fractions."""
    objects = hotcoco.COCO(truth)
    if kind == "bbox":
        rows = [[one["image_id"], *one["bbox"], one["score"], one["category_id"]] for one in found]
        detections = objects.load_res(np.array(rows, np.float64).reshape(-1, 7))
    else:
        detections = objects.load_res(found)
    evaluator = hotcoco.COCOeval(objects, detections, kind)
    evaluator.evaluate()
    errors = evaluator.tide_errors()
    names = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN")
    return errors["counts"], [errors["delta_ap"][name] for name in names]
