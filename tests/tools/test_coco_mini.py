"""The COCO configs as they are, at full width, train and test on real photographs with their real annotations.

Only paths, schedule and image scale are set on the command line, and no weights are downloaded.
"""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from config_catalog import CONFIGS
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from test_tools_run import scalars

from dtn_det.training import launch
from dtn_det.training.config import load_config

MASK_RCNN = "mask-rcnn_dtn-swin-t-p4-w7_fpn_1x_coco"
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
SCALE = "(192,128)"


@pytest.fixture(scope="module")
def coco_mini(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of COCO with their official annotations; the first image of each split has lost its own."""
    source = shared_dir / "data" / "coco_mini"
    if not source.is_dir():
        pytest.skip(f"no images of COCO at {source}")
    root = tmp_path_factory.mktemp("coco_mini")
    (root / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (root / split).symlink_to(source / split)
        content = json.loads((source / "annotations" / f"instances_{split}.json").read_text())
        first = content["images"][0]["id"]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != first]
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def crowd_images(root: Path, split: str) -> list[int]:
    """Positions of the images with a crowd region, in the order of the annotation file."""
    content = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    crowded = {a["image_id"] for a in content["annotations"] if a["iscrowd"]}
    return [position for position, image in enumerate(content["images"]) if image["id"] in crowded]


def options(train: list[int] | None, val: list[int] | None) -> list[str]:
    """Images of a split by position, or all of it; small images; workers in this process; no download."""
    values: dict[str, Any] = {
        "model.backbone.init_cfg": None,
        "model.test_cfg.rcnn.score_thr": 0.0,
        "model.test_cfg.rcnn.max_per_img": 20,
        "model.test_cfg.rpn.max_per_img": 100,
        "model.train_cfg.rpn_proposal.max_per_img": 100,
        "model.train_cfg.rcnn.sampler.num": 32,
        "train_cfg.max_epochs": 1,
        "default_hooks.logger.interval": 1,
        # Two thirds of the file, which nothing here reads.
        "default_hooks.checkpoint.save_optimizer": False,
        "train_dataloader.dataset.pipeline.2.scale": SCALE,
        "val_dataloader.dataset.pipeline.1.scale": SCALE,
        "test_dataloader.dataset.pipeline.1.scale": SCALE,
        "visualizer.name": f"coco_mini_{train is None}",
    }
    for loader in LOADERS:
        values[f"{loader}.num_workers"] = 0
        values[f"{loader}.persistent_workers"] = False
        positions = train if loader == "train_dataloader" else val
        if positions is not None:
            values[f"{loader}.dataset.indices"] = "[" + ",".join(map(str, positions)) + "]"
    return ["--cfg-options", *(f"{key}={value}" for key, value in values.items())]


def train_and_test(
    root: Path, work_dir: Path, tools: tuple[ModuleType, ModuleType], settings: list[str], iterations: int, images: int
) -> None:
    train, test = tools
    config = str(CONFIGS[MASK_RCNN])
    common = ["--data-root", str(root), "--work-dir", str(work_dir), *settings]
    torch.manual_seed(0)
    assert train.main([config, *common]) == 0
    log = scalars(work_dir)
    losses = [entry for entry in log if "loss_mask" in entry]
    assert [entry["step"] for entry in losses] == list(range(1, iterations + 1))
    assert all(math.isfinite(entry["loss"]) for entry in losses)
    (evaluation,) = [entry for entry in log if "coco/bbox_mAP" in entry]

    predictions = work_dir / "predictions.pkl"
    assert test.main([config, str(work_dir / "epoch_1.pth"), "--out", str(predictions), *common]) == 0
    (metrics_file,) = [path for path in work_dir.glob("*/*.json") if path.parent.name == path.stem]
    metrics = json.loads(metrics_file.read_text())
    for key in ("coco/bbox_mAP", "coco/segm_mAP"):
        assert 0 <= metrics[key] <= 1
        assert metrics[key] == pytest.approx(evaluation[key], abs=2e-3)
    found = pickle.loads(predictions.read_bytes())
    assert len(found) == images
    first = json.loads((root / "annotations" / "instances_val2017.json").read_text())["images"][0]["id"]
    assert first in {result["img_id"] for result in found}
    assert all(len(result["pred_instances"]["masks"]) == len(result["pred_instances"]["bboxes"]) for result in found)


def test_coco_config_reads_crowds_and_leaves_out_images_without_objects(coco_mini: Path) -> None:
    cfg = load_config(str(CONFIGS[MASK_RCNN]))
    launch.set_data_root(cfg, str(coco_mini))
    register_all_modules()
    content = json.loads((coco_mini / "annotations" / "instances_train2017.json").read_text())
    train = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(train) == len(content["images"]) - 1
    position = crowd_images(coco_mini, "train2017")[0]
    image = content["images"][position]["id"]
    crowds = [a["iscrowd"] for a in content["annotations"] if a["image_id"] == image]
    sample = train[position - 1]["data_samples"]
    assert sample.img_id == image
    assert len(sample.ignored_instances) == sum(crowds) > 0
    assert len(sample.gt_instances) == len(crowds) - sum(crowds)
    assert len(sample.gt_instances.masks) == len(sample.gt_instances)
    assert len(DATASETS.build(cfg.val_dataloader.dataset)) == len(list((coco_mini / "val2017").iterdir()))


def test_coco_config_trains_and_tests_on_a_few_images(
    coco_mini: Path, tmp_path: Path, train_tool: ModuleType, test_tool: ModuleType
) -> None:
    train_crowds, val_crowds = crowd_images(coco_mini, "train2017"), crowd_images(coco_mini, "val2017")
    assert len(train_crowds) >= 2
    assert val_crowds
    # The config leaves images without objects, here the first, out of training before positions are counted.
    settings = options([position - 1 for position in train_crowds[:2]], [0, val_crowds[0]])
    train_and_test(coco_mini, tmp_path, (train_tool, test_tool), settings, iterations=1, images=2)


@pytest.mark.slow
def test_coco_config_trains_and_tests_on_all_images(
    coco_mini: Path, tmp_path: Path, train_tool: ModuleType, test_tool: ModuleType
) -> None:
    sizes = {
        split: len(json.loads((coco_mini / "annotations" / f"instances_{split}.json").read_text())["images"])
        for split in ("train2017", "val2017")
    }
    with_objects = sizes["train2017"] - 1
    settings = options(None, None)
    iterations = math.ceil(with_objects / 2)
    train_and_test(coco_mini, tmp_path, (train_tool, test_tool), settings, iterations, sizes["val2017"])
