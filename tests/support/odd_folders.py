"""Folders as people have them, good and bad, each small."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n02012849", "n15075141")


def write_image(path: Path, size: tuple[int, int] = (40, 36), seed: int = 0) -> Path:
    """A picture of noise, in the format of the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    format_ = {".jfif": "JPEG", ".jpe": "JPEG", ".jp2": "JPEG2000"}.get(path.suffix.lower())
    Image.fromarray(pixels).save(path, format_)
    return path


def write_classes(
    root: Path, names: Iterable[str], files: Sequence[str] = ("a.png", "b.png"), size: tuple[int, int] = (40, 36)
) -> Path:
    """Class folders with an image of each name."""
    for number, name in enumerate(names):
        for place, file in enumerate(files):
            write_image(root / name / file, size, 10 * number + place)
    return root


def val_files(start: int = 1, count: int = 2) -> list[str]:
    """Names of ImageNet's validation images."""
    return [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(start, start + count)]


def link_classes(root: Path, names: Iterable[str], file: str, size: tuple[int, int] = (40, 36)) -> Path:
    """Many class folders with the same image, as hard links."""
    one = write_image(root.parent / f"{root.name}.original{Path(file).suffix}", size)
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / file).hardlink_to(one)
    return root


def tiny_imagenet(root: Path, wnids: Sequence[str] = WNIDS) -> Path:
    """Tiny-ImageNet as downloaded, of few images."""
    lines = []
    for number, wnid in enumerate((*wnids, *reversed(wnids))):
        write_image(root / "val" / "images" / f"val_{number}.JPEG", (64, 64), number)
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    for wnid in wnids:
        write_image(root / "train" / wnid / "images" / f"{wnid}_0.JPEG", (64, 64))
    (root / "wnids.txt").write_text("\n".join(wnids))
    return root


def coco(root: Path) -> Path:
    """A COCO data set of one image."""
    write_image(root / "val2017" / "1.jpg")
    (root / "annotations").mkdir()
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 40, "height": 36}],
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def arrays(root: Path) -> Path:
    """CIFAR-10-C, of ten images a severity, whose labels are images too."""
    root.mkdir(parents=True)
    for name in ("fog", "frost", "labels"):
        np.save(root / f"{name}.npy", np.zeros((50, 32, 32, 3), np.uint8))
    return root
