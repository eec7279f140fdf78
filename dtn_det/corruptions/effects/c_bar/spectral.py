"""Noises with a given spectrum: brownish noise added to the image, and blue noise that blackens single pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from dtn_det.corruptions.effects.c_bar.trigonometry import sine_and_cosine
from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BrownishNoise:
    """Random parameters of brownish noise.

    Attributes:
        phases: ``(3, phase_count(side))`` phases of the spectrum of each channel, in radians.
        intensity: Standard deviation of the noise, in grey levels.
    """

    phases: Floats
    intensity: float


@dataclass(frozen=True)
class BlueMask:
    """Random parameters of blue noise.

    Attributes:
        phases: ``(phase_count(side),)`` phases of the spectrum, in radians.
        threshold: Largest value of the noise at which a pixel becomes black. The noise has a standard deviation of 1.
    """

    phases: Floats
    threshold: float


def brownish_noise(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Add noise whose amplitude falls with the square of the frequency, with separate noise for each channel."""
    (magnitude,) = settings.parameters
    return apply_brownish_noise(image, draw_brownish_noise(settings.stream, len(image), magnitude))


def blue_noise_sample(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Blacken the pixels where a noise is low. The amplitude of the noise grows with the frequency."""
    (magnitude,) = settings.parameters
    return apply_blue_mask(image, draw_blue_mask(settings.stream, len(image), magnitude))


def phase_count(side: int) -> int:
    """Return the number of random phases: half of a spectrum, without the middle point if ``side`` is odd."""
    return side * (side // 2) + (side // 2 if side % 2 else 0)


def draw_brownish_noise(stream: Stream, side: int, magnitude: float) -> BrownishNoise:
    """Draw the parameters for a square image with this side in pixels."""
    return BrownishNoise(_phases(stream, (3, phase_count(side))), 6.4 * magnitude)


def draw_blue_mask(stream: Stream, side: int, magnitude: float) -> BlueMask:
    """Draw the parameters for a square image with this side in pixels."""
    return BlueMask(_phases(stream, (phase_count(side),)), 0.3 * magnitude - 2.5)


def _phases(stream: Stream, shape: tuple[int, ...]) -> Floats:
    return stream.uniforms(shape) * np.float32(2 * np.pi)


def apply_brownish_noise(image: ByteImage, noise: BrownishNoise) -> ByteImage:
    """Add noise with these parameters to a square image."""
    side = len(image)
    amplitudes = (1 / (squared_frequencies(side) + 1)).astype(np.float32)
    red, green, blue = (spectral_noise(amplitudes, phases) for phases in noise.phases)
    out = np.empty_like(image)
    _add(image, red, green, blue, noise.intensity, out)
    return out


def apply_blue_mask(image: ByteImage, mask: BlueMask) -> ByteImage:
    """Blacken the pixels of a square image that these parameters select."""
    amplitudes = np.sqrt(squared_frequencies(len(image))).astype(np.float32)
    kept = spectral_noise(amplitudes, mask.phases) > mask.threshold
    out: ByteImage = image * kept[:, :, None]
    return out


def squared_frequencies(side: int) -> npt.NDArray[np.float64]:
    """Return the squared distances from the middle of a spectrum, index ``side / 2`` of both axes: ``(side, side)``."""
    distances = (np.arange(side) - side / 2) ** 2
    return distances[:, None] + distances


def spectral_noise(amplitudes: Floats, phases: Floats) -> FloatImage:
    """Make noise from the amplitudes and phases of its spectrum.

    The zero frequency is at index ``side - side // 2`` of both axes. Each phase in the right half of the array equals
    the phase at the point opposite to it through the centre of the array. A real field would need opposite phases at
    points opposite to each other through the zero frequency. So the inverse transform is complex. Its real part is
    used, as in the generator of the benchmarks' authors.

    Args:
        amplitudes: ``(side, side)``.
        phases: ``(phase_count(side),)`` phases in radians: the left half of the array, row by row, and if ``side`` is
            odd, then the upper half of the middle column.

    Returns:
        ``(side, side)`` noise with a standard deviation of 1.
    """
    side = len(amplitudes)
    waves = np.empty((2, side, side), np.float32)
    _unfold(phases, waves)
    half = np.empty((side, side // 2 + 1), np.complex64)
    _real_spectrum(amplitudes, waves, half)
    noise: FloatImage = scipy.fft.irfft2(half, s=(side, side))
    return noise / np.float32(noise.std(dtype=np.float64))


@compiled
def _unfold(phases: Floats, waves: npt.NDArray[np.float32]) -> None:
    """Write the cosines and sines of all phases of the spectrum, given the phases of its left half."""
    side = waves.shape[1]
    half = side // 2
    for row in range(side):
        for column in range(half):
            waves[1, row, column], waves[0, row, column] = sine_and_cosine(phases[row * half + column])
    for part in range(2):
        for row in range(side):
            for column in range(half):
                waves[part, side - 1 - row, side - 1 - column] = waves[part, row, column]
    if side % 2 == 1:
        waves[0, half, half], waves[1, half, half] = np.float32(1), np.float32(0)
        for row in range(half):
            sine, cosine = sine_and_cosine(phases[side * half + row])
            waves[0, row, half] = waves[0, side - 1 - row, half] = cosine
            waves[1, row, half] = waves[1, side - 1 - row, half] = sine


@compiled
def _real_spectrum(amplitudes: Floats, waves: npt.NDArray[np.float32], out: npt.NDArray[np.complex64]) -> None:
    """Write the half spectrum of the real part of the inverse transform, in the order that ``irfft2`` expects."""
    side, half, count = waves.shape[1], waves.shape[1] // 2, out.shape[1]
    for row in range(side):
        y, opposite_y = (row + side - half) % side, (2 * side - row - half) % side
        for column in range(count):
            x, opposite_x = (column + side - half) % side, (2 * side - column - half) % side
            one, other = amplitudes[y, x], amplitudes[opposite_y, opposite_x]
            real = one * waves[0, y, x] + other * waves[0, opposite_y, opposite_x]
            imaginary = one * waves[1, y, x] - other * waves[1, opposite_y, opposite_x]
            out[row, column] = np.complex64(complex(real, imaginary))


@compiled
def _add(image: ByteImage, red: Floats, green: Floats, blue: Floats, intensity: float, out: ByteImage) -> None:
    side, strength = len(image), np.float32(intensity)
    low, high = np.float32(0), np.float32(255)
    for row in range(side):
        for column in range(side):
            for c in range(3):
                field = red if c == 0 else green if c == 1 else blue
                value = np.float32(image[row, column, c]) + strength * field[row, column]
                out[row, column, c] = np.uint8(min(max(value, low), high))
