"""The proof that the numbers on the terminal, which are a report's, are those of faster-coco-eval's own summary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faster_coco_eval", reason="COCO's evaluation")
pytest.importorskip("pycocotools", reason="masks of the generated set")

from coco_summary import summaries
from golden_stores import GOLDEN
from report_stores import detector_store

from dtn_det.corruptions import Corruptor
from dtn_det.corruptions.cells import sweep_cells
from dtn_det.metrics import METRICS
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.robustness.detection.records import ImageDetections, RecordRows
from dtn_det.robustness.detection.truth import CocoTruth, read_truth
from dtn_det.robustness.store import ModelStore, Store
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest


def hold(model: ModelStore) -> int:
    """Compare all numbers of a model with the summary's to 1e-9; how many were defined and not 0."""
    name = model.manifest.name
    report = collect([model.store.folder], ReportOptions(models=[name], replicates=0, pairs=()))
    reference = summaries(model)
    assert [section.kind for section in report.sections] == list(reference)
    compared = 0
    for section in report.sections:
        columns = (section.numbers[column] for column in ("name", "scope", "severity", "value"))
        found = {(metric, scope, int(severity)): value for metric, scope, severity, value in zip(*columns, strict=True)}
        for row in reference[section.kind].to_dict("records"):
            for metric in METRICS:
                key = (metric, row["corruption"], row["severity"])
                if row[metric] == -1:
                    assert key not in found
                    continue
                assert found[key] / 100 == pytest.approx(row[metric], abs=1e-9), key
                compared += row[metric] > 0
    return compared


def test_the_golden_store_of_detections() -> None:
    assert hold(Store.open(GOLDEN / "detection" / "store").model("golden")) >= 16


@pytest.mark.parametrize("masks", [False, True])
def test_generated_detections_near_the_objects(tmp_path: Path, masks: bool) -> None:
    store = detector_store(tmp_path / "store", {"good": 3}, masks=masks, bad=[5])
    assert hold(Store.open(store).model("good")) >= 40


@pytest.mark.parametrize("seed", range(4))
def test_a_random_set_of_all_sizes_with_crowds_ties_and_more_than_a_hundred_detections(
    tmp_path: Path, seed: int
) -> None:
    assert hold(random_store(tmp_path, seed)) > 15


def random_store(folder: Path, seed: int, images: int = 12, categories: int = 5) -> ModelStore:
    """Boxes and masks of all sizes; equal scores; crowds; a category and images without objects; 130 detections."""
    rng = np.random.default_rng(seed)
    truth = random_truth(folder / "truth.json", rng, images, categories)
    cells = sweep_cells(["fog"], [1, 5])
    manifest = StoreManifest(
        "detection", "random", "abc", images, "all", Corruptor("coco-c").identity, cells, 5,
        truth.protocol,
    )  # fmt: skip
    model = Store.create(folder / "store", manifest, truth.table()).add_model(
        ModelManifest("random", "random.py", "abc", 1, {}, {})
    )
    for unit in model.pending():
        rows = RecordRows()
        for image in manifest.unit(unit):
            for cell in range(len(cells)):
                rows.add(image, cell, random_detections(truth, image, rng, categories))
        model.write(unit, rows.table())
    return model


def random_truth(path: Path, rng: np.random.Generator, images: int, categories: int) -> CocoTruth:
    annotations = []
    for image in range(1, images):
        for _ in range(int(rng.integers(1, 9))):
            width, height = (float(side) for side in np.exp(rng.uniform(np.log(6), np.log(230), 2)))
            x, y = float(rng.uniform(0, 400 - width)), float(rng.uniform(0, 300 - height))
            polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": int(rng.integers(1, categories)),
                 "bbox": [x, y, width, height], "area": 0.8 * width * height, "iscrowd": int(rng.random() < 0.1),
                 "segmentation": [polygon]}
            )  # fmt: skip
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 300, "width": 400} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"thing {i}"} for i in range(1, categories + 1)],
    }
    path.write_text(json.dumps(content))
    return read_truth(path, range(1, images + 1), range(1, categories + 1))


def random_detections(truth: CocoTruth, image: int, rng: np.random.Generator, categories: int) -> ImageDetections:
    from faster_coco_eval.core.mask import encode

    objects = json.loads(truth.images[image].annotations)
    boxes, labels = [], []
    for one in objects:
        x, y, width, height = one["bbox"]
        for _ in range(int(rng.integers(0, 4))):
            boxes.append(np.array([x, y, x + width, y + height]) + rng.normal(scale=0.08 * min(width, height), size=4))
            labels.append(one["category_id"] - 1 if rng.random() < 0.8 else rng.integers(categories))
    for _ in range(130 if image == 1 else 3):
        x, y = rng.uniform(0, 300), rng.uniform(0, 200)
        boxes.append(np.array([x, y, x + rng.uniform(5, 90), y + rng.uniform(5, 90)]))
        labels.append(0 if image == 1 else rng.integers(categories))
    found = np.array(boxes, np.float32)
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    # Of one decimal, so that many scores are equal.
    scores = np.round(rng.uniform(0.05, 1, len(found)), 1).astype(np.float32)
    masks = []
    for x1, y1, x2, y2 in np.clip(found, 0, [400, 300, 400, 300]).astype(int):
        bits = np.zeros((300, 400), np.uint8, order="F")
        bits[y1 : y2 + 1, x1 : x2 + 1] = 1
        masks.append(encode(bits)["counts"])
    counts = tuple(one if isinstance(one, bytes) else one.encode() for one in masks)
    return ImageDetections(found, scores, np.array(labels, np.int32), counts)
