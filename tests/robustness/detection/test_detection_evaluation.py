from __future__ import annotations

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
from dtn_det.metrics import mean_performance_under_corruption
from dtn_det.robustness.detection import evaluation as coco_cells
from dtn_det.robustness.detection.evaluation import COCO_METRICS, CocoScorer, evaluate_cells, read_cells
from dtn_det.robustness.detection.records import ImageDetections, RecordRows
from dtn_det.robustness.detection.report import cell_table, partial_images, summary_table
from dtn_det.robustness.detection.truth import CocoTruth, read_truth
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest
from dtn_det.robustness.store.store import Store

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
        {"categories": truth.categories_json},
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
    frame = evaluate_cells(model)["bbox"]
    assert list(zip(frame["corruption"], frame["severity"], strict=True)) == list(CELLS)
    assert (frame["num_images"] == len(truth.images)).all()
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
        np.testing.assert_allclose(frame.loc[cell, list(COCO_METRICS)].astype(float), expected, atol=1e-12)
    assert frame["AP"].max() > 0.05


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
    frame = evaluate_cells(model)[kind]
    # The files have decimals that float32, in which detectors find boxes, does not.
    found = frame.loc[0, list(COCO_METRICS)].astype(float)
    np.testing.assert_allclose(found, [expected[name] for name in COCO_METRICS], atol=2e-6 if kind == "segm" else 2e-3)
    assert frame["AP"].nunique() == 1


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
    assert found.masks == [b"PPYo0"] * len(truth.images)


def test_a_detector_that_finds_nothing(tmp_path):
    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    nothing = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    fill(model, lambda image, cell: nothing)
    frame = evaluate_cells(model)["bbox"]
    assert (frame["AP"] == 0).all()
    assert "-" in list(summary_table(frame, "").columns[3].cells)


def test_one_cell_without_detections_is_a_zero(tmp_path):
    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    found = random_detections(truth)
    nothing = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    fill(model, lambda image, cell: nothing if cell == 3 else found(image, cell))
    frame = evaluate_cells(model)["bbox"]
    assert frame["AP"][3] == 0
    assert (frame["AP"].drop(3) > 0).all()


def test_bad_images_are_left_out_of_truth_and_count(tmp_path):
    truth = random_truth(tmp_path / "coco.json")
    detections = random_detections(truth)
    model = open_store(tmp_path / "store", truth)
    fill(model, lambda image, cell: "broken" if image in (3, 4) else detections(image, cell))
    frame = evaluate_cells(model)["bbox"]
    rest = [number for number in range(len(truth.images)) if number not in (3, 4)]
    smaller = open_store(tmp_path / "smaller", truth.select(rest))
    fill(smaller, lambda image, cell: detections(rest[image], cell))
    assert frame.equals(evaluate_cells(smaller)["bbox"])
    assert partial_images(model, 2) == "without 2 bad images"
    fill(broken := open_store(tmp_path / "broken", truth), lambda image, cell: "broken")
    with pytest.raises(StoreError, match="got 20 bad ones of 20"):
        evaluate_cells(broken)


def test_missing_units_are_an_error(tmp_path):
    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    fill(model, random_detections(truth))
    (model.folder / "unit-000001.parquet").unlink()
    with pytest.raises(StoreError, match="expected all 3 units of 'model', got 2"):
        evaluate_cells(model)


@pytest.mark.parametrize("pairs", [0, 200, 300])
def test_categories_a_few_at_a_time_give_the_same(pairs, tmp_path, monkeypatch):
    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    fill(model, lambda image, cell: "bad" if image == 3 else random_detections(truth)(image, cell))
    whole = evaluate_cells(model)["bbox"]
    evaluators = []
    evaluator = CocoScorer.evaluator
    monkeypatch.setattr(CocoScorer, "evaluator", lambda *args: evaluators.append(args) or evaluator(*args))
    monkeypatch.setattr(coco_cells, "_GROUP_PAIRS", pairs)
    assert evaluate_cells(model)["bbox"].equals(whole)
    assert len(evaluators) > len(CELLS)


@pytest.mark.slow  # the processes take long to start
def test_several_processes_and_small_groups_give_the_same(tmp_path, monkeypatch):
    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    fill(model, random_detections(truth))
    whole = evaluate_cells(model)["bbox"]
    monkeypatch.setattr(coco_cells, "_GROUP_BYTES", 1)
    assert evaluate_cells(model)["bbox"].equals(whole)
    monkeypatch.setattr(coco_cells, "_PROCESS_BYTES", 0)
    done = []
    assert evaluate_cells(model, processes=2, on_cell=done.append)["bbox"].equals(whole)
    assert sum(done) == len(CELLS)


def test_tables_keep_the_benchmark_and_the_extra_corruptions_apart(tmp_path):
    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    fill(model, random_detections(truth))
    frame = evaluate_cells(model)["bbox"]
    table = summary_table(frame, "title", selected="limit=2")
    headings = [column.header for column in table.columns]
    assert headings == ["metric", "P", "mPC", "rPC %", "mPC (4 extra)", "rPC (4 extra) %", ""]
    assert next(iter(table.columns[-1].cells)) == "partial (2/75, 2/20, limit=2)"
    mean = mean_performance_under_corruption(frame, allow_partial=True).value
    assert next(iter(table.columns[2].cells)) == f"{100 * mean:.2f}"
    assert list(cell_table(frame, "").columns[0].cells) == ["fog", "gaussian_blur"]
    assert "partial (2/5)" in next(iter(cell_table(frame, "").columns[-1].cells))


def test_the_evaluator_serves_intervals(tmp_path):
    from dtn_det.metrics import average_precision, matches_from_evaluator

    truth = random_truth(tmp_path / "coco.json")
    model = open_store(tmp_path / "store", truth)
    fill(model, random_detections(truth))
    scorer = CocoScorer(truth)
    (found,) = read_cells(model, [0])
    assert average_precision(matches_from_evaluator(scorer.evaluator(found, "bbox")))[0] == pytest.approx(
        evaluate_cells(model)["bbox"]["AP"][0]
    )


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
