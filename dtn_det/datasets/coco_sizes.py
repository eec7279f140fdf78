"""Sizes of images whose annotation file does not tell them."""

from __future__ import annotations

from pathlib import Path

_ORIENTATION = 274
_TURNED = range(5, 9)


def image_size(path: Path) -> tuple[int, int] | None:
    """Height and width of an image file, turned as its EXIF data say; None for one that cannot be read."""
    try:
        from PIL import Image

        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION) in _TURNED
    except Exception:  # Pillow meets broken files with many kinds of errors; who needs the image tells
        return None
    return (width, height) if turned else (height, width)
