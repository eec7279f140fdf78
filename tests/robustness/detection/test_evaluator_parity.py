"""The average precisions of a cell against pycocotools, faster-coco-eval and hotcoco's own evaluation."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from pathlib import Path

import hotcoco
import numpy as np
import pytest
from coco_sets import evaluated, random_set, stats
from report_stores import detector_store

from dtn_det.errors import InputError, StoreError
from dtn_det.metrics import average_precision
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.robustness.detection.evaluation import CellDetections, CocoScorer
from dtn_det.robustness.detection.second_opinion import SecondOpinion, coco_results
from dtn_det.robustness.detection.truth import CocoTruth, read_truth
from dtn_det.system.processes import worker_environment

PLAIN = ((1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 3))
ODD = ((0, 2**31 - 1, 5, 3, 900, 7, 1, 2), (90, 0, 7))
HUGE = ((9 * 10**18, 4, 2**40, 3, 900, 7, 1, 2), (3 * 10**12, 5, 9))


def truth_and_cell(folder: Path, content: dict, found: list[dict], kind: str) -> tuple[CocoTruth, CellDetections]:
    """The ground truth, read from a file, and the detections as arrays of float32, as they are in a store."""
    for place, one in enumerate(content["images"]):
        one.setdefault("file_name", f"{place}.jpg")
    (folder / "coco.json").write_text(json.dumps(content))
    ids, categories = ([one["id"] for one in content[part]] for part in ("images", "categories"))
    truth = read_truth(folder / "coco.json", ids, categories)
    found = sorted(found, key=lambda one: ids.index(one["image_id"]))
    boxes = np.array([one["bbox"] for one in found], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([one["score"] for one in found], np.float32)
    image = np.array([ids.index(one["image_id"]) for one in found], np.int32)
    labels = np.array([categories.index(one["category_id"]) for one in found], np.int32)
    masks = [hotcoco.mask.fr_bbox(one["bbox"], 400, 400)["counts"] for one in found]
    packed = np.array(masks, object) if kind == "segm" else None
    return truth, CellDetections(0, image, boxes, scores, labels, packed, scores)


def with_masks(content: dict) -> dict:
    """Objects with polygons, run lengths and areas that are not those of the boxes."""
    for place, one in enumerate(content["annotations"]):
        x, y, width, height = one["bbox"]
        one["segmentation"] = [[x, y, x + width, y, x + width, y + height]]
        if one["iscrowd"] or place % 3 == 0:
            runs = hotcoco.mask.fr_bbox(one["bbox"], 400, 400)
            one["segmentation"] = {"size": [400, 400], "counts": runs["counts"].decode()}
        one["area"] = 0.4 * width * height
    return content


def renamed(content: dict, found: list[dict], ids: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    images, categories = ids
    for one in (*content["annotations"], *found):
        one["image_id"] = images[one["image_id"] - 1]
        one["category_id"] = categories[one["category_id"] - 1]
    for part, new in (("images", images), ("categories", categories)):
        for one, number in zip(content[part], new, strict=True):
            one["id"] = number


def by_hotcoco(content: dict, results: list[dict], kind: str) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        objects = hotcoco.COCO(content)
        evaluator = hotcoco.COCOeval(objects, objects.load_res(results), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return stats(evaluator)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("ids", [PLAIN, ODD, HUGE], ids=["plain", "odd", "huge"])
@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
@pytest.mark.parametrize("seed", range(3))
def test_random_sets(tmp_path, seed, tied, ids, kind):
    content, found = random_set(seed, 8, tied=tied)
    renamed(content, found, ids)
    truth, cell = truth_and_cell(tmp_path, with_masks(content), found, kind)
    own = average_precision(CocoScorer(truth).matches(cell, kind))
    assert own[0] > 0.01
    back = {image.id: int(image.key) for image in truth.images}
    names = {number: int(one["id"]) for (number, _), one in zip(truth.categories, content["categories"], strict=True)}
    results = [
        {**row, "image_id": back[row["image_id"]], "category_id": names[row["category_id"]]}
        for row in coco_results(truth, cell, kind)
    ]
    for library in ("pycocotools", "faster-coco-eval"):
        np.testing.assert_allclose(own, stats(evaluated(content, results, library, kind)), rtol=0, atol=1e-9)
    np.testing.assert_allclose(own, by_hotcoco(content, results, kind), rtol=0, atol=1e-12)
    np.testing.assert_allclose(own, SecondOpinion(truth).average_precision(cell, kind), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_photographs(shared_dir, tmp_path, kind):
    """Real objects, moved and with false positives, of COCO's first images."""
    content = json.loads(next((shared_dir / "data/coco_mini/annotations").glob("*val*.json")).read_text())
    rng = np.random.default_rng(0)
    found = []
    for one in content["annotations"]:
        box = np.array(one["bbox"]) + rng.normal(scale=0.06, size=4) * one["bbox"][2]
        category = one["category_id"] if rng.random() < 0.9 else content["categories"][0]["id"]
        row = {"image_id": one["image_id"], "category_id": category, "bbox": [*box[:2], *box[2:].clip(2)]}
        found.append({**row, "score": round(float(rng.random()), 2)})
    truth, cell = truth_and_cell(tmp_path, content, found, "bbox")
    if kind == "segm":
        sizes = [(image.height, image.width) for image in truth.images]
        corners = cell.boxes.astype(float)
        corners[:, 2:] -= corners[:, :2]
        packed = [
            hotcoco.mask.fr_bbox(box, *sizes[image])["counts"]
            for box, image in zip(corners.tolist(), cell.image.tolist(), strict=True)
        ]
        cell = CellDetections(
            0, cell.image, cell.boxes, cell.scores, cell.labels, np.array(packed, object), cell.scores
        )
    own = average_precision(CocoScorer(truth).matches(cell, kind))
    results = coco_results(truth, cell, kind)
    assert own[0] > 0.1
    for library in ("pycocotools", "faster-coco-eval"):
        np.testing.assert_allclose(own, stats(evaluated(content, results, library, kind)), rtol=0, atol=1e-9)


@pytest.fixture
def small(tmp_path):
    content, found = random_set(2, 8)
    return truth_and_cell(tmp_path, content, found, "bbox")


def changed(cell: CellDetections, **arrays: object) -> CellDetections:
    return CellDetections(**{**vars(cell), **arrays})


@pytest.mark.parametrize("box", [[np.nan] * 4, [1, 2, np.nan, 4], [0, 0, np.inf, np.inf], [5, 5, 5, 5], [9, 9, 2, 2]])
def test_impossible_boxes_count_as_for_faster_coco_eval(small, box):
    truth, cell = small
    boxes = cell.boxes.copy()
    boxes[cell.scores > np.median(cell.scores)] = box
    cell = changed(cell, boxes=boxes)
    own = average_precision(CocoScorer(truth).matches(cell, "bbox"))
    np.testing.assert_allclose(own, SecondOpinion(truth).average_precision(cell, "bbox"), rtol=0, atol=1e-12)
    assert own[0] > 0


def test_a_box_of_nan_is_false(small):
    truth, cell = small
    whole = average_precision(CocoScorer(truth).matches(cell, "bbox"))
    fewer = changed(cell, boxes=np.where(cell.scores[:, None] > 0.7, np.float32(np.nan), cell.boxes))
    assert average_precision(CocoScorer(truth).matches(fewer, "bbox"))[0] < whole[0]


def test_what_cannot_be_evaluated_is_refused(small):
    truth, cell = small
    scorer = CocoScorer(truth)
    scores = cell.scores.copy()
    scores[:2] = np.nan
    with pytest.raises(InputError, match=rf"a number as score of each detection, got NaN for 2 of {len(scores)}"):
        scorer.matches(changed(cell, scores=scores), "bbox")
    for name, count in (("image", 8), ("labels", 3)):
        for value in (-1, count):
            values = getattr(cell, name).copy()
            values[0] = value
            with pytest.raises(StoreError, match=rf"detections from 0 to {count - 1}, got .*{value}.* is damaged"):
                scorer.matches(changed(cell, **{name: values}), "bbox")
    with pytest.raises(InputError, match="expected masks of the detections to evaluate masks, got boxes alone"):
        scorer.matches(cell, "segm")
    masks = np.array([b"PPYo0"] * len(cell.scores), object)
    with pytest.raises(InputError, match="expected a mask of each object to evaluate masks, got objects without"):
        scorer.matches(changed(cell, masks=masks), "segm")


def test_nothing_to_find_is_undefined_and_nothing_found_is_zero(small):
    truth, cell = small
    assert np.isnan(average_precision(CocoScorer(truth, range(8)).matches(cell, "bbox"))).all()
    nothing = changed(cell, **{name: value[:0] for name, value in vars(cell).items() if isinstance(value, np.ndarray)})
    assert average_precision(CocoScorer(truth).matches(nothing, "bbox"))[0] == 0
    assert SecondOpinion(truth).average_precision(nothing, "bbox")[0] == 0
    no_objects = CocoTruth(
        tuple(type(image)(**{**vars(image), "annotations": "[]"}) for image in truth.images), truth.categories
    )
    assert np.isnan(average_precision(CocoScorer(no_objects).matches(cell, "bbox"))).all()


def test_a_report_by_faster_coco_eval_has_the_same_numbers_without_intervals(tmp_path):
    store = detector_store(tmp_path / "store", {"good": 3, "worse": 12}, bad=[5])
    own, other = (
        collect([store], ReportOptions(replicates=20, evaluator=evaluator))
        for evaluator in ("hotcoco", "faster-coco-eval")
    )
    np.testing.assert_allclose(own.sections[0].numbers["value"], other.sections[0].numbers["value"], atol=1e-9)
    assert own.sections[0].numbers["low"].notna().any()
    assert other.sections[0].numbers["low"].isna().all()
    assert (own.provenance.replicates, other.provenance.replicates) == (20, 0)
    assert any("faster-coco-eval has evaluated" in text for text in other.remarks)
    assert not any("faster-coco-eval" in text for text in own.remarks)


def test_workers_have_one_thread_of_hotcoco(monkeypatch):
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    with worker_environment():
        assert os.environ["RAYON_NUM_THREADS"] == "1"
    assert "RAYON_NUM_THREADS" not in os.environ


def test_no_process_is_forked(project_root):
    """A forked child of a process that has used hotcoco waits for ever at its first call."""
    text = "\n".join(path.read_text() for path in (project_root / "dtn_det").rglob("*.py"))
    assert set(re.findall(r"get_context\((.*?)\)", text)) == {'"spawn"'}
    assert not re.search(r"os\.fork|multiprocessing\.(Process|Pool)\(|start_method", text)
    for call in re.findall(r"ProcessPoolExecutor\((.*)\)", text):
        assert "context" in call
