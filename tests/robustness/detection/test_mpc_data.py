"""`dtn-det mpc` on what configs and annotation files say of the data: ids, protocols, parts, deep images."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("mmdet", reason="detectors need MMDetection")

from coco_summary import summaries
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from dtn_det.corrupted_folders.layouts import list_coco
from dtn_det.robustness.detection import run as detection_run
from dtn_det.robustness.detection.data import read_data
from dtn_det.robustness.detection.models.mmdetection import build_detector
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store import Store
from dtn_det.training.config import parse_options


@pytest.fixture
def root(coco, tmp_path) -> Path:
    return shutil.copytree(coco, tmp_path / "coco")


def change(root: Path, function) -> dict:
    path = root / "coco.json"
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))
    return content


def ids_as_text(content: dict) -> None:
    for rows, key in (
        ("images", "id"),
        ("annotations", "image_id"),
        ("categories", "id"),
        ("annotations", "category_id"),
    ):
        for row in content[rows]:
            row[key] = f"{row[key]:03d}" if rows == "images" or key == "image_id" else str(row[key])


def clean_ap(folder: Path) -> dict[str, float]:
    (model,) = Store.open(folder).models().values()
    return {kind: float(frame["AP"][0]) for kind, frame in summaries(model).items()}


def mmdetections_test(detector: tuple[str, str], root: Path) -> dict[str, float]:
    """The numbers of MMDetection's own data set, model and metric."""
    cfg = Config.fromfile(detector[0])
    init_default_scope("mmdet")
    from mmdet.evaluation import CocoMetric
    from mmdet.registry import DATASETS

    cfg.test_dataloader.dataset.data_root = str(root)
    settings = {**cfg.test_dataloader.dataset, "pipeline": [], "test_mode": True}
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = DATASETS.build(settings)
        # The metric of this package's reader gives three more numbers with 100 boxes, as COCO does.
        metric = CocoMetric(ann_file=str(root / "coco.json"), metric=["bbox", "segm"])
        metric.dataset_meta = dataset.metainfo
        model = build_detector(cfg, detector[1], torch.device("cpu")).model
        pipeline = Compose(list(cfg.test_dataloader.dataset.pipeline))
        for number in range(len(dataset)):
            packed = pipeline(dataset.get_data_info(number))
            with torch.no_grad():
                done = model.test_step({"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]})
            metric.process({}, [sample.to_dict() for sample in done])
        return metric.evaluate(len(dataset))


def test_ids_as_text_give_the_numbers_of_mmdetections_own_test(mpc, detector, root, tmp_path):
    # An id of 0 is what MMDetection counts wrongly.
    change(root, lambda content: [row.update(id=row["id"] + 1) for row in content["annotations"]])
    assert mpc("--data-root", str(root), store="numbers")[0] == 0
    change(root, ids_as_text)
    code, _, err = mpc("--data-root", str(root), store="texts")
    assert code == 0
    assert "note: " not in err
    texts = clean_ap(tmp_path / "texts")
    assert texts == pytest.approx(clean_ap(tmp_path / "numbers"), abs=1e-9)
    right = mmdetections_test(detector, root)
    assert right["coco/bbox_mAP"] == pytest.approx(texts["bbox"], abs=1e-3)
    assert right["coco/segm_mAP"] == pytest.approx(texts["segm"], abs=1e-3)
    truth = CocoTruth.of(Store.open(tmp_path / "texts"))
    assert [image.key for image in truth.images] == ["007", "017", "027", "037", "047"]
    # The random pattern follows from the id, in all commands.
    source = list_coco(root, [root / "coco.json"])
    assert [str(image.key) for image in source.images] == [image.key for image in truth.images]


def test_ids_of_64_unsigned_bits(mpc, root, tmp_path):
    def enlarge(content):
        for row in content["images"]:
            row["id"] += 2**63
        for row in content["annotations"]:
            row["image_id"] += 2**63

    assert mpc("--data-root", str(root), store="small")[0] == 0
    change(root, enlarge)
    assert mpc("--data-root", str(root), store="large")[0] == 0
    small, large = (CocoTruth.of(Store.open(tmp_path / name)) for name in ("small", "large"))
    assert [image.annotations for image in small.images] == [image.annotations for image in large.images]
    assert large.images[0].key == str(2**63 + 7)


def test_backslashes_are_read_and_told(mpc, root, tmp_path):
    (root / "images" / "part").mkdir()

    def move(content):
        for row in content["images"]:
            (root / "images" / row["file_name"]).rename(root / "images/part" / row["file_name"])
            row["file_name"] = f"part\\{row['file_name']}"

    change(root, move)
    code, _, err = mpc("--data-root", str(root))
    assert code == 0
    assert "note: " in err
    assert "5 file names with backslashes were read with slashes" in err
    remarks = {remark.kind: remark.count for remark in Store.open(tmp_path / "store").manifest.remarks}
    assert remarks == {"backslashes": 5, "annotation_id_zero": 1}


def test_a_fault_of_the_truth_is_told_before_the_first_image(mpc, root, tmp_path, monkeypatch):
    change(root, lambda content: content["annotations"][3].update(iscrowd=None))
    monkeypatch.setattr(detection_run, "run_sweep", None)
    code, _, err = mpc("--data-root", str(root))
    assert code == 1
    assert "got iscrowd None in annotation 3 of image 17" in err
    assert not (tmp_path / "store").exists()


def test_mended_annotations_keep_the_detections(mpc, root, tmp_path, monkeypatch):
    assert mpc("--data-root", str(root))[0] == 0
    before = Store.open(tmp_path / "store").manifest
    change(root, lambda content: [row.update(category_id=row["category_id"] % 3 + 1) for row in content["annotations"]])
    assert mpc("--data-root", str(root), store="anew")[0] == 0
    expected = clean_ap(tmp_path / "anew")

    def never(*args: object) -> None:
        raise AssertionError("the model was run again")

    units = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("models/*/unit-*")}
    code, _, err = mpc("--data-root", str(root))
    assert code == 0
    assert "the detections are of the same images and were kept" in err
    assert units == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("models/*/unit-*")}
    assert clean_ap(tmp_path / "store") == expected
    after = Store.open(tmp_path / "store").manifest
    assert after.earlier_data_hashes == (before.data_hash,)
    assert after.data_hash == Store.open(tmp_path / "anew").manifest.data_hash != before.data_hash
    (remark,) = [one for one in after.remarks if one.kind == "annotations_replaced"]
    assert remark.examples == (f"{before.data_hash[:12]} before, {after.data_hash[:12]} now",)
    # The same again is nothing new.
    assert "were kept" not in mpc("--data-root", str(root))[2]


def test_mended_annotations_of_a_store_of_an_earlier_version(mpc, root, tmp_path):
    assert mpc("--data-root", str(root))[0] == 0
    path = tmp_path / "store" / "store.json"
    values = json.loads(path.read_text())
    for key in ("images_hash", "earlier_data_hashes", "remarks"):
        del values[key]
    path.write_text(json.dumps(values))
    assert mpc("--data-root", str(root))[0] == 0
    change(root, lambda content: content["annotations"][0].update(category_id=2))
    code, _, err = mpc("--data-root", str(root))
    assert code == 0
    assert "were kept" in err
    # Other images are another store.
    change(root, lambda content: content["images"][0].update(id=8))
    code, _, err = mpc("--data-root", str(root))
    assert code == 1
    assert "data_hash" in err


def test_annotations_without_masks_do_not_replace_those_with(mpc, root):
    assert mpc("--data-root", str(root))[0] == 0
    change(root, lambda content: [row.pop("segmentation") for row in content["annotations"]])
    code, _, err = mpc("--data-root", str(root))
    assert code == 1
    assert "data_hash" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("test_evaluator.type=LVISMetric",), "got LVISMetric, whose numbers follow other rules"),
        (("test_evaluator.type=mmdet.VOCMetric",), "got VOCMetric, whose numbers follow other rules"),
        (("test_evaluator.type=CocoMetric", "test_evaluator.iou_thrs=[0.5]"), "got test_evaluator.iou_thrs=[0.5]"),
        (("test_evaluator.type=CocoMetric", "test_evaluator.metric=proposal"), "of test_evaluator, got proposal"),
        (("test_dataloader.dataset.type=LVISV05Dataset",), "got LVISV05Dataset, whose AP follows other rules"),
        (("test_dataloader.dataset.type=LVISV1Dataset",), "got LVISV1Dataset, whose AP follows other rules"),
        (("test_dataloader.dataset.type=CocoPanopticDataset",), "got CocoPanopticDataset, whose AP follows"),
    ],
)
def test_other_protocols_are_refused_by_name(detector, options, message):
    cfg = Config.fromfile(detector[0])
    init_default_scope("mmdet")
    cfg.test_evaluator = {"type": "CocoMetric"}
    cfg.merge_from_dict(parse_options(options))
    with pytest.raises(ValueError, match="expected") as caught:
        read_data(cfg, "test")
    assert message in str(caught.value)
    # What the message advises works.
    advised = str(caught.value).partition("--cfg-options ")[2].split()
    cfg.merge_from_dict(parse_options(advised))
    assert len(read_data(cfg, "test").indices) == 5


@pytest.mark.parametrize(
    ("evaluator", "told"),
    [
        ({"type": "CocoMetric", "metric": ["bbox", "segm"], "classwise": True}, []),
        ([{"type": "mmdet.CocoMetric"}, {"type": "DumpDetResults", "out_file_path": "x.pkl"}], []),
        ({"type": "CocoMetric", "proposal_nums": (100, 300, 1000)}, []),
        ({"type": "CocoMetric", "proposal_nums": (1, 10, 100)}, ["proposal_nums"]),
        ({"type": "CocoMetric", "format_only": True, "outfile_prefix": "x"}, ["format_only"]),
    ],
)
def test_options_of_the_evaluator_are_told_where_they_matter(detector, evaluator, told):
    cfg = Config.fromfile(detector[0])
    init_default_scope("mmdet")
    cfg.test_evaluator = evaluator
    found = read_data(cfg, "test").remarks
    assert [one.examples[0] for one in found if one.kind == "evaluator_options"] == told


def test_images_that_the_config_leaves_out_mark_every_number(mpc, tmp_path):
    code, out, err = mpc("--cfg-options", "test_dataloader.dataset.indices=2")
    assert code == 0
    assert "warning: " in err
    assert "3 images were left out by the config" in err
    assert "2 images (selection 2 of 5 images, " in out
    assert "(all" not in out
    titles = [title for kind in ("Boxes: every", "Masks: every", "of tiny under") for title in out.split(kind)[1:]]
    assert len(titles) == 4
    assert all("partial (2 of 5 images" in title[:90] for title in titles)
    manifest = Store.open(tmp_path / "store").manifest
    assert manifest.selection == "2 of 5 images"
    assert [remark.partial for remark in manifest.remarks if remark.kind == "images_narrowed"] == [True]
    code, _, err = mpc()
    assert code == 1
    assert "selection: the store has '2 of 5 images', this run 'all'" in err


def test_a_limit_of_a_part_and_an_image_twice(detector):
    cfg = Config.fromfile(detector[0])
    init_default_scope("mmdet")
    cfg.test_dataloader.dataset.indices = [1, 2, 3]
    assert read_data(cfg, "test", limit=2).selection == "limit=2 of 3 seed=0, 3 of 5 images"
    cfg.test_dataloader.dataset.indices = [1, 1]
    with pytest.raises(ValueError, match="got 1 twice: mend `indices` of the data set"):
        read_data(cfg, "test")


@pytest.mark.parametrize("wrapper", ["RepeatDataset", "ClassBalancedDataset", "ConcatDataset"])
def test_wrappers_that_repeat_or_join_are_refused(detector, wrapper):
    cfg = Config.fromfile(detector[0])
    init_default_scope("mmdet")
    inner = cfg.test_dataloader.dataset
    more = {"datasets": [inner]} if wrapper == "ConcatDataset" else {"dataset": inner}
    cfg.test_dataloader.dataset = {"type": wrapper, **more}
    with pytest.raises(ValueError, match=f"got '{wrapper}', which repeats, narrows or joins others: give it"):
        read_data(cfg, "test")


def test_16_bit_images_are_refused_with_type_and_range(mpc, root):
    def deepen(content):
        for row in content["images"]:
            path = root / "images" / row["file_name"]
            image = cv2.imread(str(path)).astype(np.uint16) * 16
            row["file_name"] = path.with_suffix(".png").name
            cv2.imwrite(str(path.with_suffix(".png")), image)

    change(root, deepen)
    deep = ("--cfg-options", "test_dataloader.dataset.pipeline.0.color_type=unchanged")
    code, _, err = mpc("--data-root", str(root), *deep)
    assert code == 1
    assert "000000000007.png" in err
    assert "expected whole numbers from 0 to 255, on which corruptions are defined, got uint16 from 0 to" in err
    # Read as MMDetection reads them by default, they are of 8 bits.
    assert mpc("--data-root", str(root))[0] == 0


def test_floats_of_whole_numbers_give_the_numbers_of_bytes(mpc, tmp_path):
    assert mpc("--cfg-options", "test_dataloader.dataset.pipeline.0.to_float32=True")[0] == 0
    assert mpc(store="bytes")[0] == 0
    assert clean_ap(tmp_path / "store") == pytest.approx(clean_ap(tmp_path / "bytes"), abs=1e-3)


def test_detectors_with_masks_in_their_box_head_are_known() -> None:
    """RTMDet-Ins has its masks in the box head, and MMDetection's own property does not count them."""
    from dtn_det.robustness.detection.models.mmdetection import gives_masks

    head = torch.nn.Module()
    model = torch.nn.ModuleDict({"bbox_head": head})
    assert not gives_masks(model)
    head.mask_head = torch.nn.Linear(1, 1)
    assert gives_masks(model)
