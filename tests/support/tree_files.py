"""Small image folders for the tests of corrupted trees."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image


def picture(seed: int, height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    """Smooth colours with a bright rectangle."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    tilts = generator.uniform(-1, 1, (3, 2))
    image = np.stack([128 + 100 * (a * x + b * y) for a, b in tilts], axis=2)
    top, left = generator.integers(0, 20, 2)
    image[top : top + 15, left : left + 15] = generator.integers(0, 256, 3)
    return image.clip(0, 255).astype(np.uint8)


def save(path: Path, image: npt.NDArray[np.uint8]) -> Path:
    """Write an image, and the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def load(path: Path | BinaryIO) -> npt.NDArray[np.uint8]:
    """``(H, W, 3)`` RGB."""
    with Image.open(path) as file:
        return np.array(file.convert("RGB"))


def plain_folder(root: Path, count: int = 3) -> Path:
    """Images in a folder and in one below it."""
    for index in range(count):
        save(root / ("deep/er" if index % 2 else "") / f"{index}.png", picture(index))
    return root


def imagenet_folder(root: Path, count: int = 3) -> Path:
    """Class folders with images of several sizes."""
    for index in range(count):
        image = picture(index, 60 + 10 * index, 80)
        save(root / f"n0144076{index % 2}" / f"ILSVRC2012_val_{index:08}.JPEG", image)
    return root


def coco_folder(root: Path, count: int = 3, suffix: str = ".png") -> Path:
    """One split, whose ids are not in the order of the files."""
    images = []
    for index in range(count):
        name = f"{index:012}{suffix}"
        save(root / "val2017" / name, picture(index))
        images.append({"id": 1000 - index, "file_name": name, "height": 48, "width": 64})
    write_annotations(root / "annotations/instances_val2017.json", images)
    return root


def write_annotations(path: Path, images: object) -> Path:
    """A COCO file without objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}))
    return path


def tree_hash(root: Path) -> str:
    """SHA-256 over names and contents of all files."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
