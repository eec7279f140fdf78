"""The demonstration set on disk, in COCO's format. It is written once and checked before each further use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dtn_det._optional import require
from dtn_det.demo.shapes import CLASSES, BoolArray, Scene, draw_scene
from dtn_det.errors import InputError
from dtn_det.system.files import write_bytes, write_json

MANIFEST = "manifest.json"
# Version of the generator. Increase it when the same seed produces another set, so that older sets are drawn again.
GENERATOR_VERSION = 1
SPLITS = ("train", "val")


@dataclass(frozen=True)
class DatasetSpec:
    """The settings of the set, which determine it completely.

    Attributes:
        seed: Seed of all scenes, below 2**32.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
    """

    seed: int = 0
    num_train: int = 400
    num_val: int = 100
    height: int = 128
    width: int = 160

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise InputError(f"expected a seed of at least 0 and below 2**32, got {self.seed}")
        if min(self.num_train, self.num_val) < 1:
            raise InputError(f"expected at least one image per split, got {self.num_train} and {self.num_val}")

    def sizes(self) -> dict[str, int]:
        """Return the number of images of each split."""
        return {"train": self.num_train, "val": self.num_val}


def write_dataset(root: Path, spec: DatasetSpec, on_image: Callable[[], None] = lambda: None) -> None:
    """Write the set: ``train/``, ``val/``, ``annotations/instances_{train,val}.json`` and ``manifest.json``.

    The manifest is written last: a folder without a manifest is unfinished.

    Args:
        root: Folder of the set; created if absent. Files of these names in it are replaced.
        on_image: Called after each image, for a progress bar.

    Raises:
        ImportError: OpenCV is missing.
    """
    cv2 = require("cv2", "det")
    (root / MANIFEST).unlink(missing_ok=True)
    digests: dict[str, str] = {}

    def write(name: str, data: bytes) -> None:
        write_bytes(root / name, data)
        digests[name] = hashlib.sha256(data).hexdigest()

    for split in SPLITS:
        coco = _empty_coco(spec)
        for index in range(spec.sizes()[split]):
            scene = draw_scene((spec.seed, SPLITS.index(split), index), spec.height, spec.width)
            name = f"{index:06d}.png"
            write(f"{split}/{name}", cv2.imencode(".png", scene.image[:, :, ::-1])[1].tobytes())
            append_scene(coco, index, name, scene)
            on_image()
        write(f"annotations/instances_{split}.json", json.dumps(coco).encode())
    write_json(root / MANIFEST, {"version": GENERATOR_VERSION, "spec": asdict(spec), "sha256": digests})


def is_intact(root: Path, spec: DatasetSpec) -> bool:
    """Return whether a folder holds the complete and undamaged set for these settings."""
    try:
        manifest = json.loads((root / MANIFEST).read_text())
        if (manifest["version"], manifest["spec"]) != (GENERATOR_VERSION, asdict(spec)):
            return False
        return all(
            hashlib.sha256((root / name).read_bytes()).hexdigest() == digest
            for name, digest in manifest["sha256"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _empty_coco(spec: DatasetSpec) -> dict[str, Any]:
    return {
        "info": {"description": f"dtn-det demonstration set, version {GENERATOR_VERSION}, seed {spec.seed}"},
        "licenses": [],
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASSES, start=1)],
    }


def append_scene(coco: dict[str, Any], index: int, name: str, scene: Scene) -> None:
    """Add an image and its annotations to a COCO dictionary; ids start at 1."""
    height, width = scene.image.shape[:2]
    coco["images"].append({"id": index + 1, "file_name": name, "height": height, "width": width})
    for annotation in scene.annotations:
        coco["annotations"].append(
            {
                "id": len(coco["annotations"]) + 1,
                "image_id": index + 1,
                "category_id": annotation.label + 1,
                "bbox": list(annotation.bbox),
                "area": annotation.area,
                "segmentation": {"size": [height, width], "counts": run_lengths(annotation.mask)},
                "iscrowd": int(annotation.is_crowd),
            }
        )


def run_lengths(mask: BoolArray) -> list[int]:
    """Encode a mask as COCO's uncompressed run lengths, column by column; the first run is of unset pixels.

    Args:
        mask: ``(H, W)``.

    Example:
        >>> run_lengths(np.array([[True, False], [True, True]]))
        [0, 2, 1, 1]
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = [0, *changes.tolist(), flat.size]
    lengths = [end - start for start, end in pairwise(edges)]
    return [0, *lengths] if flat[0] else lengths
