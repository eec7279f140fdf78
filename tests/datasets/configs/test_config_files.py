"""Faults of COCO files are told before MMDetection reads them, and what it would stumble over is mended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="the configs need MMDetection")

from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.utils import register_all_modules
from mmengine.config import Config
from PIL import Image

from dtn_det.datasets.configs import files as config_files
from dtn_det.datasets.configs.files import check_files, explain_failure
from dtn_det.errors import InputError

Content = dict[str, Any]
LOADERS = ["train_dataloader", "test_dataloader"]


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register_all_modules()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of which the last has no objects."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for number in range(3):
        (folder / "images" / f"{number}.jpg").write_bytes(b"an image")
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 40, "width": 40} for number in range(3)]
    box = {"bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 0, "category_id": 1}
    objects = [{"id": number + 1, "image_id": number, **box} for number in range(2)]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "disc"}]}
    (folder / "a.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def cfg(root: Path) -> Config:
    dataset = {
        "type": "CocoDataset",
        "data_root": f"{root}/",
        "ann_file": "a.json",
        "data_prefix": {"img": "images/"},
        "metainfo": {"classes": ("disc",)},
    }
    metric = {"type": "CocoMetric", "ann_file": str(root / "a.json")}
    loaders = {"train_dataloader": {"dataset": dataset}, "test_dataloader": {"dataset": {**dataset, "test_mode": True}}}
    return Config({"default_scope": "mmdet", **loaders, "test_evaluator": [metric]})


def change(root: Path, how: Callable[[Content], object]) -> None:
    content = json.loads((root / "a.json").read_text())
    how(content)
    (root / "a.json").write_text(json.dumps(content))


def test_sound_files_are_left_as_they_are(cfg: Config, tmp_path: Path) -> None:
    before = cfg.pretty_text
    assert check_files(cfg, LOADERS, tmp_path / "work") == ()
    assert cfg.pretty_text == before
    assert not (tmp_path / "work").exists()


FAULTS: list[tuple[Callable[[Content], object], str]] = [
    (lambda content: content.update(annotations=[]), "expected objects in .*, got none in 3 images: there is nothing"),
    (
        lambda content: content["images"].append({**content["images"][0], "height": 41}),
        "expected each id once in .*, got two that differ, .* in image 0: mend the file",
    ),
    (lambda content: content.update(images=[]), "expected images in .*, got none: name another file"),
    (
        lambda content: content["annotations"][0].update(bbox=[1, 2]),
        "expected a box of four numbers of each annotati",
    ),
    (lambda content: content["images"][1].update(file_name="9.jpg"), "got 1 of . missing, such as .*9.jpg: fetch them"),
]


@pytest.mark.parametrize(("how", "message"), FAULTS)
@pytest.mark.parametrize("large", [False, True])
def test_faults_are_told(
    how: Callable[[Content], object],
    message: str,
    large: bool,
    cfg: Config,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the run, and of large files where it has failed."""
    assert explain_failure(cfg, LOADERS) is None
    change(root, how)
    if large:
        monkeypatch.setattr(config_files, "LARGEST", 10)
        (remark,) = check_files(cfg, LOADERS, tmp_path)
        file = root / "a.json"
        assert remark.sentence() == (
            f"{file}: 1 file of 0 MB was not checked before the run; `dtn-det check {file}` checks it"
        )
        with pytest.raises(InputError, match=message):
            raise InputError(explain_failure(cfg, LOADERS))
    else:
        with pytest.raises(ValueError, match=message):
            check_files(cfg, LOADERS, tmp_path)
        assert explain_failure(cfg, LOADERS) is None


DROPPED = {
    "area 0": ({"area": 0}, "2 with an area of 0 or less"),
    "thin": ({"bbox": [1, 2, 0.5, 20]}, "2 with a side of less than 1 pixel"),
    "outside": ({"bbox": [40, 2, 10, 20]}, "all outside their images"),
    "ignored": ({"ignore": 1}, "2 with iscrowd or ignore set"),
}


@pytest.mark.parametrize(("fields", "reason"), DROPPED.values(), ids=DROPPED)
def test_objects_that_mmdetection_drops_are_told_and_nothing_left_is_refused(
    fields: Content, reason: str, cfg: Config, root: Path, tmp_path: Path
) -> None:
    def trained() -> int:
        """Count the objects that MMDetection itself trains on."""
        settings = {key: value for key, value in cfg.train_dataloader.dataset.items() if key != "type"}
        infos = CocoDataset(**settings, pipeline=[], serialize_data=False).load_data_list()
        return sum(not one["ignore_flag"] for info in infos for one in info["instances"])

    change(root, lambda content: content["annotations"][0].update(fields))
    assert trained() == 1
    kinds = {remark.kind: remark for remark in check_files(cfg, LOADERS, tmp_path)}
    kind = "ignored_in_training" if "ignore" in fields else "dropped_in_training"
    assert kinds[kind].count == 1
    assert "no object is left" not in kinds[kind].what
    change(root, lambda content: content["annotations"][1].update(fields))
    assert trained() == 0
    with pytest.raises(InputError, match=rf"objects that MMDetection trains on in .*2 that it drops \({reason}\): "):
        check_files(cfg, LOADERS, tmp_path)
    # Evaluation counts them.
    told = [remark for remark in check_files(cfg, ["test_dataloader"], tmp_path) if remark.kind == kind]
    assert [remark.count for remark in told] == [2]
    if kind == "dropped_in_training":
        assert "no object is left to train on, so tools/train.py refuses the file" in told[0].what


def test_small_images_that_a_filter_drops_are_refused(cfg: Config, root: Path, tmp_path: Path) -> None:
    cfg.train_dataloader.dataset.filter_cfg = {"min_size": 40}
    assert check_files(cfg, LOADERS, tmp_path) == ()
    cfg.train_dataloader.dataset.filter_cfg = {"min_size": 41}
    with pytest.raises(InputError, match=r"\(2 in an image with a side below filter_cfg.min_size=41\): lower"):
        check_files(cfg, LOADERS, tmp_path)


def test_polygons_that_mmdetection_does_not_read(cfg: Config, root: Path, tmp_path: Path) -> None:
    """LoadAnnotations ignores an object whose polygons have an odd number of values or fewer than three points."""
    steps = [{"type": LoadImageFromFile}, {"type": LoadAnnotations, "with_bbox": True, "with_mask": True}]
    cfg.train_dataloader.dataset.pipeline = steps
    for row in json.loads((root / "a.json").read_text())["images"]:
        Image.new("RGB", (row["width"], row["height"])).save(root / "images" / row["file_name"])
    good, odd, short = [1, 2, 11, 2, 11, 22, 1, 22], [1, 2, 11, 2, 11, 22, 1], [1, 2, 11, 2, 1]

    def write(*masks: list[list[int]]) -> int:
        """Write a mask for each object, and count the objects that MMDetection itself reads."""
        rows = json.loads((root / "a.json").read_text())["annotations"]
        change(
            root,
            lambda content: content.update(
                annotations=[{**row, "segmentation": mask} for row, mask in zip(rows, masks, strict=True)]
            ),
        )
        settings = {
            key: value for key, value in cfg.train_dataloader.dataset.items() if key not in ("type", "pipeline")
        }
        data = CocoDataset(**settings, pipeline=steps, serialize_data=False)
        return sum(int((~one["gt_ignore_flags"]).sum()) for one in map(data.__getitem__, range(len(data))))

    assert write([good, odd], [good]) == 2
    assert not [one for one in check_files(cfg, LOADERS, tmp_path) if one.kind == "masks_unread_in_training"]
    assert write([odd], [good]) == 1
    kinds = {remark.kind: remark for remark in check_files(cfg, LOADERS, tmp_path)}
    assert kinds["masks_unread_in_training"].count == 1
    assert write([odd, short], [odd]) == 0
    with pytest.raises(
        InputError, match=r"polygons that MMDetection reads in .*got 2 objects whose polygons have an odd"
    ):
        check_files(cfg, LOADERS, tmp_path)


def test_json_in_another_encoding(cfg: Config, root: Path, tmp_path: Path) -> None:
    (root / "a.json").write_bytes('{"images": [{"file_name": "图像文件.jpg"}]}'.encode("gbk"))
    with pytest.raises(
        ValueError, match=r"expected JSON in UTF-8 in .*a\.json, got text in another encoding .*iconv -f"
    ):
        check_files(cfg, LOADERS, tmp_path)


@pytest.mark.parametrize("text", ["", "no JSON", "{'images': []}", '{"images": []}}'])
def test_files_that_are_no_json(text: str, cfg: Config, root: Path, tmp_path: Path) -> None:
    (root / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"expected JSON in .*a\.json, got something else .*: name another file"):
        check_files(cfg, LOADERS, tmp_path)


def test_a_file_that_is_cut_off_anywhere_is_told_so(cfg: Config, root: Path, tmp_path: Path) -> None:
    content = {"images": [{"file_name": "é\n.jpg", "w": -1.5e-9, "t": [True, False, None]}]}
    for whole in (json.dumps(content), json.dumps(content, ensure_ascii=False)):
        for end in range(1, len(whole.encode())):
            (root / "a.json").write_bytes(whole.encode()[:end])
            message = rf"expected JSON in .*a\.json, got a file of {end} bytes that ends early, .*: fetch it again"
            with pytest.raises(ValueError, match=message):
                check_files(cfg, LOADERS, tmp_path)


def test_images_that_are_not_read_need_not_be_there(cfg: Config, root: Path, tmp_path: Path) -> None:
    (root / "images" / "2.jpg").unlink()
    with pytest.raises(InputError, match="got 1 of 3 missing"):
        check_files(cfg, ["train_dataloader"], tmp_path)
    cfg.train_dataloader.dataset.filter_cfg = {"filter_empty_gt": True}
    assert check_files(cfg, ["train_dataloader"], tmp_path) == ()
    with pytest.raises(InputError, match="got 1 of 3 missing"):
        check_files(cfg, ["test_dataloader"], tmp_path)
    for settings in ({"indices": 2}, {"backend_args": {"backend": "petrel"}}):
        cfg.test_dataloader.dataset.update(settings)
        assert check_files(cfg, ["test_dataloader"], tmp_path) == ()


def test_mmdetection_gets_a_copy_of_what_it_would_stumble_over(cfg: Config, root: Path, tmp_path: Path) -> None:
    """An object without an area is a KeyError there."""
    change(root, lambda content: content["annotations"][0].pop("area"))

    def boxes() -> list[Any]:
        settings = {key: value for key, value in cfg.train_dataloader.dataset.items() if key != "type"}
        return [
            info["instances"] for info in CocoDataset(**settings, pipeline=[], serialize_data=False).load_data_list()
        ]

    with pytest.raises(KeyError, match="area"):
        boxes()
    (remark,) = check_files(cfg, LOADERS, tmp_path / "work")
    assert remark.kind == "areas_filled"
    copy = str(tmp_path / "work" / "annotations" / "a.json")
    assert cfg.train_dataloader.dataset.ann_file == cfg.test_dataloader.dataset.ann_file == copy
    assert cfg.test_evaluator[0].ann_file == copy
    assert [len(found) for found in boxes()] == [1, 1, 0]
    shutil.rmtree(root / "images")


def test_other_configs_are_passed_over(cfg: Config, root: Path, tmp_path: Path) -> None:
    change(root, lambda content: content.update(annotations=[]))
    for settings in ({"type": "VOCDataset"}, {"type": "CocoDataset", "ann_file": "elsewhere.json"}):
        cfg.train_dataloader.dataset.update(settings)
        assert check_files(cfg, ["train_dataloader", "no_dataloader"], tmp_path) == ()
    cfg.default_scope = "mmpretrain"
    assert check_files(cfg, LOADERS, tmp_path) == ()


@pytest.mark.parametrize("reader", ["pipeline", "evaluator"])
def test_objects_without_masks_are_told_before_masks_are_read(cfg: Config, root: Path, reader: str) -> None:
    if reader == "pipeline":
        cfg.train_dataloader.dataset.pipeline = [{"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}]
    else:
        cfg.test_evaluator[0].metric = ["bbox", "segm"]
    with pytest.raises(InputError, match=r"got 2 of 2 objects without, such as annotation 1 of image 0: add them"):
        check_files(cfg, LOADERS, root)
    content = json.loads((root / "a.json").read_text())
    for row in content["annotations"]:
        row["segmentation"] = [[1, 2, 11, 2, 11, 22, 1, 22]]
    (root / "a.json").write_text(json.dumps(content))
    assert check_files(cfg, LOADERS, root) == ()
