"""Corrupted images as the bytes of a file."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from PIL import Image

from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.image import ByteImage
from dtn_det.corruptions.stream import Key
from dtn_det.datasets.folders.image_files import JPEG_SUFFIXES

FINE_JPEG_QUALITY = 95
"""Of JPEG files where the benchmark has no JPEG step of its own; they keep chroma at full resolution."""

_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    # Noise does not compress: the fastest level gives files that are hardly larger.
    ".png": ("PNG", {"compress_level": 1}),
    ".bmp": ("BMP", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".apng": ("PNG", {"compress_level": 1}),
    ".dib": ("DIB", {}),
    ".ppm": ("PPM", {}),
    ".tga": ("TGA", {}),
}
WRITABLE = (*JPEG_SUFFIXES, *_FORMATS)
"""Endings of the files that corrupted images are written to; all but JPEG's lose nothing."""


def corrupt_to_file(
    corruptor: Corruptor, image: ByteImage, name: str, severity: int, key: Key | None, suffix: str
) -> bytes:
    """Corrupt an image and encode it.

    A JPEG file is itself the JPEG step of the benchmark, if it has one: there is never more than one compression, and
    the file's pixels are those that the corruptor returns. In a lossless format they are so too. Only a JPEG file
    without that step differs from them, by what quality 95 loses.

    Args:
        corruptor: How.
        image: ``(H, W, 3)`` RGB.
        name: Corruption.
        severity: 1 to 5.
        key: Of the image.
        suffix: Of the file: one of :data:`WRITABLE`.
    """
    quality = corruptor.jpeg_quality
    if suffix.lower() in JPEG_SUFFIXES and quality is not None:
        return encode(replace(corruptor, jpeg=False)(image, name, severity, key), suffix, quality)
    return encode(corruptor(image, name, severity, key), suffix)


def encode(image: ByteImage, suffix: str, jpeg_quality: int | None = None) -> bytes:
    """The bytes of an image file.

    Args:
        image: ``(H, W, 3)`` RGB.
        suffix: One of :data:`WRITABLE`.
        jpeg_quality: Write JPEG as ImageNet-C was, with this quality and halved chroma; None for a fine one.

    Raises:
        ValueError: Another suffix.
    """
    suffix = suffix.lower()
    file = io.BytesIO()
    picture = Image.fromarray(image)
    if suffix in JPEG_SUFFIXES and jpeg_quality is not None:
        picture.save(file, "JPEG", quality=jpeg_quality, subsampling="4:2:0", optimize=True)
    elif suffix in JPEG_SUFFIXES:
        # Not optimized: Pillow's buffer for that is too small for noise of this quality.
        picture.save(file, "JPEG", quality=FINE_JPEG_QUALITY, subsampling="4:4:4")
    elif suffix in _FORMATS:
        name, options = _FORMATS[suffix]
        picture.save(file, name, **options)
    else:
        raise ValueError(f"expected a file name that ends in {', '.join(WRITABLE)}, got {suffix!r}: choose one")
    return file.getvalue()
