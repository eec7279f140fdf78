"""The tools train, resume and test classifiers, whose weights then start the detectors' backbones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import config_catalog as detectors
import numpy as np
import pytest
import torch
from classifier_catalog import ROOT, resolve, shrink
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from tool_scripts import load_tool

from dtn_det.layers import DTN

CLASSES = ("ant", "bee", "cat")
SIZE = 64


def write_images(root: Path, splits: Sequence[str], size: int, per_class: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for split in splits:
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(per_class):
                Image.fromarray(rng.integers(256, size=(size, size, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return root


def three_classes(cfg: Config) -> Config:
    """The shrunk config for the images of `write_images`, with small batches and no workers."""
    cfg = shrink(cfg)
    cfg.data_preprocessor.num_classes = len(CLASSES)
    head = cfg.model.model if cfg.model.type == "ConvertedModel" else cfg.model.head
    head.num_classes = len(CLASSES)
    cfg.val_evaluator.topk = cfg.test_evaluator.topk = (1,)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.checkpoint.interval = 1
    for name in ("train", "val", "test"):
        cfg[f"{name}_dataloader"].update(batch_size=4, num_workers=0, persistent_workers=False)
    return cfg


def imagenet(name: str) -> Config:
    """Of 64 pixels and three classes, with an average that moves within one epoch."""
    cfg = three_classes(resolve(name))
    for split in ("train", "val", "test"):
        dataset = cfg[f"{split}_dataloader"].dataset
        dataset.metainfo = {"classes": CLASSES}
        for step in dataset.pipeline:
            if "scale" in step:
                step.scale = SIZE
            if "crop_size" in step:
                step.crop_size = SIZE
    cfg.custom_hooks[0].momentum = 0.5
    return cfg


def dump(cfg: Config, folder: Path) -> Path:
    cfg.visualizer.name = f"classifier_{folder.name}"
    path = folder / "shrunk.py"
    cfg.dump(str(path))
    return path


def train_and_test(cfg: Config, data: Path, folder: Path) -> dict[str, torch.Tensor]:
    config, work = dump(cfg, folder), folder / "work"
    where = ["--data-root", str(data), "--work-dir", str(work)]
    assert load_tool("train").main([str(config), *where]) == 0
    assert load_tool("test").main([str(config), str(work / "epoch_1.pth"), *where]) == 0
    return torch.load(work / "epoch_1.pth", weights_only=False)


def test_vit_trains_with_an_average(tmp_path: Path) -> None:
    data = write_images(tmp_path / "imagenet", ("train", "val"), SIZE)
    cfg = imagenet("dtn-vit-tiny-p16_8xb128_in1k")
    cfg.model.model.update(img_size=SIZE, patch_size=16)
    checkpoint = train_and_test(cfg, data, tmp_path)
    average, plain = checkpoint["state_dict"], checkpoint["ema_state_dict"]
    assert "blocks.0.norm1.pos_proj.weight" in average  # the names of timm
    assert {*plain} == {"steps", *(f"module.{name}" for name in average)}
    assert not torch.equal(average["blocks.0.attn.qkv.weight"], plain["module.blocks.0.attn.qkv.weight"])
    where = ["--data-root", str(data), "--work-dir", str(tmp_path / "work")]
    longer = ["--cfg-options", "train_cfg.max_epochs=2", f"visualizer.name=again_{tmp_path.name}"]
    assert load_tool("train").main([str(tmp_path / "shrunk.py"), *where, *longer, "--resume"]) == 0
    resumed = torch.load(tmp_path / "work" / "epoch_2.pth", weights_only=False)["ema_state_dict"]
    assert resumed["steps"] == 2 * plain["steps"]


@pytest.mark.parametrize(
    ("classifier", "detector", "backbone"),
    [
        ("dtn-swin-tiny", "retinanet_dtn-swin-t-p4-w7_fpn_1x_coco", {"embed_dims": 24, "depths": (1, 2, 1, 1)}),
        ("dtn-pvt-tiny", "retinanet_dtn-pvt-t_fpn_1x_coco", {"num_layers": [1, 2, 1, 1], "pretrain_img_size": 224}),
    ],
    ids=["swin", "pvt"],
)
def test_classifier_starts_the_detector(
    classifier: str, detector: str, backbone: dict[str, object], tmp_path: Path
) -> None:
    data = write_images(tmp_path / "imagenet", ("train", "val"), SIZE)
    cfg = imagenet(f"{classifier}_8xb128_in1k")
    cfg.model.backbone.update(backbone)
    cfg.model.head.in_channels = 192 if "swin" in classifier else 64
    checkpoint = train_and_test(cfg, data, tmp_path)
    trained = {
        key.removeprefix("backbone."): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith("backbone.")
    }

    # As the README of dtn_imagenet says.
    target = detectors.resolve(detector)
    target.merge_from_dict(
        {
            "model.backbone.init_cfg.checkpoint": str(tmp_path / "work" / "epoch_1.pth"),
            "model.backbone.dtn_cfg.init": "local",
        }
    )
    register_all_modules()
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(detectors.shrink(target).model)
        model.init_weights()
    loaded = model.backbone.state_dict()
    assert sum(isinstance(module, DTN) for module in model.backbone.modules()) > 0
    assert {key for key in loaded if key not in trained} <= {
        f"norm{stage}.{part}" for stage in range(3) for part in ("weight", "bias")
    }
    assert all(torch.equal(loaded[key], value) for key, value in trained.items())
    assert len(trained) > 30


def test_small_data_resumes_with_another_norm(tmp_path: Path) -> None:
    data = write_images(tmp_path / "svhn", ("train", "test"), 32)
    cfg = three_classes(resolve("vit_1xb128_svhn"))
    config, work = dump(cfg, tmp_path), tmp_path / "work"
    train = load_tool("train")
    arguments = [str(config), "--data-root", str(data), "--work-dir", str(work), "--cfg-options"]
    norm = ["model.norm_cfg.type=bn", "model.lsa=True"]
    again = ["train_cfg.max_epochs=2", f"visualizer.name=again_{tmp_path.name}", "--resume"]
    assert train.main([*arguments, *norm]) == 0
    first = torch.load(work / "epoch_1.pth", weights_only=False)
    # Three passes over nine images, four at a time, the last incomplete batch left out.
    assert first["meta"]["iter"] == 27 // 4
    assert train.main([*arguments, *norm, *again]) == 0
    second = torch.load(work / "epoch_2.pth", weights_only=False)
    assert second["meta"]["iter"] == 2 * first["meta"]["iter"]
    assert any("running_mean" in key for key in second["state_dict"])
    assert any(key.endswith("attn.scale") for key in second["state_dict"])


@pytest.mark.slow
def test_two_processes_share_the_images(tmp_path: Path) -> None:
    data = write_images(tmp_path / "imagenet", ("train", "val"), SIZE)
    config = dump(imagenet("dtn-swin-tiny_8xb128_in1k"), tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = [str(config), "--data-root", str(data), "--work-dir", str(tmp_path / "work"), "--launcher", "pytorch"]
    run = subprocess.run(
        [*command, str(ROOT / "tools" / "train.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    # Of nine images five each, four at a time.
    assert torch.load(tmp_path / "work" / "epoch_1.pth", weights_only=False)["meta"]["iter"] == 2
