#!/usr/bin/env bash
# faster-coco-eval evaluates boxes, but no masks, of images whose ids are negative.
#
# COCO's format asks for integer ids and says nothing of their sign; pycocotools gives the perfect AP of 1 for boxes and
# masks whatever the sign. One would expect its faster relative to do the same, or to refuse such a file for both kinds.
# Seen with faster-coco-eval 1.8.0 and pycocotools 2.0.11: boxes get 1, masks raise an error in the C++ part.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  numpy==2.2.6 faster-coco-eval==1.8.0 pycocotools==2.0.11

cat >"$folder/try.py" <<'PYTHON'
import contextlib
import io
import json
import sys
from importlib import metadata

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval


def content(sign):
    images = [{"id": sign * number, "file_name": f"{number}.jpg", "height": 100, "width": 100} for number in (1, 2)]
    objects = [
        {
            "id": number,
            "image_id": sign * number,
            "category_id": 1,
            "bbox": [10, 10, 40, 40],
            "area": 1600,
            "iscrowd": 0,
            "segmentation": [[10, 10, 50, 10, 50, 50, 10, 50]],
        }
        for number in (1, 2)
    ]
    return {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "square"}]}


def average_precision(coco_class, evaluator_class, sign, kind):
    """AP of detections that are the objects themselves, or the kind of error."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = coco_class()
            truth.dataset = content(sign)
            truth.createIndex()
            keys = ("image_id", "category_id", "bbox") if kind == "bbox" else ("image_id", "category_id")
            found = []
            for one in truth.dataset["annotations"]:
                result = {key: one[key] for key in keys} | {"score": 0.9}
                if kind == "segm":
                    result["segmentation"] = truth.annToRLE(one)
                found.append(result)
            evaluator = evaluator_class(truth, truth.loadRes(found), kind)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        return round(float(evaluator.stats[0]), 3)
    except Exception as error:
        return type(error).__name__


seen = {}
for name, classes in {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}.items():
    for kind in ("bbox", "segm"):
        for sign in (1, -1):
            answer = average_precision(*classes, sign, kind)
            seen[name, kind, sign] = answer
            print(f"{name} {metadata.version(name)}, {kind}, {'negative' if sign < 0 else 'positive'} ids: {answer}")

others = {key: answer for key, answer in seen.items() if key != ("faster-coco-eval", "segm", -1)}
expected = set(others.values()) == {1.0} and isinstance(seen["faster-coco-eval", "segm", -1], str)
print("as stated" if expected else "this has changed")
sys.exit(0 if expected else 1)
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
