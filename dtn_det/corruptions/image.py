"""The image that a corruption takes, and what is wrong with another one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ByteImage = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]

SMALLEST_SIDE = 32
# OpenCV's warping counts pixels in 16 bits.
LARGEST_SIDE = 32_766


def check_image(image: object) -> ByteImage:
    """The image itself, contiguous in memory.

    Args:
        image: What the user gave.

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        ValueError: It is no such array, smaller than 32 x 32, or longer than 32,766 pixels.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"expected an array, got {type(image).__name__}: pass np.asarray(image)")
    if image.dtype != np.uint8:
        raise ValueError(
            f"expected an image of dtype uint8 with values from 0 to 255, got {image.dtype}: convert it, "
            "(255 * image).round().astype(np.uint8) for values from 0 to 1"
        )
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        raise ValueError(
            f"expected an image of shape (H, W, 3), got the greyscale shape {image.shape}: repeat it, "
            "np.dstack([image] * 3)"
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an image of shape (H, W, 3), got {image.shape}: pass one image with three channels")
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(
            f"expected an image of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got {image.shape[:2]}: resize it"
        )
    if max(image.shape[:2]) > LARGEST_SIDE:
        raise ValueError(f"expected an image of at most {LARGEST_SIDE} pixels a side, got {image.shape[:2]}: resize it")
    return np.ascontiguousarray(image)


def exact_bytes(image: npt.NDArray[np.generic]) -> ByteImage:
    """An image of another type of number as 8 bits, where nothing is lost by that.

    Args:
        image: Of whole numbers from 0 to 255, of any type, such as MMCV loads with ``to_float32=True``.

    Returns:
        The same numbers as uint8; an image of that type itself.

    Raises:
        ValueError: Numbers that 8 bits do not hold, such as those of a 16-bit image or of one from 0 to 1.
    """
    if image.dtype == np.uint8:
        return image.view(np.uint8)
    if image.dtype.kind in "biuf" and image.size:
        low, high = image.min(), image.max()
        # A NaN is neither.
        if low >= 0 and high <= 255:
            found = image.astype(np.uint8)
            if np.array_equal(found, image):
                return found
        values = f"{image.dtype} from {low:g} to {high:g}"
    else:
        values = f"{image.dtype} of shape {image.shape}"
    raise ValueError(
        f"expected whole numbers from 0 to 255, on which corruptions are defined, got {values}: convert the images to "
        "8 bits"
    )


def to_bytes(values: npt.NDArray[np.floating]) -> ByteImage:
    """Clip to 0 ... 255 and round down, as the generators of the benchmarks do."""
    return np.clip(values, 0, 255).astype(np.uint8)
