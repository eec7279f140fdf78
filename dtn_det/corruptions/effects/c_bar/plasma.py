"""Plasma noise: coloured waves over the image, in coordinates that are distorted several times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.c_bar.trigonometry import sine
from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled


@dataclass(frozen=True)
class Plasma:
    """Parameters of plasma noise for one image.

    Attributes:
        time: Phase of the waves, in radians.
        iterations: Number of times that the coordinates are displaced by sines of the coordinates, 4 to 6.
        sharpness: 0.5 to 1. A higher value makes the displacements shrink less from one iteration to the next.
        scale: Unit length of the coordinates, in pixels.
        intensity: Amplitude of the waves, in grey levels. The image is multiplied by ``1 - intensity / 255``.
    """

    time: float
    iterations: int
    sharpness: float
    scale: float
    intensity: float


def plasma_noise(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Draw coloured waves over the image."""
    (magnitude,) = settings.parameters
    return apply_plasma(image, draw_plasma(settings.stream, len(image), magnitude))


def draw_plasma(stream: Stream, side: int, magnitude: float) -> Plasma:
    """Draw random parameters for a square image of ``side`` pixels."""
    return Plasma(
        time=stream.uniform(0, 6 * np.pi),
        iterations=4 + stream.below(3),
        sharpness=stream.uniform(0.5, 1),
        scale=stream.uniform(0.075, 0.2) * side,
        intensity=6.4 * magnitude,
    )


def apply_plasma(image: ByteImage, plasma: Plasma) -> ByteImage:
    """Draw the waves with these parameters over a square image."""
    steps = np.arange(plasma.iterations)
    frequencies = (1.93**steps).astype(np.float32)
    shifts = (plasma.time / 1.15**steps).astype(np.float32)
    shares = ((2.25 - plasma.sharpness) ** -steps.astype(float)).astype(np.float32)
    out = np.empty_like(image)
    _draw(image, frequencies, shifts, shares, plasma.time, 1 / plasma.scale, plasma.intensity, out)
    return out


@compiled
def _draw(
    image: ByteImage,
    frequencies: npt.NDArray[np.float32],
    shifts: npt.NDArray[np.float32],
    shares: npt.NDArray[np.float32],
    time: float,
    per_pixel: float,
    intensity: float,
    out: ByteImage,
) -> None:
    side = len(image)
    x, y = np.empty(side, np.float32), np.empty(side, np.float32)
    keep, add = np.float32(1 - intensity / 255), np.float32(intensity)
    phase, still, half, tilt = np.float32(time), np.float32(np.sin(time)), np.float32(0.5), np.float32(0.3)
    low, high = np.float32(0), np.float32(255)
    waves = np.empty((3, side), np.float32)
    for row in range(side):
        for column in range(side):
            x[column] = np.float32(column * per_pixel)
            y[column] = np.float32(row * per_pixel)
        for step in range(len(frequencies)):
            frequency, shift, share = frequencies[step], shifts[step], shares[step]
            quarter = shift + np.float32(np.pi / 2)
            for column in range(side):
                across = sine(y[column] * frequency + quarter) * share
                along = sine(x[column] * frequency + shift) * share
                # Add the vector (across, along) to the coordinates, and 0.3 times the same vector turned by 90 degrees.
                x[column] += across - tilt * along
                y[column] += along + tilt * across
        for column in range(side):
            waves[0, column] = sine(x[column] - phase)
            waves[1, column] = sine((x[column] + y[column] + still) * half)
            waves[2, column] = sine(y[column] + phase)
        for column in range(side):
            for c in range(3):
                value = np.float32(image[row, column, c]) * keep + add * waves[c, column]
                out[row, column, c] = np.uint8(min(max(value, low), high))
