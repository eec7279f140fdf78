#!/usr/bin/env bash
# hotcoco 1.3.0: the same masks give another AP of small objects as an array than as a list.
#
# What one would expect: `load_res` takes detections as a list of dictionaries, as pycocotools does, or as an array with
# the masks beside it, and both give one result.
# What happens: as a list, the area of a detection is that of its mask. As an array, it is that of its box. Unmatched
# detections are counted by their area, so the APs of small, medium and large objects differ. Here, four strips are
# found, and four more are false and have better scores. All masks are small (896 pixels), and all boxes are medium
# (60 x 60). As an array, the false ones do not count among the small objects: APs is 1.0 instead of 0.5.
# `update_anns` with the areas of the masks mends it.
#
# Exits with 0 while that is so, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check hotcoco==1.3.0 pycocotools==2.0.11 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import sys
from importlib.metadata import version

import hotcoco
import numpy as np
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HEIGHT, WIDTH = 200, 400


def strip(x, y):
    """A thin strip along the diagonal of a box of 60 x 60, as a polygon and as run lengths."""
    polygon = [x, y, x + 8, y, x + 60, y + 52, x + 60, y + 60, x + 52, y + 60, x, y + 8]
    return polygon, masks.merge(masks.frPyObjects([polygon], HEIGHT, WIDTH))


objects = [strip(10 + 80 * number, 20) for number in range(4)]
false = [strip(10 + 80 * number, 110) for number in range(4)]
annotations = [
    {
        "id": number,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": [polygon],
        "area": float(masks.area(runs)),
        "bbox": masks.toBbox(runs).tolist(),
    }
    for number, (polygon, runs) in enumerate(objects, 1)
]
data = {
    "images": [{"id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "a.jpg"}],
    "categories": [{"id": 1, "name": "strip"}],
    "annotations": annotations,
}
detections = [(runs, 0.6) for _, runs in objects] + [(runs, 0.9) for _, runs in false]


def evaluated(evaluator):
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [round(float(value), 4) for value in list(evaluator.stats)[:4]]


def as_list(text):
    return [
        {
            "image_id": 1,
            "category_id": 1,
            "score": score,
            "segmentation": {"size": runs["size"], "counts": runs["counts"].decode() if text else runs["counts"]},
        }
        for runs, score in detections
    ]


with contextlib.redirect_stdout(io.StringIO()):
    reference = COCO()
    reference.dataset = data
    reference.createIndex()
    wanted = evaluated(COCOeval(reference, reference.loadRes(as_list(text=False)), "segm"))
truth = hotcoco.COCO(data)
boxes = np.array([masks.toBbox(runs) for runs, _ in detections])
ones = np.ones(len(detections))
rows = np.column_stack([ones, boxes, [score for _, score in detections], ones])
runs = [{"size": one["size"], "counts": one["counts"]} for one, _ in detections]
listed = evaluated(hotcoco.COCOeval(truth, truth.load_res(as_list(text=True)), "segm"))
array = truth.load_res(rows, segmentation=runs)
found = evaluated(hotcoco.COCOeval(truth, array, "segm"))
array.update_anns(ids=np.arange(1, len(runs) + 1), area=hotcoco.mask.area(runs).astype(float))
mended = evaluated(hotcoco.COCOeval(truth, array, "segm"))

print("hotcoco", version("hotcoco"), "pycocotools", version("pycocotools"))
print("AP, AP50, AP75 and APs of masks")
for name, values in {"pycocotools": wanted, "list": listed, "array": found, "array, areas set": mended}.items():
    print(f"{name:18}", *values)
same = wanted == listed == mended == [0.5, 0.5, 0.5, 0.5] and found == [0.5, 0.5, 0.5, 1.0]
sys.exit(0 if same else 1)
PYTHON
