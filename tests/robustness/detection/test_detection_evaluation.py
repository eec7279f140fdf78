from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("faster_coco_eval")
pytest.importorskip("pycocotools")

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dtn_det.corruptions.cells import sweep_cells
from dtn_det.errors import StoreError
from dtn_det.metrics import METRICS, average_precision, matches_from_evaluator
from dtn_det.reports import detection as reports_detection
from dtn_det.reports.detection import numbers_of_stores
from dtn_det.robustness.detection import evaluation
from dtn_det.robustness.detection.evaluation import CocoScorer, read_cells
from dtn_det.robustness.detection.records import ImageDetections, RecordRows
from dtn_det.robustness.detection.second_opinion import SecondOpinion
from dtn_det.robustness.detection.truth import CocoTruth, read_truth
from dtn_det.robustness.store import Store
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest

CELLS = sweep_cells(["fog", "gaussian_blur"], [1, 5])


def open_store(folder: Path, truth: CocoTruth, unit_size: int = 8):
    manifest = StoreManifest(
        "detection",
        "coco.json",
        truth.hash([0] * len(truth.images)),
        len(truth.images),
        "all",
        "coco-c",
        CELLS,
        unit_size,
        truth.protocol,
    )
    return Store.create(folder, manifest, truth.table()).add_model(ModelManifest("model", "", "", 0, {}, {}))


def fill(model, detections) -> None:
    """Write all units; `detections(image, cell)` gives what was found, or text for a bad image."""
    manifest = model.store.manifest
    for number in model.pending():
        rows = RecordRows()
        for image in manifest.unit(number):
            found = [detections(image, cell) for cell in range(len(manifest.cells))]
            if isinstance(found[0], str):
                rows.add_bad(image, range(len(found)), found[0])
            else:
                for cell, one in enumerate(found):
                    rows.add(image, cell, one)
        model.write(number, rows.table())


def random_truth(path: Path, seed: int = 0, images: int = 20) -> CocoTruth:
    """Objects of all sizes, crowds, images without objects, a category that no object has, ids out of order."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(1000)[:images].tolist()
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 480, "width": 640} for i in ids],
        "annotations": [],
        "categories": [{"id": 3, "name": "a"}, {"id": 1, "name": "b"}, {"id": 7, "name": "c"}],
    }
    for image in ids[2:]:
        for _ in range(rng.integers(0, 6)):
            x, y = rng.uniform(0, 300, 2).round(2)
            w, h = rng.uniform(8, 200, 2).round(2)
            crowd = int(rng.random() < 0.2)
            annotation = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd, "image_id": image}
            number = len(content["annotations"]) + 1
            content["annotations"].append({**annotation, "category_id": int(rng.choice([3, 1])), "id": number})
    path.write_text(json.dumps(content))
    return read_truth(path, ids, [3, 1, 7])


def random_detections(truth: CocoTruth, seed: int = 0):
    """Near the objects and elsewhere, with equal scores among them."""

    def found(image: int, cell: int) -> ImageDetections:
        rng = np.random.default_rng([seed, image, cell])
        boxes, labels = [], []
        for one in json.loads(truth.images[image].annotations):
            x, y, w, h = np.array(one["bbox"]) + rng.normal(0, 3 + 3 * cell, 4)
            boxes.append([x, y, x + max(w, 1), y + max(h, 1)])
            labels.append([3, 1, 7].index(one["category_id"]) if rng.random() < 0.9 else 2)
        for _ in range(rng.integers(0, 5)):
            x, y, w, h = rng.uniform(1, 200, 4)
            boxes.append([x, y, x + w, y + h])
            labels.append(int(rng.integers(3)))
        scores = rng.integers(1, 20, len(boxes)) / 20
        return ImageDetections(
            np.array(boxes, np.float32).reshape(-1, 4), scores.astype(np.float32), np.array(labels, np.int32)
        )

    return found


def measured(model, kind: str = "bbox", **options: object) -> np.ndarray:
    """What reports and the terminal say: (cells, metrics) as fractions, NaN where there is nothing to find."""
    found = numbers_of_stores({"model": model}, replicates=0, **options)["model"][kind]
    nothing = np.full(len(CELLS), np.nan)
    return np.stack([found[metric].point if metric in found else nothing for metric in METRICS], axis=1)


def reference(path: Path, results: list[dict], kind: str) -> list[float]:
    """pycocotools."""
    truth = COCO(str(path))
    evaluation = COCOeval(truth, truth.loadRes(results), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_boxes_are_scored_as_by_pycocotools(seed, tmp_path):
    truth = random_truth(tmp_path / "coco.json", seed)
    model = open_store(tmp_path / "store", truth)
    detections = random_detections(truth, seed)
    fill(model, detections)
    found = np.nan_to_num(measured(model), nan=-1)
    for cell in range(len(CELLS)):
        results = []
        for number, image in enumerate(truth.images):
            one = detections(number, cell)
            for (x1, y1, x2, y2), score, label in zip(
                one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True
            ):
                box = [x1, y1, x2 - x1, y2 - y1]
                results.append({"image_id": image.id, "category_id": [3, 1, 7][label], "score": score, "bbox": box})
        expected = reference(tmp_path / "coco.json", results, "bbox")
        np.testing.assert_allclose(found[cell], expected[: len(METRICS)], atol=1e-12)
    assert found[:, 0].max() > 0.05


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_results_published_with_coco(kind, shared_dir, tmp_path):
    folder = shared_dir / "data/published_results/coco_eval_fakebbox100"
    annotations = folder / "instances_val2014_100.json"
    expected = json.loads((folder / "expected_pycocotools.json").read_text())["stats"][kind]
    results = json.loads((folder / f"instances_val2014_fake{kind}100_results.json").read_text())
    content = json.loads(annotations.read_text())
    categories = [one["id"] for one in content["categories"]]
    truth = read_truth(annotations, [one["id"] for one in content["images"]], categories)
    numbers = {image.id: number for number, image in enumerate(truth.images)}

    def detections(image: int, cell: int) -> ImageDetections:
        own = [one for one in results if numbers[one["image_id"]] == image]
        boxes = np.array([one.get("bbox", [0, 0, 1, 1]) for one in own], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = tuple(one["segmentation"]["counts"].encode() for one in own) if kind == "segm" else None
        scores = np.array([one["score"] for one in own], np.float32)
        labels = np.array([categories.index(one["category_id"]) for one in own], np.int32)
        return ImageDetections(boxes, scores, labels, masks)

    model = open_store(tmp_path / "store", truth, unit_size=30)
    fill(model, detections)
    found = measured(model, kind)
    # The files have decimals that float32, in which detectors find boxes, does not.
    np.testing.assert_allclose(found[0], [expected[name] for name in METRICS], atol=2e-6 if kind == "segm" else 2e-3)
    assert (found == found[0]).all()


def test_masks_with_scores_of_their_own_use_them(tmp_path):
    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    one = ImageDetections(
        np.zeros((1, 4), np.float32), np.float32([0.5]), np.int32([0]), (b"PPYo0",), np.float32([0.25])
    )
    fill(model, lambda image, cell: one)
    (found, _) = read_cells(model, [0, 3])
    assert found.mask_scores.tolist() == [0.25] * len(truth.images)
    assert found.scores.tolist() == [0.5] * len(truth.images)
    assert found.masks.tolist() == [b"PPYo0"] * len(truth.images)


def test_a_detector_that_finds_nothing(tmp_path):
    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    nothing = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    fill(model, lambda image, cell: nothing)
    assert (measured(model)[:, 0] == 0).all()


def test_one_cell_without_detections_is_a_zero(tmp_path):
    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    found = random_detections(truth)
    nothing = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    fill(model, lambda image, cell: nothing if cell == 3 else found(image, cell))
    assert [value > 0 for value in measured(model)[:, 0]] == [True, True, True, False, True]


def test_bad_images_are_left_out_of_truth_and_count(tmp_path):
    truth = random_truth(tmp_path / "coco.json")
    detections = random_detections(truth)
    model = open_store(tmp_path / "store", truth)
    fill(model, lambda image, cell: "broken" if image in (3, 4) else detections(image, cell))
    rest = [number for number in range(len(truth.images)) if number not in (3, 4)]
    smaller = open_store(tmp_path / "smaller", truth.select(rest))
    fill(smaller, lambda image, cell: detections(rest[image], cell))
    np.testing.assert_array_equal(measured(model), measured(smaller))
    fill(broken := open_store(tmp_path / "broken", truth), lambda image, cell: "broken")
    with pytest.raises(StoreError, match="expected images that 'model' has evaluated, got none"):
        measured(broken)


def test_units_that_are_missing_are_left_out_of_the_truth(tmp_path):
    truth = random_truth(tmp_path / "coco.json")
    detections = random_detections(truth)
    fill(model := open_store(tmp_path / "store", truth), detections)
    (model.folder / "unit-000001.parquet").unlink()
    rest = [number for number in range(len(truth.images)) if number not in model.store.manifest.unit(1)]
    smaller = open_store(tmp_path / "smaller", truth.select(rest))
    fill(smaller, lambda image, cell: detections(rest[image], cell))
    np.testing.assert_array_equal(measured(model), measured(smaller))


@pytest.mark.slow  # the processes take long to start
def test_several_processes_and_small_groups_give_the_same(tmp_path, monkeypatch):
    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    fill(model, random_detections(truth))
    whole = measured(model)
    monkeypatch.setattr(evaluation, "_GROUP_BYTES", 1)
    np.testing.assert_array_equal(measured(model), whole)
    monkeypatch.setattr(reports_detection, "_PROCESS_BYTES", 0)
    done = []
    np.testing.assert_array_equal(measured(model, processes=2, on_cells=done.append), whole)
    assert sum(done) == len(CELLS)


def test_the_matches_are_those_of_faster_coco_eval_for_any_weights_of_images(tmp_path):
    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    fill(model, random_detections(truth))
    (found,) = read_cells(model, [1])
    other = matches_from_evaluator(SecondOpinion(truth, bad=[2]).evaluator(found, "bbox"))
    own = CocoScorer(truth, bad=[2]).matches(found, "bbox")
    assert own.images == other.images
    for field in dataclasses.fields(own):
        np.testing.assert_array_equal(getattr(own, field.name), getattr(other, field.name), field.name)
    weights = np.random.default_rng(0).integers(0, 4, (20, len(truth.images) - 1))
    wanted = average_precision(other, weights)
    assert np.isfinite(wanted[:, 0]).all()
    np.testing.assert_array_equal(average_precision(own, weights), wanted)


def test_damaged_annotations(tmp_path):
    path = tmp_path / "coco.json"
    for content, message in (
        ("{", "expected JSON in"),
        ("[]", "expected a COCO annotation file in"),
        ('{"images": [], "categories": []}', "expected images in"),
        ('{"images": [{"id": 2, "file_name": "a", "height": 5, "width": 5}]}', "expected the image 1 in"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"{message} .*coco\.json"):
            read_truth(path, [1], [1])
