"""Snow: falling flakes and whitened surroundings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.blur import blur_along, zoom_samples
from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage
from dtn_det.system.compiled import compiled


def snow(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Whiten the image and add a layer of flakes twice, the second time rotated by 180 degrees."""
    *_, radius, sigma, share = settings.parameters
    flakes = _flakes(image.shape[0], image.shape[1], settings)
    streaks = blur_along(flakes, int(radius), sigma, settings.stream.uniform(-135, -45))
    snowy = np.empty_like(image)
    _blend(image, streaks, share, snowy)
    return snowy


def _flakes(height: int, width: int, settings: EffectSettings) -> FloatImage:
    """Draw the flakes before motion blur: enlarged normal noise above a threshold, ``(height, width)``, 0 to 255."""
    mean, deviation, factor, threshold = settings.parameters[:4]
    upper, down = zoom_samples(height, factor, centred=settings.profile.original)
    left, across = zoom_samples(width, factor, centred=settings.profile.original)
    # Noise is drawn only where it is visible, because all other parts of the layer would be cropped away.
    noise = settings.stream.normals((int(upper[-1] - upper[0]) + 2, int(left[-1] - left[0]) + 2))
    # At some sizes the enlargement is a pixel smaller than the image. Then the last row or column has no flakes.
    flakes = np.zeros((height, width), np.float32)
    # The original generator passes the flakes to its blur as an 8-bit image.
    in_bytes = settings.profile.original
    scales = np.array([mean, deviation, threshold], np.float32) * 255
    _enlarge(noise, upper - upper[0], down, left - left[0], across, scales, in_bytes, flakes)
    return flakes


@compiled
def _enlarge(
    noise: FloatImage,
    upper: npt.NDArray[np.uint32],
    down: npt.NDArray[np.float32],
    left: npt.NDArray[np.uint32],
    across: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float32],
    in_bytes: bool,
    out: FloatImage,
) -> None:
    mean, deviation, threshold = scales
    blended = np.empty(noise.shape[1], np.float32)
    for row in range(upper.size):
        above, below, share = noise[upper[row]], noise[upper[row] + 1], down[row]
        for column in range(noise.shape[1]):
            blended[column] = mean + deviation * (above[column] + share * (below[column] - above[column]))
        for column in range(left.size):
            before = blended[left[column]]
            value = before + across[column] * (blended[left[column] + 1] - before)
            value = np.float32(0) if value < threshold else min(value, np.float32(255))
            out[row, column] = np.floor(value) if in_bytes else value


@compiled
def _blend(image: ByteImage, streaks: FloatImage, share: float, out: ByteImage) -> None:
    height, width = streaks.shape
    keep, whiten = np.float32(share), np.float32(1 - share)
    layer = np.empty(width, np.float32)
    for row in range(height):
        for column in range(width):
            upright, turned = streaks[row, column], streaks[height - 1 - row, width - 1 - column]
            layer[column] = np.floor(upright + np.float32(0.5)) + np.floor(turned + np.float32(0.5))
        for column in range(width):
            red = np.float32(image[row, column, 0])
            green = np.float32(image[row, column, 1])
            blue = np.float32(image[row, column, 2])
            grey = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
            pale = grey * np.float32(1.5) + np.float32(127.5)
            for c in range(3):
                value = np.float32(image[row, column, c])
                value = keep * value + whiten * max(value, pale) + layer[column]
                out[row, column, c] = np.uint8(min(value, np.float32(255)))
