"""Gaussian blur and glass blur."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.compiled import compiled
from dtn_det.corruptions.effects.order import Order
from dtn_det.corruptions.image import ByteImage, FloatImage, to_bytes
from dtn_det.corruptions.stream import Stream


def gaussian_blur(image: ByteImage, order: Order) -> ByteImage:
    """Blur with a Gaussian."""
    (sigma,) = order.parameters
    return to_bytes(gaussian_filter(image.astype(np.float32), sigma))


def gaussian_filter(image: FloatImage, sigma: float, truncate: float = 4.0) -> FloatImage:
    """A Gaussian cut off at ``truncate`` sigmas, edges repeated: scikit-image's ``gaussian`` by OpenCV.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)``.
        sigma: In pixels.
        truncate: In sigmas.
    """
    size = 2 * int(truncate * sigma + 0.5) + 1
    blurred: FloatImage = cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REPLICATE)
    return blurred


def glass_blur(image: ByteImage, order: Order) -> ByteImage:
    """Move pixels about within a few pixels, between two slight blurs."""
    sigma, reach, rounds = order.parameters
    soft = to_bytes(gaussian_filter(image.astype(np.float32), sigma))
    moved = _shuffle(soft, _offsets(order.stream, soft.shape[:2], int(reach), int(rounds)), int(reach), int(rounds))
    return to_bytes(gaussian_filter(moved.astype(np.float32), sigma))


def _offsets(stream: Stream, size: tuple[int, ...], reach: int, rounds: int) -> npt.NDArray[np.int8]:
    """``(rounds * visited pixels * 2,)`` offsets from ``-reach`` to ``reach - 1``: the generators exclude ``reach``."""
    height, width = size
    count = 2 * rounds * (height - 2 * reach) * (width - 2 * reach)
    return stream.generator.integers(-reach, reach, count, dtype=np.int8)


@compiled
def _shuffle(image: ByteImage, offsets: npt.NDArray[np.int8], reach: int, rounds: int) -> ByteImage:
    """From the lower right to the upper left, copy each pixel from one near it.

    The generators meant to swap the two, but what they assign is views, so the second assignment finds the pixel
    overwritten: it is a copy, and weaker than a swap. The published images are made so.
    """
    height, width = image.shape[:2]
    draw = 0
    for _ in range(rounds):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                other_row, other_column = row + offsets[draw + 1], column + offsets[draw]
                draw += 2
                for c in range(3):
                    image[row, column, c] = image[other_row, other_column, c]
    return image
