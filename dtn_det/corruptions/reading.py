"""Images from files, in the 8-bit RGB that corruptions take."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from dtn_det.corruptions.image import SMALLEST_SIDE

JPEG_SUFFIXES = (".jpg", ".jpeg")
SUFFIXES = (*JPEG_SUFFIXES, ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Endings, in lower case, of the files that are read as images."""

_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


class BadImageError(ValueError):
    """A file that cannot be corrupted; the message says why."""


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like that of an image."""
    return name.lower().endswith(SUFFIXES)


def read_image(path: Path, *, upright: bool) -> Image.Image:
    """Read an image as RGB. Greyscale, palettes and CMYK are converted, transparency is dropped.

    Args:
        path: The file; what counts is its content, whatever its name ends with.
        upright: Turn it as its EXIF data say, as OpenCV does and Pillow does not.

    Raises:
        BadImageError: It is missing, no image, cut off, smaller than 32 x 32, or of more than 8 bits a channel.
    """
    # Whoever opens a pipe waits for the other end.
    if os.path.exists(path) and not os.path.isfile(path):
        raise BadImageError("expected a regular file, got a folder, a pipe or a device")
    try:
        with Image.open(path) as file:
            if file.mode in _DEEP_MODES:
                raise BadImageError(f"expected 8 bits a channel, got mode {file.mode}: convert it")
            if min(file.size) < SMALLEST_SIDE:
                width, height = file.size
                raise BadImageError(
                    f"expected at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got {width} x {height}"
                )
            image = file.convert("RGB")
            return ImageOps.exif_transpose(image) if upright else image
    except BadImageError:
        raise
    except FileNotFoundError:
        raise BadImageError("there is no such file") from None
    except UnidentifiedImageError:
        raise BadImageError("not an image, or of a format that Pillow cannot read") from None
    # Pillow meets broken files with many kinds of errors.
    except Exception as error:
        raise BadImageError(f"cannot be read ({type(error).__name__}: {error})") from error
