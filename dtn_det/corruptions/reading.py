"""Images from files, in the 8-bit RGB that corruptions take."""

from __future__ import annotations

import os
import re
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from dtn_det.corruptions.image import SMALLEST_SIDE
from dtn_det.datasets.coco.orientation import STORED_FORMATS
from dtn_det.errors import BadImageError

# Pillow has no mode for deep colours: it drops the lower bits while it reads, and only the layout in the file, such as
# RGB;16B, tells. BGR;16 is another matter: 16 bits a pixel.
_DEEP_LAYOUT = re.compile(r"(?!BGR)\w+;(12|16|32|64)[A-Z]*")
_TIFF_BITS_PER_SAMPLE = 258

# Cameras put previews behind the picture.
_FIRST_IS_MEANT = ("JPEG", "MPO")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB; a palette and CMYK are resolved, transparency is dropped.

    Raises:
        BadImageError: It has more than 8 bits a channel, which Pillow would clip or cut.
    """
    found = _deep_layout(image)
    if found is not None:
        raise BadImageError(f"expected 8 bits a channel, got {found}: convert it")
    if image.mode == "P" and "transparency" in image.info:
        # The direct way makes Pillow warn of the transparency that is to be dropped.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _deep_layout(image: Image.Image) -> str | None:
    """The mode, or the layout in its file, of an image of more than 8 bits a channel."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return f"mode {image.mode}"
    for tile in getattr(image, "tile", ()):
        layout = tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]
        if isinstance(layout, str) and _DEEP_LAYOUT.fullmatch(layout):
            return f"{layout} in its file"
    bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, (8,))
    return f"{max(bits)} bits in its file" if max(bits) > 8 else None


def read_image(path: Path, *, upright: bool) -> Image.Image:
    """Read an image as RGB. Greyscale, palettes and CMYK are converted, transparency is dropped.

    Args:
        path: The file; what counts is its content, whatever its name ends with.
        upright: Turn it as its EXIF data say, as OpenCV does and Pillow does not.

    Raises:
        BadImageError: It is missing, no image, several in one file, cut off, smaller than 32 x 32, or of more than 8
            bits a channel.
    """
    # Whoever opens a pipe waits for the other end.
    if os.path.exists(path) and not os.path.isfile(path):
        raise BadImageError("expected a regular file, got a folder, a pipe or a device")
    try:
        with Image.open(path) as file:
            if min(file.size) < SMALLEST_SIDE:
                width, height = file.size
                raise BadImageError(
                    f"expected at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got {width} x {height}"
                )
            frames = 1 if file.format in _FIRST_IS_MEANT else getattr(file, "n_frames", 1)
            if frames > 1:
                raise BadImageError(f"expected one picture, got {frames} in the file: keep the one that is meant")
            image = to_rgb(file)
            turned = upright and file.format not in STORED_FORMATS
            return ImageOps.exif_transpose(image) if turned else image
    except BadImageError:
        raise
    except FileNotFoundError:
        raise BadImageError("there is no such file") from None
    except UnidentifiedImageError:
        raise BadImageError("not an image, or of a format that Pillow cannot read") from None
    # Pillow meets broken files with many kinds of errors.
    except Exception as error:
        raise BadImageError(f"cannot be read ({type(error).__name__}: {error})") from error
