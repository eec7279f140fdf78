"""Zoom blur: the average of the image at several zooms."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.compiled import compiled
from dtn_det.corruptions.effects.order import Order
from dtn_det.corruptions.image import ByteImage, to_bytes

Samples = tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]


def zoom_blur(image: ByteImage, order: Order) -> ByteImage:
    """Average the image and its enlargements, all cropped to its size."""
    height, width, channels = image.shape
    factors = order.parameters
    total = image.reshape(height, -1).astype(np.float32)
    for factor in factors:
        upper, down = zoom_samples(height, factor, centred=order.profile.original)
        left, across = zoom_samples(width, factor, centred=order.profile.original)
        values = (left[:, None] * channels + np.arange(channels, dtype=np.uint32)).reshape(-1)
        _add_zoomed(image.reshape(height, -1), upper, down, values, across.repeat(channels), total)
    return to_bytes(total * np.float32(1 / (len(factors) + 1))).reshape(image.shape)


def zoom_samples(length: int, factor: float, *, centred: bool) -> Samples:
    """Where the pixels of an enlarged axis come from: SciPy's ``zoom`` of order 1 on the middle of the axis.

    Args:
        length: Pixels of the axis, before and after.
        factor: At least 1.
        centred: Crop the enlargement around its centre, as the original generator does, or at its beginning, as
            `imagecorruptions` does.

    Returns:
        Index of the pixel before and share of the pixel after it. At some sizes rounding makes the enlargement a pixel
        too short or puts its last pixel just outside the crop, where SciPy sees nothing: the benchmarks' images lack
        that pixel's share, so these arrays are ``(length,)`` or a little shorter.
    """
    crop = math.ceil(length / factor)
    first = (length - crop) // 2
    enlarged = round(crop * factor)
    trim = (enlarged - length) // 2 if centred else 0
    # The ends of the axis fall on the ends of the crop.
    position = (np.arange(min(length, enlarged)) + trim) * ((crop - 1) / (enlarged - 1))
    position = position[(position >= 0) & (position <= crop - 1)]
    # The last pixel counts as the end of the step before it, so that there always is a pixel after.
    before = np.minimum(np.floor(position), crop - 2)
    return (before + first).astype(np.uint32), (position - before).astype(np.float32)


@compiled
def _add_zoomed(
    image: ByteImage,
    upper: npt.NDArray[np.uint32],
    down: npt.NDArray[np.float32],
    left: npt.NDArray[np.uint32],
    across: npt.NDArray[np.float32],
    total: npt.NDArray[np.float32],
) -> None:
    """``left`` and ``across`` hold one entry for each value of a row, ``(W * 3,)``."""
    blended = np.empty(image.shape[1], dtype=np.float32)
    for row in range(upper.size):
        above, below, share = image[upper[row]], image[upper[row] + 1], down[row]
        for i in range(blended.size):
            blended[i] = np.float32(above[i]) + share * (np.float32(below[i]) - np.float32(above[i]))
        line = total[row]
        for i in range(left.size):
            # Unsigned indices: a sign would cost a test for negative ones.
            value = blended[left[i]]
            line[i] += value + across[i] * (blended[left[i] + np.uint32(3)] - value)
