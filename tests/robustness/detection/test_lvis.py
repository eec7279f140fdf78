"""LVIS's rule against hotcoco's LVISEval, which agrees with the authors' lvis 0.5.3."""

from __future__ import annotations

import contextlib
import io
import json

import hotcoco
import numpy as np
import pytest
from test_detection_evaluation import fill

from dtn_det.cli.main import main
from dtn_det.corruptions.cells import sweep_cells
from dtn_det.errors import InputError
from dtn_det.metrics import LVIS_METRICS, average_precision
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.robustness.detection.evaluation import CellDetections, CocoScorer, try_evaluation
from dtn_det.robustness.detection.folders import read_folder
from dtn_det.robustness.detection.records import ImageDetections
from dtn_det.robustness.detection.run import store_manifest
from dtn_det.robustness.detection.second_opinion import SecondOpinion, coco_results
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store import Store
from dtn_det.robustness.store.manifest import ModelManifest


def federated_set(seed: int, images: int = 12, categories: int = 9) -> dict:
    """Objects of all sizes, with masks; in each image some categories are absent, incomplete, or unknown."""
    rng = np.random.default_rng(seed)
    content: dict = {"images": [], "annotations": [], "categories": []}
    for number in range(1, categories + 1):
        content["categories"].append({"id": 3 * number, "name": f"c{number}", "frequency": "rcf"[number % 3]})
    ids = [one["id"] for one in content["categories"]]
    for image in rng.permutation(np.arange(5, 5 + images)).tolist():
        present = set()
        for _ in range(rng.integers(0, 7)):
            width, height = np.exp(rng.uniform(np.log(6), np.log(200), 2)).tolist()
            x, y = rng.uniform(0, 200, 2).tolist()
            polygon = [[x, y, x + width, y, x + width, y + height, x, y + height]]
            category = int(rng.choice(ids[:-1]))
            present.add(category)
            one = {"id": len(content["annotations"]) + 1, "image_id": image, "category_id": category}
            box = {"bbox": [x, y, width, height], "area": 0.9 * width * height, "segmentation": polygon}
            content["annotations"].append({**one, **box})
        absent = [one for one in ids if one not in present]
        lists = {
            "neg_category_ids": sorted(rng.choice(absent, 2, replace=False).tolist()),
            "not_exhaustive_category_ids": [one for one in sorted(present) if rng.random() < 0.4],
        }
        address = f"http://images.cocodataset.org/val2017/{image}.jpg"
        content["images"].append({"id": image, "coco_url": address, "height": 400, "width": 400, **lists})
    return content


def detections_of(truth: CocoTruth, seed: int, many: int = 0) -> CellDetections:
    """Near the objects and elsewhere, with equal scores; the first image has `many` more."""
    rng = np.random.default_rng(seed)
    image, boxes, labels = [], [], []
    numbers = [number for number, _ in truth.categories]
    for place, one in enumerate(truth.images):
        for row in json.loads(one.annotations):
            for _ in range(rng.integers(0, 3)):
                x, y, width, height = np.array(row["bbox"]) + rng.normal(size=4) * 0.1 * min(row["bbox"][2:])
                boxes.append([x, y, x + max(width, 1), y + max(height, 1)])
                labels.append(numbers.index(row["category_id"]) if rng.random() < 0.8 else rng.integers(len(numbers)))
                image.append(place)
        for _ in range(rng.integers(0, 12) + many * (place == 0)):
            x, y = rng.uniform(0, 250, 2)
            boxes.append([x, y, x + rng.uniform(5, 120), y + rng.uniform(5, 120)])
            labels.append(rng.integers(len(numbers)))
            image.append(place)
    corners = np.clip(np.array(boxes, np.float32), 0, 399)
    sizes = corners.astype(float)
    sizes[:, 2:] -= sizes[:, :2]
    masks = [hotcoco.mask.fr_bbox(box, 400, 400)["counts"] for box in sizes.tolist()]
    scores = (rng.integers(1, 60, len(boxes)) / 60).astype(np.float32)
    return CellDetections(
        0, np.array(image, np.int32), corners, scores, np.array(labels, np.int32), np.array(masks, object), scores
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "val2017").mkdir()
    return tmp_path


def lvis_data(folder, content: dict):
    (folder / "lvis.json").write_text(json.dumps(content))
    for one in content["images"]:
        # No image is opened: the reader looks for the files alone, and a GIF has no orientation.
        (folder / "val2017" / f"{one['id']}.jpg").write_bytes(b"GIF89a")
    return read_folder(folder)


def by_hotcoco(content: dict, results: list[dict], kind: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = hotcoco.LVIS(content)
        evaluator = hotcoco.LVISEval(truth, hotcoco.LVISResults(truth, results), kind)
        evaluator.run()
        found = evaluator.get_results()
    return [found[metric] for metric in LVIS_METRICS]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("many", [0, 500])
@pytest.mark.parametrize("seed", range(4))
def test_lvis_eval_of_hotcoco(folder, seed, many, kind):
    content = federated_set(seed)
    truth = lvis_data(folder, content).truth
    assert truth.images[0].file == f"val2017/{content['images'][0]['id']}.jpg"
    found = detections_of(truth, seed, many)
    own = np.nan_to_num(average_precision(CocoScorer(truth).matches(found, kind), None, LVIS_METRICS), nan=-1)
    wanted = by_hotcoco(content, coco_results(truth, found, kind), kind)
    np.testing.assert_allclose(own, wanted, rtol=0, atol=1e-9)
    assert own[0] > 0.05


def test_a_store_keeps_the_rule_and_a_report_has_its_numbers(folder):
    content = federated_set(1)
    data = lvis_data(folder, content)
    assert [remark.kind for remark in data.remarks if "LVIS" in remark.what] == ["lvis"]
    try_evaluation(data.file.path, data.truth, masks=True)

    class Identity:
        identity = "none"

    manifest = store_manifest(data, sweep_cells(["fog"], [1]), Identity(), 5)
    model = Store.create(folder / "store", manifest, data.truth.table()).add_model(
        ModelManifest("model", "", "", 0, {}, {})
    )
    found = detections_of(data.truth, 1)

    def of_image(image: int, cell: int) -> ImageDetections:
        rows = found.image == image
        return ImageDetections(found.boxes[rows], found.scores[rows], found.labels[rows])

    fill(model, of_image)
    assert CocoTruth.of(Store.open(folder / "store")) == data.truth
    report = collect([folder / "store"], ReportOptions(replicates=10))
    numbers = report.sections[0].numbers.set_index(["name", "scope"])["value"]
    wanted = by_hotcoco(content, coco_results(data.truth, found, "bbox"), "bbox")
    own = [numbers.get((f"P {metric}", ""), -100) / 100 for metric in LVIS_METRICS]
    np.testing.assert_allclose(own, wanted, rtol=0, atol=1e-9)
    assert "LVIS's lists of categories, so LVIS's rule" in " ".join(
        remark.what for remark in model.store.manifest.remarks
    )


def test_what_knows_no_lvis_refuses_it(folder):
    truth = lvis_data(folder, federated_set(0)).truth
    with pytest.raises(InputError, match="COCO's rule for a second opinion of faster-coco-eval, got LVIS's"):
        SecondOpinion(truth)
    with pytest.raises(InputError, match="COCO's rule to find the types of errors, got LVIS's"):
        CocoScorer(truth).errors(detections_of(truth, 0), "bbox")


def test_the_second_opinion_is_refused_before_the_sweep(folder, monkeypatch, capsys):
    lvis_data(folder, federated_set(0))
    (folder / "lvis_model.py").write_text("def detect(images):\n    raise AssertionError\n")
    monkeypatch.chdir(folder)
    words = ["mpc", "python:lvis_model:detect", "--data-root", ".", "--store", "store", "--category-ids", "dataset"]
    assert main([*words, "--evaluator", "faster-coco-eval", "--workers", "0", "--device", "cpu"]) == 1
    assert "COCO's rule for a second opinion of faster-coco-eval, got LVIS's: leave" in capsys.readouterr().err
    assert not (folder / "store").exists()


def test_the_lists_are_part_of_the_data(folder):
    content = federated_set(0)
    truth = lvis_data(folder, content).truth
    content["images"][0]["neg_category_ids"].append(3)
    assert lvis_data(folder, content).truth.hash([0] * 12) != truth.hash([0] * 12)
