"""Spatter: drops of water or splashes of mud on the lens."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt
from scipy import special

from dtn_det.corruptions.effects.blur import gaussian_filter
from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage
from dtn_det.system.compiled import compiled

WATER = np.array([175, 238, 238], np.float32)
"""Pale turquoise, RGB."""

MUD = np.array([63, 42, 20], np.float32)
"""Brown, RGB."""


def spatter(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Splash water (lower severities) or mud (higher severities) onto the image."""
    mean, deviation, sigma, threshold, last, mud = settings.parameters
    height, width = image.shape[:2]
    noise = np.empty((height, width), np.float32)
    bits = settings.stream.bits((noise.size + 1) // 2).view("<u2")
    _look_up(_normal_quantiles(mean, deviation), bits, noise.reshape(-1))
    # Truncate the filter at three sigmas: only 0.3 % of the weight is beyond.
    liquid = gaussian_filter(noise, sigma, truncate=3)
    spattered = np.empty_like(image)
    if mud:
        _splash_mud(image, _mud_cover(liquid, threshold, last), MUD, spattered)
        return spattered
    thickness = _water(liquid, threshold)
    thickest = int(thickness.max())
    # Without drops, `thickest` is 0 and the image does not change.
    _splash_water(image, thickness, WATER * np.float32(last / thickest if thickest else 0), spattered)
    return spattered


@functools.lru_cache(maxsize=16)
def _normal_quantiles(mean: float, deviation: float) -> FloatImage:
    """Return the normal quantile for each 16-bit random number, ``(65536,)``, in probability steps of 2^-16."""
    shares = (np.arange(2**16) + 0.5) / 2**16
    return np.asarray(mean + deviation * special.ndtri(shares), np.float32)


@compiled
def _look_up(table: FloatImage, bits: npt.NDArray[np.uint16], out: FloatImage) -> None:
    for i in range(out.size):
        out[i] = table[bits[i]]


def _water(liquid: FloatImage, threshold: float) -> npt.NDArray[np.uint16]:
    """Return the light that the water adds: the drops times a relief, which depends on the distance from their rims."""
    drops = np.empty(liquid.shape, np.uint8)
    _keep_drops(liquid, np.float32(threshold), drops)
    distance = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    level = cv2.blur(np.minimum(distance, np.float32(20)), (3, 3)).astype(np.uint8)
    relief = cv2.filter2D(cv2.equalizeHist(level), cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    thickness: npt.NDArray[np.uint16] = np.multiply(drops, cv2.blur(relief, (3, 3)), dtype=np.uint16)
    return thickness


@compiled
def _keep_drops(liquid: FloatImage, threshold: np.float32, out: ByteImage) -> None:
    height, width = liquid.shape
    for row in range(height):
        for column in range(width):
            value = np.float32(0) if liquid[row, column] < threshold else liquid[row, column]
            out[row, column] = np.uint8(min(value, np.float32(1)) * np.float32(255))


def _mud_cover(liquid: FloatImage, threshold: float, sigma: float) -> FloatImage:
    """Return the share of each pixel that is covered with mud. Only shares of at least 80 % are drawn."""
    return gaussian_filter((liquid > np.float32(threshold)).astype(np.float32), sigma)


@compiled
def _splash_water(
    image: ByteImage, thickness: npt.NDArray[np.uint16], color: npt.NDArray[np.float32], out: ByteImage
) -> None:
    height, width = thickness.shape
    red, green, blue = color[0], color[1], color[2]
    most = np.float32(255)
    for row in range(height):
        for column in range(width):
            water = np.float32(thickness[row, column])
            out[row, column, 0] = np.uint8(min(np.float32(image[row, column, 0]) + water * red, most))
            out[row, column, 1] = np.uint8(min(np.float32(image[row, column, 1]) + water * green, most))
            out[row, column, 2] = np.uint8(min(np.float32(image[row, column, 2]) + water * blue, most))


@compiled
def _splash_mud(image: ByteImage, cover: FloatImage, color: npt.NDArray[np.float32], out: ByteImage) -> None:
    height, width = cover.shape
    red, green, blue = color[0], color[1], color[2]
    for row in range(height):
        for column in range(width):
            mud = cover[row, column]
            mud = np.float32(0) if mud < np.float32(0.8) else mud
            keep = np.float32(1) - mud
            out[row, column, 0] = np.uint8(np.float32(image[row, column, 0]) * keep + mud * red)
            out[row, column, 1] = np.uint8(np.float32(image[row, column, 1]) * keep + mud * green)
            out[row, column, 2] = np.uint8(np.float32(image[row, column, 2]) * keep + mud * blue)
