"""Perlin noise: turbulence of five octaves, blended with the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled

_NODES = 256
_OCTAVES = 5
_CELLS = 7
"""Cells of the coarsest lattice along a side."""


@dataclass(frozen=True)
class Turbulence:
    """Random parameters of Perlin noise.

    Attributes:
        order: ``(256,)`` permutation that assigns a gradient to each node of the lattice.
        gradients: ``(256, 2)`` vectors of length 1.
        alpha: Share of the noise in the result.
    """

    order: npt.NDArray[np.int64]
    gradients: npt.NDArray[np.float64]
    alpha: float


def perlin_noise(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Blend the image with grey turbulence."""
    (magnitude,) = settings.parameters
    return apply_turbulence(image, draw_turbulence(settings.stream, magnitude))


def draw_turbulence(stream: Stream, magnitude: float) -> Turbulence:
    """Draw the parameters, which do not depend on the size of the image."""
    gradients = normalized(stream.generator.integers(-256, 256, (_NODES, 2)) / 256)
    return Turbulence(stream.generator.permutation(_NODES), gradients, 0.05 * magnitude)


def normalized(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale vectors to length 1; a zero vector stays zero.

    The generator of the benchmark's authors divides zero vectors by zero. So in one of 1,000 images, about a fourteenth
    of the pixels become NaN, and then a level that depends on the processor.
    """
    lengths = np.hypot(vectors[:, 0], vectors[:, 1])[:, None]
    unit: npt.NDArray[np.float64] = vectors / np.where(lengths == 0, 1, lengths)
    return unit


def apply_turbulence(image: ByteImage, turbulence: Turbulence) -> ByteImage:
    """Blend a square image with noise of these parameters."""
    noise = np.zeros(image.shape[:2], np.float32)
    gradients = turbulence.gradients.astype(np.float32)
    for octave in range(_OCTAVES):
        places = np.arange(len(image)) * (_CELLS * 2.0**octave / len(image))
        cells = np.floor(places).astype(np.int32)
        _add_octave(noise, cells, (places - cells).astype(np.float32), turbulence.order, gradients, 0.5**octave)
    out = np.empty_like(image)
    _blend(image, noise, turbulence.alpha, out)
    return out


@compiled
def _add_octave(
    noise: FloatImage,
    cells: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.float32],
    order: npt.NDArray[np.int64],
    gradients: npt.NDArray[np.float32],
    weight: float,
) -> None:
    """Add one octave: the absolute value of gradient noise, times ``weight``.

    ``cells`` has the cell of the lattice in which each pixel of an axis lies, and ``offsets`` the position within the
    cell, from 0 to 1.
    """
    side, nodes = len(noise), cells[-1] + 2
    one, two, three = np.float32(1), np.float32(2), np.float32(3)
    scale = np.float32(1.5 * weight)
    # Value and slope of the noise along a row of pixels, at each node of the lattice.
    values, slopes = np.empty(nodes, np.float32), np.empty(nodes, np.float32)
    for row in range(side):
        above, below = order[cells[row] % _NODES], order[(cells[row] + 1) % _NODES]
        y = offsets[row]
        fade = y * y * (three - two * y)
        for node in range(nodes):
            first = order[(above + node) % _NODES]
            second = order[(below + node) % _NODES]
            start = y * gradients[first, 0]
            values[node] = start + fade * ((y - one) * gradients[second, 0] - start)
            slopes[node] = gradients[first, 1] + fade * (gradients[second, 1] - gradients[first, 1])
        for column in range(side):
            cell, x = cells[column], offsets[column]
            left = values[cell] + x * slopes[cell]
            right = values[cell + 1] + (x - one) * slopes[cell + 1]
            noise[row, column] += scale * abs(left + x * x * (three - two * x) * (right - left))


@compiled
def _blend(image: ByteImage, noise: FloatImage, alpha: float, out: ByteImage) -> None:
    side, keep, add = len(image), np.float32(1 - alpha), np.float32(255 * alpha)
    half, one = np.float32(0.5), np.float32(1)
    for row in range(side):
        for column in range(side):
            grey = add * min(half * noise[row, column] + half, one)
            for c in range(3):
                out[row, column, c] = np.uint8(np.float32(image[row, column, c]) * keep + grey)
