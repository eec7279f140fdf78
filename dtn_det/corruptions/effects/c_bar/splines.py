"""Effects that resample with cubic B-splines: transverse chromatic aberration and circular motion blur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled, compiled_exactly

Floats = npt.NDArray[np.float32]

_PERMUTATIONS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
_TURNS = 21
_POLE = np.float32(np.sqrt(3) - 2)
_MARGIN = 2
_LANES = 16
"""Values per pixel: the channels of four images and four unused values, a multiple of the length of common vectors."""


@dataclass(frozen=True)
class Magnifications:
    """Parameters of transverse chromatic aberration for one image.

    Attributes:
        scales: Magnification of the red, the green and the blue channel.
    """

    scales: tuple[float, float, float]


def transverse_chromatic_abberation(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Magnify the channels differently."""
    (magnitude,) = settings.parameters
    return apply_magnifications(image, draw_magnifications(settings.stream, magnitude))


def draw_magnifications(stream: Stream, magnitude: float) -> Magnifications:
    """Draw random parameters, which do not depend on the size of the image."""
    scales = (1.0, 1 + 0.025 * magnitude, 1 + 0.05 * magnitude)
    first, second, third = (scales[index] for index in _PERMUTATIONS[stream.below(6)])
    return Magnifications((first, second, third))


def apply_magnifications(image: ByteImage, magnifications: Magnifications) -> ByteImage:
    """Magnify the channels of a square image, and cut out the middle.

    The values of the pixels are used as the coefficients of the splines. This makes even an unmagnified channel
    smoother.
    """
    side = len(image)
    out = np.empty_like(image)
    for channel, scale in enumerate(magnifications.scales):
        enlarged = round(side * scale)
        first = (enlarged - side) // 2
        # The corner pixels of the enlarged channel lie on the corner pixels of the original channel.
        places = np.arange(first, first + side) * ((side - 1) / (enlarged - 1))
        starts = np.floor(places).astype(np.int64)
        padded = np.pad(image[:, :, channel].astype(np.float64), _MARGIN, mode="reflect")
        _magnify(padded, channel, starts, np.stack([spline_weights(rest) for rest in places - starts]), out)
    return out


def spline_weights(rest: float) -> npt.NDArray[np.float64]:
    """Return the weights of the four spline coefficients around a position.

    Args:
        rest: Distance of the position from the second coefficient, 0 to 1 pixels.
    """
    other = 1 - rest
    first = other * other * other / 6
    second, third = ((part * part * (part - 2) * 3 + 4) / 6 for part in (rest, other))
    return np.array([first, second, third, 1 - first - second - third])


@compiled_exactly
def _magnify(
    padded: npt.NDArray[np.float64],
    channel: int,
    starts: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    out: ByteImage,
) -> None:
    # The sums often end in .5, and their last bits decide whether they are rounded up or down. So the products and sums
    # are computed in the same order as in SciPy's zoom, and the two axes are not filtered one after the other.
    side = len(out)
    for row in range(side):
        for column in range(side):
            total = 0.0
            for i in range(4):
                source = padded[starts[row] + i + _MARGIN - 1]
                for j in range(4):
                    value = source[starts[column] + j + _MARGIN - 1]
                    total += value * weights[row, i] * weights[column, j]
            out[row, column, channel] = np.uint8(min(max(total + 0.5, 0.0), 255.0))


@dataclass(frozen=True)
class Turning:
    """The parameter of circular motion blur, which is not random.

    Attributes:
        amount: Largest angle by which the image is turned, in degrees.
    """

    amount: float


def circular_motion_blur(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Average copies of the image that are turned about its centre; pixels beyond the image are black."""
    (magnitude,) = settings.parameters
    return apply_turning(image, Turning(1.5 * magnitude))


def apply_turning(image: ByteImage, turning: Turning) -> ByteImage:
    """Average 21 copies of a square image, turned by angles from ``-amount`` to ``amount``.

    Quarter turns about the centre map a pixel to three other pixels, and all four are sampled with the same weights. So
    the loop visits only the upper left quarter. There it blurs four copies of the image at once, turned by 0, 90, 180
    and 270 degrees.
    """
    side = len(image)
    half = (side + 1) // 2
    steps = np.linspace(-1, 1, _TURNS)
    shares = np.exp(-2 * steps**2)
    angles = np.deg2rad(turning.amount * steps)
    own = spline_coefficients(image.astype(np.float32))
    padded = np.pad(own, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), mode="reflect")
    coefficients = np.zeros((*padded.shape[:2], _LANES), np.float32)
    for turn in range(4):
        coefficients[:, :, 3 * turn : 3 * turn + 3] = np.rot90(padded, turn)
    blurred = np.empty((half, half, _LANES), np.uint8)
    weights = (shares / shares.sum()).astype(np.float32)
    _turn(coefficients.reshape(len(padded), -1), np.cos(angles), np.sin(angles), weights, blurred)
    out = np.empty_like(image)
    for turn in range(4):
        np.rot90(out, turn)[:half, :half] = blurred[:, :, 3 * turn : 3 * turn + 3]
    return out


def spline_coefficients(image: FloatImage) -> FloatImage:
    """Return the coefficients of the cubic B-spline that interpolates an image mirrored at its edges.

    Args:
        image: ``(H, W, C)``.

    Returns:
        ``(H, W, C)``.
    """
    coefficients = np.ascontiguousarray(image)
    for _ in range(2):
        coefficients = np.ascontiguousarray(coefficients.swapaxes(0, 1))
        _filter(coefficients.reshape(len(coefficients), -1))
    return coefficients


@compiled
def _filter(rows: Floats) -> None:
    """Filter each column in place, first downwards and then upwards (Unser et al., "B-Spline Signal Processing")."""
    length, width = rows.shape
    pole, gain = _POLE, np.float32(6)
    start = np.zeros(width, np.float32)
    power = gain
    for i in range(min(length, 16)):
        for j in range(width):
            start[j] += power * rows[i, j]
        power *= pole
    for j in range(width):
        rows[0, j] = start[j]
    for i in range(1, length):
        for j in range(width):
            rows[i, j] = gain * rows[i, j] + pole * rows[i - 1, j]
    last = length - 1
    end = pole / (pole * pole - np.float32(1))
    for j in range(width):
        rows[last, j] = end * (rows[last, j] + pole * rows[last - 1, j])
    for i in range(last - 1, -1, -1):
        for j in range(width):
            rows[i, j] = pole * (rows[i + 1, j] - rows[i, j])


@compiled
def _turn(
    coefficients: Floats,
    cosines: npt.NDArray[np.float64],
    sines: npt.NDArray[np.float64],
    shares: Floats,
    out: npt.NDArray[np.uint8],
) -> None:
    """Average the turned copies, weighted by ``shares``. In ``coefficients``, all channels of a pixel are adjacent."""
    side = len(coefficients) - 2 * _MARGIN
    centre = (side - 1) / 2
    low, high = np.float32(0), np.float32(255)
    # The indices are unsigned, so numba does not test for negative indices in the inner loop.
    one, two, three = np.uint64(_LANES), np.uint64(2 * _LANES), np.uint64(3 * _LANES)
    sums = np.empty(_LANES, np.float32)
    for row in range(len(out)):
        for column in range(len(out)):
            sums[:] = low
            dy, dx = row - centre, column - centre
            for step in range(len(shares)):
                y = centre + cosines[step] * dy + sines[step] * dx
                x = centre + cosines[step] * dx - sines[step] * dy
                if y < 0 or x < 0 or y > side - 1 or x > side - 1:
                    continue
                top, left = int(y), int(x)
                w0, w1, w2, w3 = _weights(np.float32(x - left))
                v0, v1, v2, v3 = _weights(np.float32(y - top))
                share = shares[step]
                v0, v1, v2, v3 = v0 * share, v1 * share, v2 * share, v3 * share
                r0, r1 = coefficients[np.uint64(top + 1)], coefficients[np.uint64(top + 2)]
                r2, r3 = coefficients[np.uint64(top + 3)], coefficients[np.uint64(top + 4)]
                first = np.uint64(_LANES * (left + 1))
                for lane in range(_LANES):
                    a = first + np.uint64(lane)
                    b, c, d = a + one, a + two, a + three
                    sums[np.uint64(lane)] += (
                        v0 * (w0 * r0[a] + w1 * r0[b] + w2 * r0[c] + w3 * r0[d])
                        + v1 * (w0 * r1[a] + w1 * r1[b] + w2 * r1[c] + w3 * r1[d])
                        + v2 * (w0 * r2[a] + w1 * r2[b] + w2 * r2[c] + w3 * r2[d])
                        + v3 * (w0 * r3[a] + w1 * r3[b] + w2 * r3[c] + w3 * r3[d])
                    )
            for lane in range(_LANES):
                out[row, column, lane] = np.uint8(min(max(sums[lane], low), high))


@compiled
def _weights(rest: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    two, three, four, sixth = np.float32(2), np.float32(3), np.float32(4), np.float32(1 / 6)
    other = np.float32(1) - rest
    second = (rest * rest * (rest - two) * three + four) * sixth
    third = (other * other * (other - two) * three + four) * sixth
    return other * other * other * sixth, second, third, rest * rest * rest * sixth
