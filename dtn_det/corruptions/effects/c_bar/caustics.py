"""Caustic refraction: the image as seen through moving water, with the light that the waves focus on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from dtn_det.corruptions.effects.c_bar.trigonometry import sine_and_cosine
from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled

Floats = npt.NDArray[np.float32]

_ITERATIONS = 5
_TURN = 6.28318530718
_START = 250.0
_LINE_WIDTH = 0.005
_SOFTENING = 1.0


@dataclass(frozen=True)
class Caustics:
    """Parameters of caustic refraction for one image.

    Attributes:
        time: Phase of the waves.
        size: Period of the pattern, in pixels.
        refraction: Ratio of the refractive indices.
        lens_scale: Length of the refracted rays, in pixels. Their horizontal component is the displacement of the
            pixels.
        lighting: Change in brightness for a slope of 1 in the light, as a fraction of the value range.
    """

    time: float
    size: float
    refraction: float
    lens_scale: float
    lighting: float


def caustic_refraction(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Displace the pixels along the slopes of a pattern of light, and brighten or darken them by the slopes."""
    (magnitude,) = settings.parameters
    return apply_caustics(image, draw_caustics(settings.stream, len(image), magnitude))


def draw_caustics(stream: Stream, side: int, magnitude: float) -> Caustics:
    """Draw random parameters for a square image of ``side`` pixels."""
    return Caustics(
        time=stream.uniform(0.5, 2),
        size=stream.uniform(0.75, 1.25) * side,
        refraction=4.0,
        lens_scale=0.05 * side * magnitude,
        lighting=0.2 * magnitude,
    )


def apply_caustics(image: ByteImage, caustics: Caustics) -> ByteImage:
    """Refract a square image with these parameters."""
    side = len(image)
    # Light and its slopes are zero beyond the image.
    light = np.zeros((side + 2, side + 2), np.float32)
    light[1:-1, 1:-1] = gaussian_filter(caustic_light(side, caustics.time, caustics.size), _SOFTENING)
    out = np.empty_like(image)
    _refract(image, light, caustics.refraction, caustics.lens_scale, caustics.lighting, out)
    return out


def caustic_light(side: int, time: float, size: float) -> FloatImage:
    """Return ``(side, side)`` values from 0 to 1: the bright lines into which waves focus light on the ground."""
    times = time * (1 - 3.5 / (1 + np.arange(_ITERATIONS)))
    # The coordinates of the authors' generator begin at -250. Only sines and cosines of `near` are computed, so a
    # multiple of 2 pi is added to bring the values nearer to 0.
    starts = np.arange(side) / size % 1 * _TURN - _START
    near = starts + 2 * np.pi * round(_START / (2 * np.pi))
    light = np.empty((side, side), np.float32)
    sines, cosines = np.sin(times).astype(np.float32), np.cos(times).astype(np.float32)
    _gather(starts.astype(np.float32), near.astype(np.float32), sines, cosines, light)
    return light


@compiled
def _gather(starts: Floats, near: Floats, sines: Floats, cosines: Floats, light: FloatImage) -> None:
    side = len(light)
    one, width = np.float32(1), np.float32(_LINE_WIDTH)
    sin_y, cos_y = np.empty(side, np.float32), np.empty(side, np.float32)
    sin_x, cos_x = np.empty(side, np.float32), np.empty(side, np.float32)
    total = np.empty(side, np.float32)
    for row in range(side):
        y, y_squared = near[row], starts[row] * starts[row]
        for column in range(side):
            total[column] = one
            sin_y[column], cos_y[column] = sine_and_cosine(y)
            sin_x[column], cos_x[column] = sine_and_cosine(near[column])
        for step in range(len(sines)):
            s, c = sines[step], cosines[step]
            for column in range(side):
                # Add cos(t - y) + sin(t + x) to y, and sin(t - x) + cos(t + y) to x, computed with the angle addition
                # formulas.
                sy, cy, sx, cx = sin_y[column], cos_y[column], sin_x[column], cos_x[column]
                next_y = y + (c * cy + s * sy) + (s * cx + c * sx)
                next_x = near[column] + (s * cx - c * sx) + (c * cy - s * sy)
                sy, cy = sine_and_cosine(next_y)
                sx, cx = sine_and_cosine(next_x)
                sin_y[column], cos_y[column], sin_x[column], cos_x[column] = sy, cy, sx, cx
                # Add 1 / (w * d): w is the width of a line, d the length of the vector (y / sin(next_y + t), x /
                # cos(next_x + t)).
                a, b = sy * c + cy * s, cx * c - sx * s
                a, b = a * a, b * b
                square = y_squared * b + starts[column] * starts[column] * a
                total[column] += np.sqrt(a * b / max(square, np.float32(1e-30))) / width
        for column in range(side):
            value = abs(np.float32(1.17) - (total[column] * np.float32(0.2)) ** np.float32(1.4))
            value *= value
            value *= value
            light[row, column] = min(value * value, one)


@compiled
def _refract(
    image: ByteImage, light: FloatImage, refraction: float, lens_scale: float, lighting: float, out: ByteImage
) -> None:
    side = len(image)
    for row in range(side):
        for column in range(side):
            slope_y = np.float64(light[row + 2, column + 1]) - np.float64(light[row, column + 1])
            slope_x = np.float64(light[row + 1, column + 2]) - np.float64(light[row + 1, column])
            # Cosine of the angle between the normal of the surface and the vertical.
            upright = 1 / np.sqrt(slope_y * slope_y + slope_x * slope_x + 1)
            y, x = float(row), float(column)
            if upright < 1 - 1e-3:
                # Snell's law for a vertical ray: the horizontal component of the refracted ray is `aside` times that of
                # the normal.
                tilt = 1 - upright * upright
                aside = np.sqrt(1 - tilt / (refraction * refraction)) - upright / refraction
                y += np.round(aside * slope_y * upright * lens_scale * 1000) / 1000
                x += np.round(aside * slope_x * upright * lens_scale * 1000) / 1000
            lit = (slope_y - slope_x) * lighting * 255
            top, left = int(np.floor(y)), int(np.floor(x))
            down, right = y - top, x - left
            for c in range(3):
                value = lit
                if 0 <= top < side:
                    if 0 <= left < side:
                        value += image[top, left, c] * (1 - down) * (1 - right)
                    if 0 <= left + 1 < side:
                        value += image[top, left + 1, c] * (1 - down) * right
                if 0 <= top + 1 < side:
                    if 0 <= left < side:
                        value += image[top + 1, left, c] * down * (1 - right)
                    if 0 <= left + 1 < side:
                        value += image[top + 1, left + 1, c] * down * right
                out[row, column, c] = np.uint8(min(max(value, 0.0), 255.0))
