from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from coco_reference import detections, pycocotools_stats
from odd_coco_files import ODD_FILES, expected_content, odd_content, plain_content, text_of

pytest.importorskip("pycocotools")

from dtn_det.datasets.coco import read_coco_file
from dtn_det.datasets.coco.shapes import read_mask
from dtn_det.datasets.coco.values import evaluation_ids
from dtn_det.errors import AnnotationError

TAKEN = [name for name, odd in ODD_FILES.items() if odd.refusal is None or odd.boxes_only]


def write(path: Path, content: object) -> Path:
    path.write_text(text_of(content))
    return path


@pytest.mark.parametrize("name", TAKEN)
def test_what_pycocotools_evaluates_keeps_its_numbers(name, tmp_path):
    odd, expected = ODD_FILES[name], expected_content(name)
    found = read_coco_file(write(tmp_path / "coco.json", odd_content(name)))
    ids = [row["id"] for row in odd_content(name)["images"]]
    plain = [row["id"] for row in expected["images"]]
    swap = dict(zip(plain, ids, strict=True))
    results = [one for one in detections(expected) if one["image_id"] in swap]
    ours = [{**one, "image_id": swap[one["image_id"]]} for one in results]
    right = pycocotools_stats(expected, results, "bbox")
    np.testing.assert_allclose(pycocotools_stats(found.content(), ours, "bbox"), right, atol=1e-9)
    assert 0.1 < right[0] < 0.95
    faults = {"unusable_masks"} if odd.refusal else set()
    assert {remark.kind for remark in found.remarks} == {*odd.remarks, *faults}
    if not odd.boxes_only:
        masks = pycocotools_stats(expected, results, "segm")
        np.testing.assert_allclose(pycocotools_stats(found.content(), ours, "segm"), masks, atol=1e-9)
        assert masks[0] > 0.05


@pytest.mark.parametrize("name", [name for name, odd in ODD_FILES.items() if odd.refusal is not None])
def test_the_rest_is_refused_with_file_and_object(name, tmp_path):
    odd, path = ODD_FILES[name], write(tmp_path / "coco.json", odd_content(name))
    with pytest.raises(AnnotationError) as caught:
        read_coco_file(path).check_masks()
    assert odd.refusal in str(caught.value)
    assert str(path) in str(caught.value)
    assert str(caught.value).startswith("expected ")


def test_the_advice_on_masks_that_are_text_mends_them():
    runs = r"^\m23"
    text = str(runs.encode())
    assert text == r"b'^\\m23'"
    mask = read_mask({"size": [4, 4], "counts": text})
    assert "Python bytes" in mask.fault
    assert mask.advice.endswith("ast.literal_eval(counts).decode()")
    assert ast.literal_eval(text).decode() == runs
    flat = read_mask([1, 2, 3, 4, 5, 6])
    assert (flat.fault, flat.advice) == (
        "a flat list of coordinates in place of a list of polygons",
        "put it in one more pair of []",
    )


def test_files_that_are_no_coco_files(tmp_path):
    path = tmp_path / "coco.json"
    for text, message in (
        ("{", "expected JSON in"),
        ("[]", "lists are what detectors write"),
        ('{"images": []}', "expected images in"),
        ("\x80", "expected JSON in"),
        ("[" * 10**5, "expected JSON in"),
    ):
        path.write_bytes(text.encode("latin1"))
        with pytest.raises(AnnotationError, match=message):
            read_coco_file(path)


def test_a_byte_order_mark_and_utf16_are_read(tmp_path):
    content = odd_content("plain")
    content["categories"][0]["name"] = "Scheibe für Übungen"
    for encoding in ("utf-8-sig", "utf-16"):
        path = tmp_path / "coco.json"
        path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
        found = read_coco_file(path)
        assert found.categories[0]["name"] == "Scheibe für Übungen"
        assert found.changed


def test_backslashes_become_slashes_only_where_that_file_is_there(tmp_path):
    content = odd_content("plain")
    names = [row["file_name"] for row in content["images"]]
    for row in content["images"]:
        row["file_name"] = row["file_name"].replace("/", "\\")
    path = write(tmp_path / "coco.json", content)
    assert read_coco_file(path, tmp_path).images[0]["file_name"] == "sub\\1.jpg"
    (tmp_path / "sub").mkdir()
    for name in names[1:]:
        (tmp_path / name).touch()
    (tmp_path / "sub\\2.jpg").touch()
    found = read_coco_file(path, tmp_path)
    assert [row["file_name"] for row in found.images] == ["sub\\1.jpg", "sub\\2.jpg", *names[2:]]
    assert [(remark.kind, remark.count) for remark in found.remarks] == [("backslashes", 4)]
    assert found.changed


def test_a_plain_file_is_handed_on_as_it_is(tmp_path):
    path = write(tmp_path / "coco.json", odd_content("plain"))
    found = read_coco_file(path)
    assert not found.changed
    assert not found.remarks
    assert found.content() == json.loads(path.read_text())


def test_compressed_run_lengths_of_any_mask_are_counted_as_coco_does():
    from pycocotools import mask as masks

    rng = np.random.default_rng(0)
    for share in (0.001, 0.01, 0.5, 1):
        bits = np.asfortranarray(rng.random((70, 90)) < share, np.uint8)
        runs = masks.encode(bits)
        value = {"size": runs["size"], "counts": runs["counts"].decode()}
        assert read_mask(value).value is value
        for wrong in (value["counts"][:-1], value["counts"] + "1", value["counts"] + "!", "é"):
            assert read_mask({**value, "counts": wrong}).fault is not None


def test_sizes_that_the_file_lacks_are_those_of_the_images_as_they_are_turned(tmp_path):
    from PIL import Image

    content = odd_content("plain")
    (tmp_path / "sub").mkdir()
    for row in content["images"][:3]:
        exif = Image.Exif()
        exif[274] = 6 if row["id"] == 2 else 1
        Image.new("RGB", (64, 48)).save(tmp_path / row["file_name"], exif=exif)
    content["images"][0].update(width=None)
    del content["images"][1]["height"], content["images"][3]["height"]
    content["images"][2].update(width=0)
    found = read_coco_file(write(tmp_path / "coco.json", content), tmp_path)
    sizes = [(row.get("height"), row.get("width")) for row in found.images]
    assert sizes == [(48, 64), (64, 48), (48, 64), (None, 640), (480, 640), (480, 640)]
    assert [(remark.kind, remark.count) for remark in found.remarks] == [("sizes_filled", 3)]


def test_captions_and_panoptic_segments_are_no_objects(tmp_path):
    content = odd_content("plain")
    content["annotations"] = [{"id": 1, "image_id": 1, "caption": "a disc"}]
    del content["categories"]
    found = read_coco_file(write(tmp_path / "coco.json", content))
    assert found.annotations == ()
    assert found.content()["annotations"] == content["annotations"]


def test_images_and_boxes_that_are_hardly_meant_so_are_told(tmp_path):
    def remarks(change):
        content = plain_content()
        change(content)
        return {one.kind: one.count for one in read_coco_file(write(tmp_path / "a.json", content)).remarks}

    def boxes(way):
        return lambda content: [row.update(bbox=way(row["bbox"])) for row in content["annotations"]]

    assert remarks(lambda content: None) == {}
    assert remarks(lambda content: content["images"].append({**content["images"][0], "id": 99})) == {"same_files": 1}
    fractions = remarks(boxes(lambda box: [box[0] / 640, box[1] / 480, box[2] / 640, box[3] / 480]))
    crowds = sum(row.get("iscrowd", 0) for row in plain_content()["annotations"])
    assert fractions == {"boxes_of_fractions": 26, "dropped_in_training": 26 - crowds}
    content = plain_content()
    corners = [(x + x + w > 640 or y + y + h > 480) for x, y, w, h in (row["bbox"] for row in content["annotations"])]
    assert sum(corners) > 3
    found = remarks(boxes(lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]))
    assert found["boxes_beyond_image"] == pytest.approx(sum(corners), abs=1)
    polygon = [600, 400, 700, 400, 700, 500, 600, 500]
    beyond = {"bbox": [600, 400, 100, 100], "segmentation": [polygon], "area": 1e4}
    # A few boxes leave their image in many sets.
    assert remarks(lambda content: content["annotations"][0].update(beyond)) == {}


def test_ids_keep_their_order_in_the_evaluation():
    assert evaluation_ids([5, 3, 0]) == {5: 5, 3: 3, 0: 0}
    assert evaluation_ids([5, -3, 0]) == {-3: 1, 0: 2, 5: 3}
    assert evaluation_ids(["b", "10", "9"]) == {"10": 1, "9": 2, "b": 3}
    assert evaluation_ids([2**63 + 1, 4, 1.5]) == {1.5: 1, 4: 2, 2**63 + 1: 3}
