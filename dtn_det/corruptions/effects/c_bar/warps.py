"""Displacements of the image: pinched and twirled discs, and ripples along both axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled

_LARGE_SIDE = 224


@dataclass(frozen=True)
class Twirls:
    """Random parameters of pinch and twirl.

    Attributes:
        angles: ``(n, n)`` angles by which the centres of the discs are turned, in radians. The first index is the
            column of the disc, the second its row.
        amount: Strength of the pinch.
    """

    angles: npt.NDArray[np.float64]
    amount: float


def pinch_and_twirl(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Pinch and turn the image in discs that lie side by side."""
    (magnitude,) = settings.parameters
    return apply_twirls(image, draw_twirls(settings.stream, len(image), magnitude))


def draw_twirls(stream: Stream, side: int, magnitude: float) -> Twirls:
    """Draw the parameters for a square image: 5 x 5 discs if its side is 224 pixels, else 3 x 3."""
    number = 5 if side == _LARGE_SIDE else 3
    signs = 2.0 * stream.generator.integers(0, 2, (number, number)) - 1
    return Twirls(signs * magnitude * np.pi / 20, 0.04 * magnitude + 0.1)


def apply_twirls(image: ByteImage, twirls: Twirls) -> ByteImage:
    """Pinch and turn discs of a square image."""
    out = image.copy()
    _twirl(image, twirls.angles, twirls.amount, out)
    return out


@compiled
def _twirl(image: ByteImage, angles: npt.NDArray[np.float64], amount: float, out: ByteImage) -> None:
    number = len(angles)
    cell = len(image) // number
    radius = cell / 2
    for i in range(number):
        for j in range(number):
            top, left = j * cell, i * cell
            centre_y, centre_x = top + radius, left + radius
            for row in range(top, top + cell):
                for column in range(left, left + cell):
                    dy, dx = row - centre_y, column - centre_x
                    distance = np.sqrt(dy * dy + dx * dx)
                    if distance > radius or distance < 0.0005:
                        continue
                    share = distance / radius
                    pinch = np.sin(np.pi / 2 * share) ** -amount
                    angle = angles[i, j] * (1 - share) ** 2
                    sine, cosine = pinch * np.sin(angle), pinch * np.cos(angle)
                    y, x = centre_y + dy * cosine - dx * sine, centre_x + dy * sine + dx * cosine
                    _sample(image, y, x, row, column, out)


@dataclass(frozen=True)
class Ripples:
    """Random parameters of ripples: one sine displaces the rows, then another displaces the columns.

    Attributes:
        amplitudes: Amplitudes of both sines, in pixels.
        wavelengths: Wavelengths of both sines, in pixels.
        phases: Phases of both sines, in radians.
    """

    amplitudes: tuple[float, float]
    wavelengths: tuple[float, float]
    phases: tuple[float, float]


def ripple(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Displace rows and columns by sines, so that they are alternately stretched and squeezed."""
    (magnitude,) = settings.parameters
    return apply_ripples(image, draw_ripples(settings.stream, len(image), magnitude))


def draw_ripples(stream: Stream, side: int, magnitude: float) -> Ripples:
    """Draw the parameters for a square image with this side in pixels."""
    amplitude = 0.0025 * magnitude * side
    wavelengths = (stream.uniform(0.1, 0.3) * side, stream.uniform(0.1, 0.3) * side)
    phases = (stream.uniform(0, 2 * np.pi), stream.uniform(0, 2 * np.pi))
    return Ripples((amplitude, amplitude), wavelengths, phases)


def apply_ripples(image: ByteImage, ripples: Ripples) -> ByteImage:
    """Displace the pixels of a square image."""
    places = np.arange(len(image))
    rows, columns = (
        places + amplitude * np.sin(2 * np.pi * places / wavelength + phase)
        for amplitude, wavelength, phase in zip(ripples.amplitudes, ripples.wavelengths, ripples.phases, strict=True)
    )
    out = np.empty_like(image)
    _displace(image, rows, columns, out)
    return out


@compiled
def _displace(
    image: ByteImage, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64], out: ByteImage
) -> None:
    side = len(image)
    for row in range(side):
        for column in range(side):
            _sample(image, rows[row], columns[column], row, column, out)


@compiled
def _sample(image: ByteImage, y: float, x: float, row: int, column: int, out: ByteImage) -> None:
    """Set ``out[row, column]`` to the image at ``(y, x)``, interpolated bilinearly and black beyond the edges."""
    side = len(image)
    top, left = int(np.floor(y)), int(np.floor(x))
    down, right = y - top, x - left
    for c in range(3):
        value = 0.0
        if 0 <= top < side:
            if 0 <= left < side:
                value += image[top, left, c] * (1 - right) * (1 - down)
            if 0 <= left + 1 < side:
                value += image[top, left + 1, c] * right * (1 - down)
        if 0 <= top + 1 < side:
            if 0 <= left < side:
                value += image[top + 1, left, c] * (1 - right) * down
            if 0 <= left + 1 < side:
                value += image[top + 1, left + 1, c] * right * down
        out[row, column, c] = np.uint8(min(max(value, 0.0), 255.0))
