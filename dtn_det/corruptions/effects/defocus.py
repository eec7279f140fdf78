"""Defocus blur: a lens that is out of focus turns each point into a disk with a smooth rim.

A filter of 21 x 21 weights is slow. But the sum over a flat disk is a sum over one run of pixels in each row. With
running sums along the row, each run needs only one subtraction. A small Gaussian filter then smooths the rim.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage, to_bytes
from dtn_det.system.compiled import compiled

# Distance from the centre of the generators' kernel to its edges for radii up to 8, in pixels.
_CANVAS = 8


@dataclass(frozen=True)
class Lens:
    """The blur kernel of the generators, decomposed into a flat disk, the smoothing of its rim, and a remainder.

    Attributes:
        half_widths: ``(2 R + 1,)``: each row of the disk covers the columns from ``-half_width`` to ``half_width``.
        count: Number of pixels in the disk.
        rim: ``(K,)`` Gaussian that smooths the rim.
        weight: ``(M,)`` weights of the remainder. It exists because the generators smooth the disk on a canvas with
            mirrored edges, so the rim is folded back where the disk touches an edge.
        down: ``(M,)`` rows of these weights, relative to the centre, positive downwards.
        right: ``(M,)`` columns of these weights, relative to the centre, positive to the right.
        reach: Width of the border around the image that the filter needs, in pixels.
    """

    half_widths: npt.NDArray[np.int64]
    count: int
    rim: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    down: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    reach: int


def defocus_blur(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Blur with a disk; the image is mirrored at its edges."""
    radius, antialiasing = settings.parameters
    lens = make_lens(radius, antialiasing)
    margin, reach = len(lens.rim) // 2, lens.reach
    wide: ByteImage = cv2.copyMakeBorder(image, reach, reach, reach, reach, cv2.BORDER_REFLECT_101)
    flat = np.empty((image.shape[0] + 2 * margin, image.shape[1] + 2 * margin, 3), dtype=np.float32)
    first = reach - margin
    _sum_runs(wide, lens.half_widths, first, np.float32(1 / lens.count), flat)
    smooth: FloatImage = cv2.sepFilter2D(flat, -1, lens.rim, lens.rim)
    blurred = np.ascontiguousarray(smooth[margin:-margin, margin:-margin])
    _add_taps(wide, lens.weight, lens.down + reach, lens.right + reach, blurred)
    return to_bytes(blurred)


def disk(radius: float, antialiasing: float) -> npt.NDArray[np.float64]:
    """Return the generators' blur kernel: a uniform disk with sum 1, smoothed on a canvas with mirrored edges.

    Args:
        radius: Radius of the disk, in pixels.
        antialiasing: Sigma of the smoothing, in pixels.

    Returns:
        ``(K, K)`` weights.
    """
    reach = np.arange(-_CANVAS, _CANVAS + 1) if radius <= _CANVAS else np.arange(-radius, radius + 1)
    side = 3 if radius <= _CANVAS else 5
    inside = (reach[:, None] ** 2 + reach[None] ** 2 <= radius**2).astype(np.float64)
    smooth: npt.NDArray[np.float64] = cv2.GaussianBlur(inside / inside.sum(), (side, side), antialiasing)
    return smooth


@functools.lru_cache(maxsize=32)
def make_lens(radius: float, antialiasing: float) -> Lens:
    """Decompose the kernel of :func:`disk`.

    ``radius`` and ``antialiasing`` are in pixels.
    """
    kernel = disk(radius, antialiasing)
    rim = cv2.getGaussianKernel(3 if radius <= _CANVAS else 5, antialiasing, cv2.CV_64F)[:, 0]
    largest = int(radius)
    rows = np.arange(-largest, largest + 1)
    half_widths = np.floor(np.sqrt(radius**2 - rows**2)).astype(np.int64)
    count = int((2 * half_widths + 1).sum())
    pad = largest + len(rim) // 2
    spread = np.zeros((2 * pad + 1, 2 * pad + 1))
    for row, half in zip(rows, half_widths, strict=True):
        spread[pad + row, pad - half : pad + half + 1] = 1 / count
    spread = cv2.sepFilter2D(spread, -1, rim, rim, borderType=cv2.BORDER_CONSTANT)
    margin = max(kernel.shape[0] // 2, pad)
    rest = _centred(kernel, margin) - _centred(spread, margin)
    down, right = np.nonzero(np.abs(rest) > 1e-9)
    return Lens(
        half_widths,
        count,
        rim.astype(np.float32),
        rest[down, right].astype(np.float32),
        down - margin,
        right - margin,
        reach=pad,
    )


def _centred(kernel: npt.NDArray[np.float64], margin: int) -> npt.NDArray[np.float64]:
    return np.pad(kernel, margin - kernel.shape[0] // 2)


@compiled
def _sum_runs(
    image: ByteImage, half_widths: npt.NDArray[np.int64], first: int, scale: np.float32, out: FloatImage
) -> None:
    """Write ``scale`` times the sum over the disk around each pixel, for pixels from row and column ``first`` on."""
    height, width, channels = image.shape
    running = np.zeros((height, (width + 1) * channels), dtype=np.int32)
    for row in range(height):
        line, values = running[row], image[row].reshape(-1)
        for i in range(values.size):
            line[i + channels] = line[i] + np.int32(values[i])
    reach = half_widths.size // 2
    rows, columns = out.shape[:2]
    total = np.empty(columns * channels, dtype=np.int32)
    for row in range(rows):
        total[:] = 0
        for k in range(half_widths.size):
            line = running[first + row + k - reach]
            right, left = (first + half_widths[k] + 1) * channels, (first - half_widths[k]) * channels
            ends, starts = line[right : right + total.size], line[left : left + total.size]
            for i in range(total.size):
                total[i] += ends[i] - starts[i]
        target = out[row].reshape(-1)
        for i in range(total.size):
            target[i] = np.float32(total[i]) * scale


@compiled
def _add_taps(
    image: ByteImage,
    weight: npt.NDArray[np.float32],
    down: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    out: FloatImage,
) -> None:
    height, width, channels = out.shape
    for row in range(height):
        target = out[row].reshape(-1)
        for k in range(weight.size):
            source = image[row + down[k]].reshape(-1)[right[k] * channels : (right[k] + width) * channels]
            share = weight[k]
            for i in range(target.size):
                target[i] += share * np.float32(source[i])
