"""Grey waves that are added to the image: a plane wave of one frequency, and wavy rings around a point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlaneWave:
    """Parameters of a plane wave for one image.

    Attributes:
        frequency: Phase difference between neighbouring columns, then between neighbouring rows, in radians from -pi to
            pi.
        phase: Phase in the upper left corner, in radians.
        intensity: Amplitude, in grey levels.
    """

    frequency: tuple[float, float]
    phase: float
    intensity: float


def single_frequency_greyscale(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Add a plane wave of grey."""
    (magnitude,) = settings.parameters
    return apply_plane_wave(image, draw_plane_wave(settings.stream, magnitude))


def draw_plane_wave(stream: Stream, magnitude: float) -> PlaneWave:
    """Draw random parameters, which do not depend on the size of the image."""
    longer = stream.uniform(-np.pi, np.pi)
    shorter = stream.uniform(-abs(longer), abs(longer))
    pair = (longer, shorter) if stream.below(2) else (shorter, longer)
    return PlaneWave(pair, stream.uniform(0, 2 * np.pi), 19.6 * magnitude)


def apply_plane_wave(image: ByteImage, wave: PlaneWave) -> ByteImage:
    """Add the wave with these parameters to a square image."""
    across = np.arange(len(image)) * wave.frequency[0]
    down = np.arange(len(image)) * wave.frequency[1] + wave.phase
    out = np.empty_like(image)
    # Compute the sine of the sum of two phases from the sines and cosines of each column and each row.
    strength = wave.intensity
    _add_plane(image, np.sin(across), np.cos(across), strength * np.sin(down), strength * np.cos(down), out)
    return out


@compiled
def _add_plane(
    image: ByteImage, sines: Doubles, cosines: Doubles, row_sines: Doubles, row_cosines: Doubles, out: ByteImage
) -> None:
    side = len(image)
    for row in range(side):
        for column in range(side):
            grey = sines[column] * row_cosines[row] + cosines[column] * row_sines[row]
            for c in range(3):
                out[row, column, c] = np.uint8(min(max(image[row, column, c] + grey, 0.0), 255.0))


@dataclass(frozen=True)
class Rings:
    """Parameters of wavy rings for one image.

    Attributes:
        centre: Column and row of the point that the rings go around, in pixels.
        frequency: Number of waves along the circumference of a ring, not necessarily whole.
        amplitude: Amplitude of these waves, in pixels.
        ring_width: Width of a ring, in pixels.
        intensity: Rise of the grey from the inner to the outer edge of a ring, in grey levels.
    """

    centre: tuple[float, float]
    frequency: float
    amplitude: float
    ring_width: float
    intensity: float


def cocentric_sine_waves(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Add wavy rings. In each ring, the grey rises from the inner to the outer edge."""
    (magnitude,) = settings.parameters
    return apply_rings(image, draw_rings(settings.stream, len(image), magnitude))


def draw_rings(stream: Stream, side: int, magnitude: float) -> Rings:
    """Draw random parameters for a square image of ``side`` pixels."""
    return Rings(
        centre=(stream.uniform(0, side), stream.uniform(0, side)),
        frequency=stream.uniform(0, 10),
        amplitude=stream.uniform(0, side / 10),
        ring_width=stream.uniform(0, side / 10),
        intensity=12.8 * magnitude,
    )


def apply_rings(image: ByteImage, rings: Rings) -> ByteImage:
    """Add the rings with these parameters to a square image."""
    out = np.empty_like(image)
    _add_rings(image, *rings.centre, rings.frequency, rings.amplitude, rings.ring_width, rings.intensity, out)
    return out


@compiled
def _add_rings(
    image: ByteImage,
    centre_x: float,
    centre_y: float,
    frequency: float,
    amplitude: float,
    ring_width: float,
    intensity: float,
    out: ByteImage,
) -> None:
    # Double precision is needed, because the grey jumps at the edges of rings that may be thinner than a pixel.
    side = len(image)
    for row in range(side):
        dy = row - centre_y
        for column in range(side):
            dx = column - centre_x
            distance = np.sqrt(dx * dx + dy * dy) + np.sin(np.arctan2(dx, dy) * frequency) * amplitude
            rings = distance / ring_width
            grey = (rings - np.floor(rings) - 0.5) * intensity
            for c in range(3):
                out[row, column, c] = np.uint8(min(max(image[row, column, c] + grey, 0.0), 255.0))
