"""Each command that reads COCO files gives the same answer on the same file."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mmdet", reason="detectors need MMDetection")
pytest.importorskip("pycocotools")


from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import init_default_scope
from odd_coco_files import ODD_FILES, expected_content, odd_content, plain_content, text_of
from PIL import Image

from dtn_det.corrupted_folders.layouts import list_coco
from dtn_det.datasets.coco import read_coco_file
from dtn_det.datasets.coco.values import identifier
from dtn_det.datasets.configs.files import check_files
from dtn_det.errors import AnnotationError
from dtn_det.metrics import METRICS, average_precision
from dtn_det.robustness.detection.data import read_data
from dtn_det.robustness.detection.evaluation import CellDetections, CocoScorer, try_evaluation

CLASSES = ("disc", "square", "bar")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of the images of the odd files."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "sub").mkdir()
    (folder / "annotations").mkdir()
    for number in range(1, 7):
        Image.new("RGB", (640, 480)).save(folder / f"sub/{number}.jpg")
    return folder


def config(folder: Path, name: str) -> Config:
    init_default_scope("mmdet")
    dataset = {"type": "CocoDataset", "data_root": str(folder), "ann_file": name, "data_prefix": {"img": ""}}
    dataset |= {"metainfo": {"classes": CLASSES}, "pipeline": [{"type": "LoadImageFromFile"}], "test_mode": True}
    evaluator = {"type": "CocoMetric", "metric": ["bbox", "segm"]}
    return Config({"test_dataloader": {"dataset": dataset}, "test_evaluator": evaluator})


def answers(folder: Path, name: str) -> list[object]:
    """What reader, `mpc`, `tools/` and `corrupt` say: image ids in order, or their sentence."""
    path = folder / name

    def by_reader() -> list[str]:
        file = read_coco_file(path, folder)
        file.check_masks()
        return [str(row["id"]) for row in file.images]

    def by_mpc() -> list[str]:
        data = read_data(config(folder, name), "test")
        data.file.check_masks()
        try_evaluation(data.file.path, data.truth, masks=data.truth.has_masks)
        assert [f"{folder}/{one.file}" for one in data.truth.images] == [
            data.dataset.get_data_info(index)["img_path"].replace("/./", "/") for index in data.indices
        ]
        return [one.key for one in data.truth.images]

    def by_tools() -> list[str]:
        cfg = config(folder, name)
        # MMDetection asks each object for its mask, where mpc evaluates boxes alone.
        if '"segmentation": [[' not in path.read_text() and '"segmentation": {' not in path.read_text():
            cfg.test_evaluator.metric = "bbox"
        check_files(cfg, ["test_dataloader"], folder / "work")
        settings = cfg.test_dataloader.dataset
        content = json.loads((folder / settings.ann_file).read_text())
        return [str(identifier(row["id"])) for row in content["images"]]

    def by_corrupt() -> list[str]:
        source = list_coco(folder, [path])
        return [str(image.key) for image in sorted(source.images, key=lambda image: image.target.name)]

    found: list[object] = []
    for ask in (by_reader, by_mpc, by_tools, by_corrupt):
        try:
            found.append(ask())
        except AnnotationError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("name", ODD_FILES)
def test_reader_mpc_tools_and_corrupt_agree(name, images):
    (images / "annotations/odd.json").write_text(text_of(odd_content(name)))
    reader, mpc, tools, corrupt = answers(images, "annotations/odd.json")
    assert reader == mpc == tools
    if ODD_FILES[name].refusal is None:
        assert len(reader) == 6
    else:
        assert ODD_FILES[name].refusal in reader
    # Faults of masks alone hinder neither `corrupt` nor detectors of boxes.
    if ODD_FILES[name].refusal is None or not ODD_FILES[name].boxes_only:
        assert corrupt == reader
    else:
        assert len(corrupt) == 6


def test_mpc_and_tools_tell_of_objects_that_the_config_leaves_out(images):
    content = plain_content()
    bars = [row for row in content["annotations"] if row["category_id"] == 7]
    bars[0].update(bbox=[5, 5, 0, 9], segmentation=[1, 2, 3, 4, 5, 6])
    (images / "annotations/part.json").write_text(json.dumps(content))
    cfg = config(images, "annotations/part.json")
    cfg.test_dataloader.dataset.metainfo.classes = ("disc", "square")
    data = read_data(cfg, "test")
    objects = [row for image in data.truth.images for row in json.loads(image.annotations)]
    assert len(objects) == len(content["annotations"]) - len(bars)
    for remarks in (data.remarks, check_files(cfg, ["test_dataloader"], images / "work")):
        assert [(one.kind, one.count) for one in remarks] == [("other_categories", len(bars))]
        assert remarks[0].what.endswith(f"neither trained on nor evaluated: bar ({len(bars)})")
    data.file.check_masks()
    # Without a list of classes in the config, those of CocoDataset count.
    names = CocoDataset.METAINFO["classes"]
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate((*names, "hexagon"), 1)]
    for place, row in enumerate(content["annotations"]):
        row["category_id"] = 81 if place < 2 else 1
    (images / "annotations/part.json").write_text(json.dumps(content))
    cfg = config(images, "annotations/part.json")
    del cfg.test_dataloader.dataset["metainfo"]
    (remark,) = [one for one in read_data(cfg, "test").remarks if one.kind == "other_categories"]
    assert remark.count == 2
    assert "built into the type of the data set" in remark.what


@pytest.mark.parametrize("name", [name for name, odd in ODD_FILES.items() if odd.refusal is None])
def test_the_numbers_of_mpc_are_those_of_pycocotools(name, images):
    from coco_reference import detections, pycocotools_stats
    from pycocotools import mask

    (images / "annotations/odd.json").write_text(text_of(odd_content(name)))
    data = read_data(config(images, "annotations/odd.json"), "test")
    content = expected_content(name)
    listed = {row["id"] for row in content["images"]}
    rows = [one for one in detections(content) if one["image_id"] in listed and one["category_id"] != 777]
    # Boxes as float32 holds them, and masks of them.
    for row in rows:
        row["bbox"] = np.float32(row["bbox"]).astype(float).tolist()
        x, y, w, h = row["bbox"]
        runs = mask.merge(mask.frPyObjects([[x, y, x, y + h, x + w, y + h, x + w, y]], 480, 640))
        row["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
        row["score"] = float(np.float32(row["score"]))
    places: dict[object, int] = {}
    for row in content["images"]:
        places.setdefault(row["id"], len(places))
    labels = {row["id"]: CLASSES.index(row["name"]) for row in content["categories"]}
    order = [data.truth.categories[label][1] for label in range(3)]
    labels = {key: order.index(CLASSES[label]) for key, label in labels.items()}
    boxes = np.array([row["bbox"] for row in rows])
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([row["score"] for row in rows])
    found = CellDetections(
        0,
        np.array([places[row["image_id"]] for row in rows], np.int32),
        boxes,
        scores,
        np.array([labels[row["category_id"]] for row in rows], np.int32),
        np.array([row["segmentation"]["counts"].encode() for row in rows], object) if data.truth.has_masks else None,
        scores,
    )
    scorer = CocoScorer(data.truth)
    for kind in ("bbox", "segm") if data.truth.has_masks else ("bbox",):
        values = np.nan_to_num(average_precision(scorer.matches(found, kind)), nan=-1)
        given = [
            {key: value for key, value in row.items() if key != ("bbox" if kind == "segm" else "segmentation")}
            for row in rows
        ]
        right = pycocotools_stats(content, given, kind)
        assert right[0] > 0.05
        np.testing.assert_allclose(values, right[: len(METRICS)], atol=1e-9, err_msg=str(METRICS))


def test_backslashes_of_windows(images):
    content = odd_content("plain")
    for row in content["images"]:
        row["file_name"] = row["file_name"].replace("/", "\\")
    (images / "annotations/odd.json").write_text(text_of(content))
    reader, mpc, tools, corrupt = answers(images, "annotations/odd.json")
    assert reader == mpc == tools == corrupt == ["1", "2", "3", "4", "5", "6"]
    data = read_data(config(images, "annotations/odd.json"), "test")
    assert data.truth.images[0].file == "sub/1.jpg"
    assert data.file_sizes() == [(images / f"sub/{number}.jpg").stat().st_size for number in range(1, 7)]
    source = list_coco(images, [images / "annotations/odd.json"])
    (written,) = source.annotations.values()
    assert json.loads(written)["images"][0]["file_name"] == "sub/1.jpg"
    assert [remark.kind for remark in source.remarks] == ["backslashes"]


def test_sizes_that_are_missing_come_from_the_images(images):
    content = odd_content("plain")
    for row in content["images"]:
        del row["height"]
    (images / "annotations/odd.json").write_text(text_of(content))
    data = read_data(config(images, "annotations/odd.json"), "test")
    assert {(one.height, one.width) for one in data.truth.images} == {(480, 640)}
    content["images"].append({"id": 9, "file_name": "sub/none.jpg"})
    (images / "annotations/odd.json").write_text(text_of(content))
    with pytest.raises(ValueError, match=r"expected the width and height of each image in .* got none, .* in image 9 "):
        read_data(config(images, "annotations/odd.json"), "test")


def test_a_trial_that_fails_names_the_object(images, monkeypatch):
    (images / "annotations/odd.json").write_text(text_of(odd_content("plain")))
    data = read_data(config(images, "annotations/odd.json"), "test")
    matches = CocoScorer.matches

    def choking(self, found, kind):
        if (found.boxes[:, 0] == 4).any() and kind == "segm":
            raise RuntimeError("bad alloc")
        return matches(self, found, kind)

    monkeypatch.setattr(CocoScorer, "matches", choking)
    try_evaluation(data.file.path, data.truth, masks=False)
    with pytest.raises(AnnotationError, match=r"of segm takes .*bad alloc in object 6 of image 2: mend the file"):
        try_evaluation(data.file.path, data.truth, masks=True)


def test_mmdetections_own_evaluation_of_text_ids_agrees(images):
    """Its data set and its metric read the same file, as `tools/test.py` lets them."""
    from mmdet.evaluation import CocoMetric

    (images / "annotations/odd.json").write_text(text_of(odd_content("all ids as text")))
    with contextlib.redirect_stdout(io.StringIO()):
        metric = CocoMetric(ann_file=str(images / "annotations/odd.json"))
        data = read_data(config(images, "annotations/odd.json"), "test")
    assert metric._coco_api.get_cat_ids(cat_names=CLASSES) == data.dataset.cat_ids == ["3", "1", "7"]
    assert data.truth.categories == ((2, "disc"), (1, "square"), (3, "bar"))
