"""Small trees of images in class folders, and models for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n02012849", "n15075141")


def picture(seed: int, side: int) -> Image.Image:
    """Smooth colours with some noise: no two alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    noise = rng.integers(-12, 12, (side, side, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


def write_folders(
    root: Path, classes: Sequence[str] = WNIDS, per_class: int = 2, side: int = 40, suffix: str = ".png"
) -> Path:
    """Class folders with a few images each."""
    for number, name in enumerate(classes):
        for index in range(per_class):
            path = root / name / f"image_{index}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(100 * number + index, side).save(path)
    return root
