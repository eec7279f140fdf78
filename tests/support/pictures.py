"""Images for the tests of corruptions."""

from pathlib import Path

import numpy as np
from PIL import Image


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Colours, edges and noise of all strengths, `(H, W, 3)` uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 7 + y / 11), np.cos(x / 13 - y / 5), np.sin(y / 17)], axis=-1)
    noise = rng.normal(size=(height, width, 3)) * (x / width)[..., None]
    return np.clip(128 + 90 * waves + 25 * noise, 0, 255).astype(np.uint8)


def photographs(shared_dir: Path, count: int) -> list[np.ndarray]:
    """Real images, cropped to 224 x 224."""
    files = sorted((shared_dir / "data" / "imagenet_sample" / "val227").iterdir())[:count]
    assert len(files) == count
    images = []
    for file in files:
        with Image.open(file) as image:
            array = np.array(image.convert("RGB"))
        top, left = (array.shape[0] - 224) // 2, (array.shape[1] - 224) // 2
        images.append(np.ascontiguousarray(array[top : top + 224, left : left + 224]))
    return images


def full_size_photographs(shared_dir: Path) -> list[np.ndarray]:
    """Real images whose short side was scaled to 256 and whose middle 224 x 224 were cut out."""
    images = []
    for file in sorted((shared_dir / "data" / "imagenet_sample" / "train_fullsize").iterdir()):
        with Image.open(file) as image:
            scale = 256 / min(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            scaled = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
        images.append(np.array(scaled.crop((left, top, left + 224, top + 224))))
    assert len(images) >= 24
    return images


def rmse(first: np.ndarray, second: np.ndarray) -> float:
    """Root mean square difference, in grey levels."""
    return float(np.sqrt(np.square(first.astype(np.float64) - second).mean()))
