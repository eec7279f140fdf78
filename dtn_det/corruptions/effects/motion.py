"""Motion blur: a one-sided Gaussian along a line."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.compiled import compiled
from dtn_det.corruptions.effects.order import Order
from dtn_det.corruptions.image import ByteImage, FloatImage, to_bytes

Taps = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def motion_blur(image: ByteImage, order: Order) -> ByteImage:
    """Blur along a random direction within 45 degrees of the horizontal."""
    radius, sigma = order.parameters
    return to_bytes(blur_along(image.astype(np.float32), int(radius), sigma, order.stream.uniform(-45, 45)))


def blur_along(image: FloatImage, radius: int, sigma: float, angle: float) -> FloatImage:
    """Average shifted copies of the image, edges repeated.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``.
        radius: The blur reaches ``2 radius`` pixels in one direction.
        sigma: Of the weights, in pixels.
        angle: In degrees from the horizontal.

    Returns:
        The shape of ``image``.
    """
    height, width = image.shape[:2]
    rows = image.reshape(height, width, -1)
    blurred = np.zeros_like(rows)
    _average(rows, *taps(radius, sigma, angle, height, width), blurred)
    return blurred.reshape(image.shape)


def taps(radius: int, sigma: float, angle: float, height: int, width: int) -> Taps:
    """Weights and shifts ``(rows, columns)`` of the copies: each steps one pixel further and rounds to whole pixels.

    Copies that would leave the image are left out, as in `imagecorruptions`.
    """
    steps = np.arange(2 * radius + 1)
    weight = np.exp(-(steps**2) / (2 * sigma**2))
    weight /= weight.sum()
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    down = -np.ceil(steps * sine - 0.5).astype(np.int64)
    right = -np.ceil(steps * cosine - 0.5).astype(np.int64)
    leaves = (np.abs(down) >= height) | (np.abs(right) >= width)
    count = int(leaves.argmax()) if leaves.any() else len(steps)
    return weight[:count].astype(np.float32), down[:count], right[:count]


@compiled
def _average(
    image: FloatImage,
    weight: npt.NDArray[np.float32],
    down: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    out: FloatImage,
) -> None:
    height, width, channels = image.shape
    for row in range(height):
        target = out[row].reshape(-1)
        for k in range(weight.size):
            source = image[min(max(row - down[k], 0), height - 1)].reshape(-1)
            # The part of the row whose sources lie within the image needs no clamping and runs in one sweep.
            first, last = max(right[k], 0) * channels, min(width + right[k], width) * channels
            shift = right[k] * channels
            inner, from_inner, share = target[first:last], source[first - shift : last - shift], weight[k]
            for i in range(inner.size):
                inner[i] += share * from_inner[i]
            for i in range(first):
                target[i] += weight[k] * source[i % channels]
            for i in range(last, width * channels):
                target[i] += weight[k] * source[(width - 1) * channels + i % channels]
