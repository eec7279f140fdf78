"""Procedural textures.

The same seed produces the same pixels on every machine. The code uses only additions, products, divisions and
comparisons of float64, which IEEE 754 defines to the last bit, and ``numpy.random.RandomState``, whose random numbers
numpy has frozen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]
Field = Callable[[np.random.RandomState, int, int], FloatArray]


def rotation(rng: np.random.RandomState, tilt: float = 1.0) -> tuple[float, float]:
    """Return cosine and sine of a random angle, without trigonometric functions (they differ between C libraries).

    Args:
        tilt: Tangent of half the largest angle in either direction; 1 is 90 degrees.
    """
    t = tilt * (2 * rng.random_sample() - 1)  # tangent of half the angle
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def grid(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Return the coordinates ``x`` and ``y`` of the pixel centres, each ``(height, width)``."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64) + 0.5
    return x, y


def _rotated(rng: np.random.RandomState, height: int, width: int, period: float) -> tuple[FloatArray, FloatArray]:
    """Return randomly rotated and shifted pixel coordinates, in units of ``period``."""
    x, y = grid(height, width)
    cos, sin = rotation(rng)
    return (cos * x - sin * y) / period + rng.random_sample(), (sin * x + cos * y) / period + rng.random_sample()


def _period(rng: np.random.RandomState) -> float:
    return 4 + 16 * rng.random_sample()


def ramp(rng: np.random.RandomState, height: int, width: int) -> FloatArray:
    """Draw a linear gradient from 0 to 1."""
    along, _ = _rotated(rng, height, width, 1.0)
    low, high = along.min(), along.max()
    return (along - low) / (high - low)


def stripes(rng: np.random.RandomState, height: int, width: int) -> FloatArray:
    """Draw parallel stripes with a triangular profile from 0 to 1."""
    along, _ = _rotated(rng, height, width, _period(rng))
    return np.abs(2 * (along - np.floor(along)) - 1)


def checks(rng: np.random.RandomState, height: int, width: int) -> FloatArray:
    """A chessboard."""
    along, across = _rotated(rng, height, width, _period(rng))
    return (np.floor(along) + np.floor(across)) % 2


def dots(rng: np.random.RandomState, height: int, width: int) -> FloatArray:
    """Draw a grid of dots: 1 inside, 0 outside."""
    along, across = _rotated(rng, height, width, _period(rng))
    u, v = along - np.floor(along) - 0.5, across - np.floor(across) - 0.5
    return np.where(u * u + v * v < 0.09, 1.0, 0.0)


def clouds(rng: np.random.RandomState, height: int, width: int) -> FloatArray:
    """Draw two octaves of value noise, from 0 to 1."""
    period = 8 + 24 * rng.random_sample()
    return 0.7 * _value_noise(rng, height, width, period) + 0.3 * _value_noise(rng, height, width, period / 3)


def speckle(rng: np.random.RandomState, height: int, width: int) -> FloatArray:
    """Draw independent noise from 0 to 1 in blocks of two by two pixels."""
    noise = rng.random_sample(((height + 1) // 2, (width + 1) // 2))
    return noise.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]


FIELDS: tuple[Field, ...] = (ramp, stripes, checks, dots, clouds, speckle)
"""Every texture: a function of a random state, a height and a width that returns values in [0, 1]."""


def _value_noise(rng: np.random.RandomState, height: int, width: int, period: float) -> FloatArray:
    """Draw random values from 0 to 1 on a lattice, interpolated bilinearly."""
    lattice = rng.random_sample((int(height / period) + 2, int(width / period) + 2))
    y, x = (np.arange(size) / period for size in (height, width))
    row, col = y.astype(np.int64), x.astype(np.int64)
    fy, fx = (y - row)[:, None], (x - col)[None, :]
    top = lattice[row][:, col] * (1 - fx) + lattice[row][:, col + 1] * fx
    bottom = lattice[row + 1][:, col] * (1 - fx) + lattice[row + 1][:, col + 1] * fx
    return top * (1 - fy) + bottom * fy


def paint(rng: np.random.RandomState, height: int, width: int, colours: FloatArray) -> FloatArray:
    """Draw a random texture ``(height, width, 3)`` between two colours, ``(2, 3)``, all in [0, 255]."""
    field = FIELDS[rng.randint(len(FIELDS))](rng, height, width)[:, :, None]
    return colours[0] + field * (colours[1] - colours[0])
