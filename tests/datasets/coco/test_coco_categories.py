"""Objects of categories that a detector does not have are counted once, and nothing else is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from odd_coco_files import plain_content
from PIL import Image

from dtn_det.check import inspect_path
from dtn_det.check.model import read_target
from dtn_det.datasets.coco import read_coco_file
from dtn_det.datasets.coco.categories import WantedClasses
from dtn_det.errors import AnnotationError

BAR = 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in which the first object of the category `bar` has no extent, and a segmentation that is a flat list."""
    content = plain_content()
    bar = next(row for row in content["annotations"] if row["category_id"] == BAR)
    bar.update(bbox=[5, 5, 0, 9], segmentation=[1, 2, 3, 4, 5, 6], ignore=1)
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    return path


def test_faults_of_other_categories_are_not_told(path):
    total = len(plain_content()["annotations"])
    bars = sum(row["category_id"] == BAR for row in plain_content()["annotations"])
    assert 1 < bars < total
    whole = read_coco_file(path)
    kinds = {"boxes_without_extent", "unusable_masks", "ignored_in_training", "dropped_in_training"}
    assert {remark.kind for remark in whole.remarks} == kinds
    assert len(whole.mask_faults) == 1
    found = read_coco_file(path, wanted=WantedClasses(("square", "disc"), listed=True))
    (remark,) = found.remarks
    assert remark.sentence() == (
        f"{path}: {bars} objects of categories beside metainfo.classes are neither trained on nor evaluated: "
        f"bar ({bars})"
    )
    assert not found.mask_faults
    assert (len(found.annotations), len(found.left_out)) == (total - bars, bars)
    # Copies for other programs hold all objects.
    assert len(found.content()["annotations"]) == total
    assert found.changed


def test_classes_that_nobody_listed_are_told_with_what_to_do(path):
    whole = read_coco_file(path, wanted=WantedClasses(("square", "bar", "disc"), listed=False))
    assert "other_categories" not in {remark.kind for remark in whole.remarks}
    remark = read_coco_file(path, wanted=WantedClasses(("square", "disc"), listed=False)).remarks[-1]
    assert "the classes that are built into the type of the data set" in remark.what
    assert remark.what.endswith("list the categories that count as metainfo.classes of the data set")


def test_a_file_that_lacks_a_class_is_read_as_a_whole(path):
    """It is refused for the class that it lacks, not for want of objects."""
    found = read_coco_file(path, wanted=WantedClasses(("cat", "dog"), listed=True))
    assert not found.left_out
    assert "other_categories" not in {remark.kind for remark in found.remarks}


def test_a_file_with_objects_of_other_categories_alone_is_refused(tmp_path):
    content = plain_content()
    content["annotations"] = [row for row in content["annotations"] if row["category_id"] == BAR]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    count = len(content["annotations"])
    with pytest.raises(AnnotationError, match=f"got {count} of categories that are not among the classes"):
        read_coco_file(path, wanted=WantedClasses(("disc", "square"), listed=True)).check_objects()


def test_crowds_are_told_neither_as_missed_nor_as_left_out_of_training(tmp_path):
    content = plain_content()
    for row in content["annotations"]:
        if row["iscrowd"]:
            row.update(bbox=[4, 0, 0, 0], ignore=1)
    content["annotations"][0]["ignore"] = 1
    content["annotations"][1]["ignore"] = 0
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    (remark,) = read_coco_file(path).remarks
    assert (remark.kind, remark.count, remark.examples) == ("ignored_in_training", 1, ("annotation 1 of image 2",))
    assert "MMDetection leaves it out of training, and COCO's evaluation counts it" in remark.what


def test_check_counts_them_and_finds_that_the_file_fits(project_root, tmp_path):
    pytest.importorskip("mmdet")
    target = read_target(str(project_root / "configs/dtn_bccd/atss_dtn-swin-nano_fpn_24e_bccd.py"))
    names = target.config.test_dataloader.dataset.metainfo["classes"]
    content = plain_content()
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate((*names, "hexagon"), 1)]
    for place, row in enumerate(content["annotations"]):
        row["category_id"] = 1 if place else len(names) + 1
    content["annotations"][0]["bbox"] = [-1, -1, -1, -1]
    (tmp_path / "sub").mkdir()
    for image in content["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(tmp_path / image["file_name"])
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    (result,) = inspect_path(path, target)
    assert result.fits is True
    assert result.facts["objects"] == len(content["annotations"])
    (remark,) = result.remarks
    assert (remark.kind, remark.count) == ("other_categories", 1)
    assert remark.what.endswith("is neither trained on nor evaluated: hexagon (1)")
