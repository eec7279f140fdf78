from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from odd_coco_files import HEIGHT, WIDTH, plain_content

pytest.importorskip("pycocotools")

from dtn_det.datasets.coco import read_coco_file
from dtn_det.datasets.coco.shapes import mask_area, mask_extent, outlined_area
from dtn_det.datasets.remarks import Remark

DATA = Path(__file__).parents[4] / "shared" / "data"


def remarks(content: dict[str, Any], folder: Path) -> dict[str, Remark]:
    path = folder / "coco.json"
    path.write_text(json.dumps(content))
    return {one.kind: one for one in read_coco_file(path).remarks}


def content_of(*objects: dict[str, Any]) -> dict[str, Any]:
    """Objects of one image, with a box of 100 x 100 and its area where they have no other."""
    usual = {"image_id": 2, "category_id": 3, "iscrowd": 0, "bbox": [100, 100, 100, 100], "area": 1e4}
    rows = [{"id": place + 1, **usual, **one} for place, one in enumerate(objects)]
    return {**plain_content(), "annotations": rows}


def rectangle(x: float, y: float, width: float, height: float) -> list[list[float]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def run_lengths(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    runs = [x * HEIGHT + y, *([height, HEIGHT - height] * width)]
    return {"size": [HEIGHT, WIDTH], "counts": [*runs[:-1], WIDTH * HEIGHT - sum(runs[:-1])]}


def compressed(runs: dict[str, Any]) -> dict[str, Any]:
    from pycocotools import mask

    found = mask.frPyObjects(runs, HEIGHT, WIDTH)
    return {"size": found["size"], "counts": found["counts"].decode()}


@pytest.mark.parametrize("shape", [rectangle, run_lengths, lambda *box: compressed(run_lengths(*box))])
def test_boxes_that_hardly_overlap_their_masks_are_told(shape, tmp_path):
    boxes = [(10, 8, 30, 20), (60, 10, 24, 30), (20, 60, 30, 24)]
    for box in boxes:
        assert mask_extent(shape(*box)) == box
    masks = [{"bbox": [*box], "area": box[2] * box[3], "segmentation": shape(*box)} for box in boxes]
    assert remarks(content_of(*masks), tmp_path) == {}
    for row in masks:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, HEIGHT - y - height, width, height]
    found = remarks(content_of(*masks, {}), tmp_path)
    assert list(found) == ["boxes_beside_masks"]
    assert found["boxes_beside_masks"].count == 3
    assert "annotation 1 of image 2" in found["boxes_beside_masks"].sentence()
    assert "looked at" not in found["boxes_beside_masks"].what


@pytest.mark.parametrize(
    "row",
    [
        {"segmentation": rectangle(300, 300, 100, 100), "iscrowd": 1},
        {"segmentation": rectangle(100, 100, 40, 40)},
        {"segmentation": run_lengths(300, 300, 0, 0)},
        {"bbox": [100, 100, 1, 1], "area": 1, "segmentation": [[100, 100, 100, 101, 100, 100.5]]},
    ],
    ids=["crowd", "part of the object", "empty mask", "line"],
)
def test_objects_that_no_mask_contradicts_are_not_told(row, tmp_path):
    assert "boxes_beside_masks" not in remarks(content_of(row), tmp_path)


@pytest.mark.parametrize("side", [1e200, 10**200, 1e308])
def test_boxes_of_any_finite_size_are_compared(side, tmp_path):
    row = {"bbox": [10, 10, side, side], "segmentation": rectangle(10, 10, 100, 100)}
    assert {"boxes_beyond_image", "boxes_beside_masks"} >= remarks(content_of(row), tmp_path).keys() > set()


def thin() -> list[list[float]]:
    return [[100, 100, 200, 199.6, 200, 200, 100, 100.4]]


def diagonal() -> dict[str, Any]:
    runs = [100 * HEIGHT + 100, 1, *([HEIGHT, 1] * 99)]
    return {"size": [HEIGHT, WIDTH], "counts": [*runs, WIDTH * HEIGHT - sum(runs)]}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"area": 1.0}, True),
        ({"area": 0}, True),
        ({"area": -4}, True),
        ({"area": 99}, True),
        ({"area": 101}, False),
        ({"area": 10201}, False),
        ({"area": 10250}, True),
        ({"area": 1.0, "segmentation": rectangle(100, 100, 100, 100)}, True),
        ({"area": 1.0, "segmentation": run_lengths(100, 100, 100, 100)}, True),
        ({"area": 40.0, "segmentation": thin()}, False),
        ({"area": 80.0, "segmentation": diagonal()}, False),
        ({"area": 1.0, "iscrowd": 1}, False),
        ({"bbox": [5, 5, 3, 2], "area": 12}, False),
        ({"bbox": [5, 5, 3, 2], "area": 20}, True),
    ],
)
def test_areas_that_are_not_those_of_the_objects_are_told(row, told, tmp_path):
    found = remarks(content_of(row, {}), tmp_path)
    dropped = found.pop("dropped_in_training", None)
    assert (dropped is not None) == (row.get("area", 1) <= 0)
    assert list(found) == ["areas_beside_boxes"] * told
    for one in found.values():
        assert one.count == 1
        assert "annotation 1 of image 2" in one.sentence()
        assert "goes by `area`, as in pycocotools" in one.sentence()


def test_boxes_without_extent_are_not_taken_for_fractions(tmp_path):
    def kinds(*boxes: list[float]) -> dict[str, int]:
        rows = [{"bbox": box, "segmentation": rectangle(300, 300, 100, 100)} for box in boxes]
        return {kind: one.count for kind, one in remarks(content_of(*rows), tmp_path).items()}

    assert kinds([0, 0, 0, 0], [0, 0, 0, 0]) == {"boxes_without_extent": 2, "dropped_in_training": 2}
    found = kinds([0, 0, 0, 0], [0.2, 0.3, 0.5, 0.5])
    assert found == {"boxes_without_extent": 1, "boxes_of_fractions": 1, "dropped_in_training": 2}


def test_of_large_files_some_objects_at_equal_distances_are_looked_at(tmp_path):
    wrong = {"segmentation": rectangle(300, 300, 100, 100), "area": 1.0}
    found = remarks(content_of(*[wrong] * 4100), tmp_path)
    for kind in ("boxes_beside_masks", "areas_beside_boxes"):
        assert found[kind].count == 1367
        assert "(1,367 of 4,100 objects were looked at)" in found[kind].sentence()


def test_areas_within_outlines_are_those_of_the_pixels():
    for mask in (rectangle(10, 20, 30, 40), rectangle(10, 20, 30, 40) + rectangle(100, 20, 10, 10), thin()):
        assert outlined_area(mask) == pytest.approx(mask_area(mask, HEIGHT, WIDTH), rel=0.01, abs=100)
    assert outlined_area([[10, 10, 60, 10, 60, 70, 5]]) == 1500
    assert mask_extent([[10, 10, 60, 10, 60, 70, 5]]) == (10, 10, 50, 60)
    assert outlined_area(run_lengths(10, 20, 30, 40)) == 1200


@pytest.mark.parametrize("folder", ["coco_mini", "bccd"])
def test_boxes_of_real_sets_are_no_cause_for_a_word(folder):
    paths = sorted((DATA / folder / "annotations").glob("*.json"))
    if not paths:
        pytest.skip(f"needs {DATA / folder}")
    for path in paths:
        found = read_coco_file(path)
        assert len(found.annotations) > 500
        assert found.remarks == ()
