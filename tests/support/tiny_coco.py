"""A COCO folder of a few small images, with the oddities of the real one, and configs small enough to train on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from config_catalog import resolve, shrink
from mmdet.datasets import CocoDataset
from mmengine.config import Config

NUM_IMAGES = 8
HEIGHT, WIDTH = 48, 64


def write_coco(root: Path) -> Path:
    """`train2017/`, `val2017/` and their annotations: boxes with polygons, a crowd region, an image without objects."""
    names = CocoDataset.METAINFO["classes"]
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(names)]
    (root / "annotations").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(NUM_IMAGES):
            image = rng.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            name = f"{index:012d}.jpg"
            images.append({"id": index + 1, "file_name": name, "height": HEIGHT, "width": WIDTH})
            for _ in range(2 if index else 0):
                x, y = (int(v) for v in rng.integers(0, 24, 2))
                w, h = (int(v) for v in rng.integers(12, 24, 2))
                image[y : y + h, x : x + w] = rng.integers(150, 255, 3)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index + 1,
                        "category_id": int(rng.integers(1, 81)),
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    }
                )
            if index == 1:
                # Run lengths go down the columns: 4 columns of background, 6 of crowd, the rest background.
                counts = [4 * HEIGHT, 6 * HEIGHT, (WIDTH - 10) * HEIGHT]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index + 1,
                        "category_id": 1,
                        "bbox": [4, 0, 6, HEIGHT],
                        "area": 6 * HEIGHT,
                        "iscrowd": 1,
                        "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts},
                    }
                )
            cv2.imwrite(str(root / split / name), image)
        coco = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco))
    return root


def tiny_config(name: str) -> Config:
    """A config of the project, shrunk, that takes two epochs of four iterations in a few seconds."""
    cfg = shrink(resolve(name))
    cfg.model.backbone.init_cfg = None
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        for step in loader.dataset.pipeline:
            if step.type == "Resize":
                step.scale = (WIDTH, HEIGHT)
    # Also the image without objects.
    cfg.train_dataloader.dataset.filter_cfg = {"filter_empty_gt": False, "min_size": 8}
    for part in (cfg.model.test_cfg, cfg.model.test_cfg.get("rcnn", {})):
        if "score_thr" in part:
            part.score_thr = 0.0
    cfg.train_cfg = {"type": "EpochBasedTrainLoop", "max_epochs": 2, "val_interval": 2}
    cfg.default_hooks.logger.interval = 1
    cfg.randomness = {"seed": 0}
    # MMEngine keeps one visualizer of a name in a process, with the folder of the first run.
    cfg.visualizer.name = name
    return cfg
