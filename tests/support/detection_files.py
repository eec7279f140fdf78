"""A small COCO set with the oddities of the real one, and a detector of boxes and masks small enough for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from config_catalog import resolve, shrink
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

CLASSES = ("disc", "square", "bar")
SIZES = ((48, 64), (64, 48), (48, 64), (56, 56), (48, 64))


def write_coco(root: Path) -> Path:
    """Five images of three sizes: polygons, a crowd region, an image without objects, an object of id 0."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (height, width) in enumerate(SIZES):
        picture = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        number = 10 * index + 7
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "height": height, "width": width})
        for _ in range(3 if index else 0):
            x, y = (int(v) for v in rng.integers(0, 20, 2))
            w, h = (int(v) for v in rng.integers(12, 24, 2))
            picture[y : y + h, x : x + w] = rng.integers(150, 255, 3)
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": [polygon]}
            category = int(rng.integers(1, 4))
            annotations.append({"id": len(annotations), "image_id": number, "category_id": category, **box})
        if index == 1:
            counts = [4 * height, 6 * height, (width - 10) * height]
            mask = {"size": [height, width], "counts": counts}
            box = {"bbox": [4, 0, 6, height], "area": 6 * height, "iscrowd": 1, "segmentation": mask}
            annotations.append({"id": len(annotations), "image_id": number, "category_id": 1, **box})
        cv2.imwrite(str(root / "images" / f"{number:012d}.jpg"), picture)
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
    (root / "coco.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return root


def write_detector(root: Path, folder: Path) -> tuple[Path, Path]:
    """A config of a Mask R-CNN on the images in `root`, and a checkpoint of random weights."""
    cfg = shrink(resolve("mask-rcnn_dtn-swin-t-p4-w7_fpn_1x_coco"))
    cfg.model.backbone.init_cfg = None
    for head in ("bbox_head", "mask_head"):
        cfg.model.roi_head[head].num_classes = len(CLASSES)
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    dataset = cfg.test_dataloader.dataset
    dataset.update(
        data_root=str(root) + "/",
        ann_file="coco.json",
        data_prefix={"img": "images/"},
        metainfo={"classes": CLASSES},
    )
    for step in dataset.pipeline:
        if step.type == "Resize":
            step.scale = (64, 64)
    slim = {key: cfg[key] for key in ("model", "test_dataloader", "default_scope", "custom_imports")}
    config = folder / "tiny.py"
    Config({**slim, "data_root": str(root) + "/"}).dump(config)
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    checkpoint = folder / "tiny.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {}}, checkpoint)
    return config, checkpoint
