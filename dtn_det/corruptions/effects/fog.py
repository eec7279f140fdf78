"""Fog: a fractal haze over the image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled

ROUGHNESS = 100.0**2
"""Amplitude of the displacements at the coarsest scale. The range of the map's values is about three times as large."""

NEGLIGIBLE = 20.0
"""Scales with a smaller amplitude, below 0.1 % of the range of the map, are made only for the corner if possible."""


def fog(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Add a haze, and scale the sum down so that no value exceeds the brightest value of the image."""
    strength, decay = settings.parameters
    haze = fractal_haze(image.shape[0], image.shape[1], decay, settings.stream)
    brightest = float(image.max()) / 255
    share = brightest / (brightest + strength)
    foggy = np.empty_like(image)
    _blend(image, haze, share, 255 * strength * share, foggy)
    return foggy


def fractal_haze(height: int, width: int, decay: float, stream: Stream) -> FloatImage:
    """Make the upper left corner of a periodic diamond-square map, whose side is a power of two.

    The haze is scaled to 0 ... 1 by the extremes of the whole map, so the whole map is needed. Scales with
    displacements too small to change the extremes are made only for the corner.

    Args:
        height: Height of the corner, in pixels.
        width: Width of the corner, in pixels.
        decay: The amplitude of each scale is ``decay ** 2`` times smaller than that of the next coarser scale.
        stream: Random numbers.

    Returns:
        ``(height, width)`` haze from 0 to 1.
    """
    scales = (max(height, width) - 1).bit_length()
    amplitudes = [ROUGHNESS / decay ** (2 * scale) for scale in range(scales)]
    needed = [[_points_needed(length, scales - scale) for length in (height, width)] for scale in range(scales)]
    # If the corner is nearly the whole map, it would need points beyond the period at coarse scales. So these scales
    # are made for the whole map.
    whole = sum(amplitudes[scale] >= NEGLIGIBLE or max(needed[scale]) > 2**scale + 2 for scale in range(scales))
    # On each side, the array has one row or column more than the period, for the neighbours of the outermost points.
    points: FloatImage = np.zeros((3, 3), np.float32)
    for amplitude in amplitudes[:whole]:
        points = _refine(points, np.float32(amplitude), _noise(stream, points), True)
    lowest, highest = points.min(), points.max()
    for scale in range(whole, scales):
        rows, columns = needed[scale]
        points = np.ascontiguousarray(points[:rows, :columns])
        points = _refine(points, np.float32(amplitudes[scale]), _noise(stream, points), False)
    corner = points[1 : height + 1, 1 : width + 1]
    lowest, highest = min(lowest, corner.min()), max(highest, corner.max())
    haze: FloatImage = (corner - lowest) * np.float32(1 / (highest - lowest))
    return haze


def _points_needed(length: int, scales: int) -> int:
    """Return how many points along an axis become ``length`` pixels and a border in ``scales`` refinements."""
    last = length - 1
    for _ in range(scales):
        # A refinement adds the points with odd indices between two old points. Points with even indices also need the
        # odd ones on both sides.
        last = last // 2 + 1
    return last + 2


def _noise(stream: Stream, points: FloatImage) -> npt.NDArray[np.uint16]:
    """Draw 16 random bits for each point that the next :func:`_refine` adds: at most three for each given point."""
    rows, columns = points.shape
    count = 3 * (rows - 1) * (columns - 1)
    return stream.bits((count + 1) // 2).view("<u2")[:count].reshape(3, rows - 1, columns - 1)


@compiled
def _refine(points: FloatImage, amplitude: np.float32, noise: npt.NDArray[np.uint16], periodic: bool) -> FloatImage:
    """Halve the distance between points. A new point is the mean of its four neighbours plus a random displacement.

    The first and last row and column of ``points`` serve only as neighbours. The result also has a first row and column
    that serve only as neighbours. If the map is periodic, it has such a last row and column too.
    """
    rows, columns = points.shape[0] - 1, points.shape[1] - 1
    scale = amplitude * np.float32(2.0**-15)
    quarter = np.float32(0.25)
    # New point in the middle of each square of four points.
    middle = np.empty((rows, columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            total = points[i, j] + points[i, j + 1] + points[i + 1, j] + points[i + 1, j + 1]
            middle[i, j] = total * quarter + (np.float32(noise[0, i, j]) * scale - amplitude)
    if periodic:
        middle[0] = middle[-1]
        middle[:, 0] = middle[:, -1]
    # New point in the middle of each edge, from the points at its ends and in the middle of the squares on both sides.
    more = 1 if periodic else 0
    fine = np.empty((2 * rows - 1 + more, 2 * columns - 1 + more), np.float32)
    for i in range(rows):
        if i > 0:
            even = fine[2 * i - 1]
            total = points[i, 0] + points[i, 1] + middle[i - 1, 0] + middle[i, 0]
            even[0] = total * quarter + (np.float32(noise[1, i, 0]) * scale - amplitude)
            for j in range(1, columns):
                total = points[i, j] + points[i, j + 1] + middle[i - 1, j] + middle[i, j]
                even[2 * j - 1] = points[i, j]
                even[2 * j] = total * quarter + (np.float32(noise[1, i, j]) * scale - amplitude)
        odd = fine[2 * i]
        odd[0] = middle[i, 0]
        for j in range(1, columns):
            total = points[i, j] + points[i + 1, j] + middle[i, j - 1] + middle[i, j]
            odd[2 * j - 1] = total * quarter + (np.float32(noise[2, i, j]) * scale - amplitude)
            odd[2 * j] = middle[i, j]
    if periodic:
        fine[:, 0] = fine[:, -2]
        fine[:, -1] = fine[:, 1]
        fine[0] = fine[-2]
        fine[-1] = fine[1]
    return fine


@compiled
def _blend(image: ByteImage, haze: FloatImage, share: float, strength: float, out: ByteImage) -> None:
    height, width = haze.shape
    keep, add = np.float32(share), np.float32(strength)
    for row in range(height):
        for column in range(width):
            value = haze[row, column] * add
            for c in range(3):
                # The sum is at most the brightest value of the image, so it is not clipped.
                out[row, column, c] = np.uint8(np.float32(image[row, column, c]) * keep + value)
