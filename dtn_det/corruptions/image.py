"""Images for the corruptions: 8-bit RGB arrays, read from files and cropped as for ImageNet-C."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from dtn_det.errors import BadImageError, InputError, SmallImageError, UnsupportedImageError

ByteImage = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]

SMALLEST_SIDE = 32
RESIZE, CROP = 256, 224
"""How ImageNet's images were prepared before they were corrupted: the length of the short side after resizing, and of
both sides after cropping, in pixels."""

STORED_FORMATS = ("WEBP",)
"""Formats in which OpenCV 4.12 ignores the EXIF orientation."""

# OpenCV's warping functions store pixel coordinates in 16 bits.
LARGEST_SIDE = 32_766


def check_image(image: object) -> ByteImage:
    """Check that an image can be corrupted.

    Args:
        image: Any object from the user.

    Returns:
        The image, contiguous in memory: ``(H, W, 3)`` uint8.

    Raises:
        InputError: The image is not such an array, or has a side of fewer than 32 or more than 32,766 pixels.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"expected an array, got {type(image).__name__}: pass np.asarray(image)")
    if image.dtype != np.uint8:
        raise InputError(
            f"expected an image of dtype uint8 with values from 0 to 255, got {image.dtype}: convert it, "
            "(255 * image).round().astype(np.uint8) for values from 0 to 1"
        )
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        raise InputError(
            f"expected an image of shape (H, W, 3), got the greyscale shape {image.shape}: repeat it, "
            "np.dstack([image] * 3)"
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"expected an image of shape (H, W, 3), got {image.shape}: pass one image with three channels")
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise InputError(
            f"expected an image of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got {image.shape[:2]}: resize it"
        )
    if max(image.shape[:2]) > LARGEST_SIDE:
        raise InputError(f"expected an image of at most {LARGEST_SIDE} pixels a side, got {image.shape[:2]}: resize it")
    return np.ascontiguousarray(image)


def exact_bytes(image: npt.NDArray[np.generic]) -> ByteImage:
    """Convert an image to 8 bits without loss.

    Args:
        image: Whole numbers from 0 to 255 of any dtype, such as MMCV loads with ``to_float32=True``.

    Returns:
        The same numbers as uint8; the image itself if it is uint8 already.

    Raises:
        InputError: The image has values that 8 bits cannot represent, such as fractions or values of a 16-bit image.
    """
    if image.dtype == np.uint8:
        return image.view(np.uint8)
    if image.dtype.kind in "biuf" and image.size:
        low, high = image.min(), image.max()
        # Both comparisons are False for a NaN.
        if low >= 0 and high <= 255:
            found = image.astype(np.uint8)
            if np.array_equal(found, image):
                return found
        values = f"{image.dtype} from {low:g} to {high:g}"
    else:
        values = f"{image.dtype} of shape {image.shape}"
    raise InputError(
        f"expected whole numbers from 0 to 255, on which corruptions are defined, got {values}: convert the images to "
        "8 bits"
    )


def to_bytes(values: npt.NDArray[np.floating]) -> ByteImage:
    """Clip to 0 ... 255, and round down as the generators of the benchmarks do."""
    return np.clip(values, 0, 255).astype(np.uint8)


# Pillow has no mode for colours of more than 8 bits. It drops the lower bits when reading, and only the layout in the
# file, such as RGB;16B, shows this. BGR;16 has another meaning: 16 bits per pixel.
_DEEP_LAYOUT = re.compile(r"(?!BGR)\w+;(12|16|32|64)[A-Z]*")
_TIFF_BITS_PER_SAMPLE = 258

# Formats whose files may hold several pictures: the first is the image, and cameras append previews.
_FIRST_IS_MEANT = ("JPEG", "MPO")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB. A palette and CMYK are resolved, transparency is dropped.

    Raises:
        UnsupportedImageError: The image has more than 8 bits per channel, which Pillow would clip or truncate.
    """
    found = _deep_layout(image)
    if found is not None:
        raise UnsupportedImageError(
            f"expected 8 bits a channel, got {found}: convert it by scaling its values to 0 to 255, those of 16 bits "
            "by dividing by 257; Pillow's convert('RGB') alone turns grey values above 255 white"
        )
    if image.mode == "P" and "transparency" in image.info:
        # Converting to RGB directly would make Pillow warn about the transparency, which is dropped on purpose.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _deep_layout(image: Image.Image) -> str | None:
    """Describe the pixels of an image with more than 8 bits per channel, for messages; None for other images."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return f"mode {image.mode}"
    for tile in getattr(image, "tile", ()):
        layout = tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]
        if isinstance(layout, str) and _DEEP_LAYOUT.fullmatch(layout):
            return f"{layout} in its file"
    bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, (8,))
    return f"{max(bits)} bits in its file" if max(bits) > 8 else None


def cmyk_as_opencv(image: Image.Image) -> Image.Image:
    """Convert a CMYK image to RGB as OpenCV does for JPEG files. Pillow's result is up to 2 grey levels lighter.

    Source: ``icvCvt_CMYK2BGR_8u_C4C3R`` in OpenCV's ``modules/imgcodecs/src/utils.cpp``.
    """
    values = np.asarray(image).astype(np.uint16)
    inks, light = values[..., :3], 255 - values[..., 3:]
    found = Image.fromarray((light - (inks * light >> 8)).astype(np.uint8))
    # Keep the EXIF data, which contain the orientation.
    found.info = dict(image.info)
    return found


def read_image(path: Path, *, upright: bool) -> Image.Image:
    """Read an image as RGB. Greyscale, palettes and CMYK are converted, transparency is dropped.

    Args:
        path: The file. Its content shows the format, whatever its suffix.
        upright: True to read as OpenCV and thus MMDetection: rotated according to the EXIF data, except for
            :data:`STORED_FORMATS`, and with the CMYK of JPEG files converted by :func:`cmyk_as_opencv`. False to read
            as Pillow and thus torchvision.

    Raises:
        BadImageError: The file is missing, is not an image, holds several images, is cut off, is smaller than 32 x 32
            pixels, or has more than 8 bits per channel.
    """
    # Opening a pipe would block until the other end is opened.
    if os.path.exists(path) and not os.path.isfile(path):
        raise BadImageError("expected a regular file, got a folder, a pipe or a device")
    try:
        with Image.open(path) as file:
            if min(file.size) < SMALLEST_SIDE:
                width, height = file.size
                raise SmallImageError(
                    f"expected at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got {width} x {height}"
                )
            frames = 1 if file.format in _FIRST_IS_MEANT else getattr(file, "n_frames", 1)
            if frames > 1:
                raise UnsupportedImageError(
                    f"expected one picture, got {frames} in the file: keep the one that is meant"
                )
            as_opencv = upright and file.mode == "CMYK" and file.format in _FIRST_IS_MEANT
            image = cmyk_as_opencv(file) if as_opencv else to_rgb(file)
            turned = upright and file.format not in STORED_FORMATS
            return ImageOps.exif_transpose(image) if turned else image
    except BadImageError:
        raise
    except FileNotFoundError:
        raise BadImageError("there is no such file") from None
    except UnidentifiedImageError:
        raise BadImageError("not an image, or of a format that Pillow cannot read") from None
    except Image.DecompressionBombError as error:
        raise UnsupportedImageError(
            f"expected an image within Pillow's limit on the number of pixels, got a larger one ({error}): resize it, "
            "with its boxes"
        ) from error
    # Pillow raises many classes of errors for broken files.
    except Exception as error:
        raise BadImageError(f"cannot be read ({type(error).__name__}: {error})") from error


def resize_and_crop(image: Image.Image) -> Image.Image:
    """Resize the shorter side to 256 pixels (bilinear, antialiased), and crop the central 224 x 224 pixels.

    The pixels are the same as with ``Resize(256)`` and ``CenterCrop(224)`` of torchvision, which the generator of
    ImageNet-C used. An image of 224 x 224 pixels is not changed, because it must have been prepared in this way
    already.
    """
    if image.size == (CROP, CROP):
        return image
    width, height = image.size
    short = min(width, height)
    image = image.resize((RESIZE * width // short, RESIZE * height // short), Image.Resampling.BILINEAR)
    # Python rounds halves to even numbers, and so does torchvision.
    left, top = round((image.width - CROP) / 2), round((image.height - CROP) / 2)
    return image.crop((left, top, left + CROP, top + CROP))
