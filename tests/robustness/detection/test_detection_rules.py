"""COCO's rule and that of MMDetection's CocoMetric on models with more than 100 detections of a class in an image."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mmdet", reason="CocoMetric is MMDetection's")
pytest.importorskip("pyarrow")

import pyarrow as arrow
import torch
from faster_coco_eval import COCO, COCOeval_faster
from mmdet.evaluation import CocoMetric

from dtn_det.corruptions.cells import sweep_cells
from dtn_det.reports.sweep_results import print_sweep_report, sweep_report
from dtn_det.robustness.detection.records import ImageDetections, RecordRows, most_of_one_class, rule_note
from dtn_det.robustness.detection.truth import read_truth
from dtn_det.robustness.store import Store
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest


def boxes(count: int) -> np.ndarray[Any, Any]:
    """Boxes of 10 x 10 pixels, side by side, 50 in a row."""
    x, y = np.arange(count) % 50 * 12, np.arange(count) // 50 * 12
    return np.stack([x, y, x + 10, y + 10], 1).astype(np.float32)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """An image of two categories with 150 objects of the first."""
    objects = [
        {"id": place + 1, "image_id": 1, "category_id": 1, "bbox": [x, y, 10, 10], "area": 100, "iscrowd": 0}
        for place, (x, y, _, _) in enumerate(boxes(150).tolist())
    ]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 200, "width": 600}],
        "annotations": objects,
        "categories": categories,
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return tmp_path / "truth.json"


def detections() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """300 of the first category: every second is right until the objects are used up."""
    found = boxes(300)
    found[0::2], found[1::2] = boxes(150), boxes(300)[150:]
    return found, np.linspace(0.9, 0.1, 300, dtype=np.float32)


def by_mmdetection(truth: Path) -> dict[str, float]:
    found, scores = detections()
    with contextlib.redirect_stdout(io.StringIO()):
        metric = CocoMetric(str(truth))
        metric.dataset_meta = {"classes": ("a", "b")}
        instances = {"bboxes": torch.tensor(found), "scores": torch.tensor(scores), "labels": torch.zeros(300).long()}
        metric.process({}, [{"pred_instances": instances, "img_id": 1, "ori_shape": (200, 600)}])
        values: dict[str, float] = metric.evaluate(1)
    return values


def by_coco(truth: Path) -> Sequence[float]:
    found, scores = detections()
    coco = COCO(str(truth))
    rows = [
        {"image_id": 1, "category_id": 1, "score": float(score), "bbox": [float(x), float(y), 10, 10]}
        for (x, y, _, _), score in zip(found, scores, strict=True)
    ]
    evaluator = COCOeval_faster(coco, coco.loadRes(rows), "bbox", print_function=lambda *_: None)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    values: Sequence[float] = evaluator.stats
    return values


def test_the_two_rules_agree_on_ap_alone(truth: Path) -> None:
    mmdetection, coco = by_mmdetection(truth), by_coco(truth)
    assert [mmdetection[f"coco/bbox_{name}"] for name in ("mAP", "mAP_50", "mAP_s")] == [0.180, 0.514, 0.514]
    assert list(coco[:4]) == pytest.approx([0.180] * 4, abs=5e-4)


class Records:
    """Labels of images in a store, in two units."""

    def __init__(self, *images: Sequence[int]) -> None:
        self.images = images

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        assert columns == ["labels"]
        for place in range(0, len(self.images), 2):
            rows = [list(labels) for labels in self.images[place : place + 2]]
            yield arrow.table({"labels": arrow.array(rows, arrow.list_(arrow.int32()))})


@pytest.mark.parametrize(
    ("images", "most"),
    [
        ([[0] * 100, [1] * 100], 0),
        ([[0] * 100 + [1] * 100, []], 0),
        ([[], [0] * 99 + [1] * 101, [2] * 3], 101),
        ([[1] * 150, [3] * 7, [0] * 50 + [4] * 300], 300),
        ([], 0),
    ],
)
def test_detections_are_counted_by_class_and_image(images: list[list[int]], most: int) -> None:
    model: Any = Records(*images)
    assert most_of_one_class(model) == most
    note = rule_note(model)
    assert bool(note) == bool(most)
    if most:
        assert note.startswith(f"up to {most} detections of a class in an image: as COCO's rule says, all metrics take")


def test_the_note_stands_under_the_tables(tmp_path: Path, truth: Path) -> None:
    from rich.console import Console

    cells = sweep_cells(["fog"], [1])
    known = read_truth(truth, [1], [1, 2])
    for count, notes in ((101, 1), (100, 0)):
        manifest = StoreManifest("detection", "a", "abc", 1, "all", "c", cells, 1, known.protocol)
        store = Store.create(tmp_path / str(count), manifest, known.table())
        model = store.add_model(ModelManifest("many", "", "", 0, {}, {}))
        rows = RecordRows()
        for cell in range(len(cells)):
            scores, labels = np.full(count, 0.5, np.float32), np.zeros(count, np.int32)
            rows.add(0, cell, ImageDetections(boxes(count), scores, labels))
        model.write(0, rows.table())
        text = io.StringIO()
        print_sweep_report(Console(file=text), store, sweep_report(store, ["many"]))
        assert text.getvalue().count("many: up to 101 detections of a class in an image") == notes
