"""Pixelate and JPEG compression, and the JPEG step for benchmarks that were published as JPEG files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage


def pixelate(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Shrink the image by averaging blocks of pixels, then enlarge it to its original size."""
    (share,) = settings.parameters
    height, width = image.shape[:2]
    upwards = Image.Resampling.BOX if settings.profile.original else Image.Resampling.NEAREST
    small = Image.fromarray(image).resize((int(width * share), int(height * share)), Image.Resampling.BOX)
    return np.array(small.resize((width, height), upwards))


def jpeg_compression(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Encode the image as JPEG of low quality, and decode it again."""
    (quality,) = settings.parameters
    return round_trip(image, int(quality))


def round_trip(image: ByteImage, quality: int) -> ByteImage:
    """Encode an RGB image as JPEG with Pillow and decode it again; chroma has half the resolution (4:2:0).

    The published files of ImageNet-C were also written with ``optimize=True``. This option reduces the size of the file
    and does not change pixels.

    Args:
        image: ``(H, W, 3)`` uint8.
        quality: JPEG quality from 1 to 95.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    file.seek(0)
    with _images_of_any_size(), Image.open(file) as decoded:
        return np.array(decoded)


@contextmanager
def _images_of_any_size() -> Iterator[None]:
    """Lift Pillow's limit on the number of pixels, which guards against files of strangers, within the block."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
