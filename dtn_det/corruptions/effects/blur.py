"""Gaussian blur, glass blur, motion blur and zoom blur. Defocus blur is in a separate file."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage, to_bytes
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled


def gaussian_blur(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Blur with a Gaussian filter."""
    (sigma,) = settings.parameters
    return to_bytes(gaussian_filter(image.astype(np.float32), sigma))


def gaussian_filter(image: FloatImage, sigma: float, truncate: float = 4.0) -> FloatImage:
    """Blur as scikit-image's ``gaussian`` does, with OpenCV. Beyond the borders, the outermost pixels are repeated.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)``.
        sigma: Standard deviation of the Gaussian, in pixels.
        truncate: Distance at which the Gaussian is cut off, in sigmas.
    """
    size = 2 * int(truncate * sigma + 0.5) + 1
    blurred: FloatImage = cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REPLICATE)
    return blurred


def glass_blur(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Blur slightly, replace each pixel by a random one a few pixels away, and blur slightly again."""
    sigma, reach, rounds = settings.parameters
    soft = to_bytes(gaussian_filter(image.astype(np.float32), sigma))
    moved = _shuffle(soft, _offsets(settings.stream, soft.shape[:2], int(reach), int(rounds)), int(reach), int(rounds))
    return to_bytes(gaussian_filter(moved.astype(np.float32), sigma))


def _offsets(stream: Stream, size: tuple[int, ...], reach: int, rounds: int) -> npt.NDArray[np.int8]:
    """Draw two offsets (``-reach`` to ``reach - 1``, as the benchmarks' generators do) per visited pixel and round."""
    height, width = size
    count = 2 * rounds * (height - 2 * reach) * (width - 2 * reach)
    return stream.generator.integers(-reach, reach, count, dtype=np.int8)


@compiled
def _shuffle(image: ByteImage, offsets: npt.NDArray[np.int8], reach: int, rounds: int) -> ByteImage:
    """Overwrite each pixel with a pixel near it, in place, from the lower right to the upper left.

    The benchmarks' generators were meant to swap the two pixels, but they assign views, so the second assignment reads
    the pixel that the first has overwritten. The published images were made with this copy, which has less effect than
    a swap.
    """
    height, width = image.shape[:2]
    draw = 0
    for _ in range(rounds):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                other_row, other_column = row + offsets[draw + 1], column + offsets[draw]
                draw += 2
                for c in range(3):
                    image[row, column, c] = image[other_row, other_column, c]
    return image


Taps = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def motion_blur(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Blur along a line in a random direction within 45 degrees of the horizontal."""
    radius, sigma = settings.parameters
    return to_bytes(blur_along(image.astype(np.float32), int(radius), sigma, settings.stream.uniform(-45, 45)))


def blur_along(image: FloatImage, radius: int, sigma: float, angle: float) -> FloatImage:
    """Blur along a line by averaging shifted copies of the image.

    Beyond the borders, the outermost pixels are repeated.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``.
        radius: Half the length of the line, in pixels. The whole line lies on one side of the pixel.
        sigma: Standard deviation of the Gaussian weights along the line, in pixels.
        angle: Direction of the line, in degrees from the horizontal.

    Returns:
        The blurred image, of the shape of ``image``.
    """
    height, width = image.shape[:2]
    rows = image.reshape(height, width, -1)
    blurred = np.zeros_like(rows)
    _average(rows, *taps(radius, sigma, angle, height, width), blurred)
    return blurred.reshape(image.shape)


def taps(radius: int, sigma: float, angle: float, height: int, width: int) -> Taps:
    """Return the weight, the shift down and the shift to the right of each copy that :func:`blur_along` averages.

    Each copy is shifted one pixel further along the line than the one before, rounded to whole pixels. The line ends
    before the first copy that would lie outside the image, as in `imagecorruptions`.
    """
    steps = np.arange(2 * radius + 1)
    weight = np.exp(-(steps**2) / (2 * sigma**2))
    weight /= weight.sum()
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    down = -np.ceil(steps * sine - 0.5).astype(np.int64)
    right = -np.ceil(steps * cosine - 0.5).astype(np.int64)
    leaves = (np.abs(down) >= height) | (np.abs(right) >= width)
    count = int(leaves.argmax()) if leaves.any() else len(steps)
    return weight[:count].astype(np.float32), down[:count], right[:count]


@compiled
def _average(
    image: FloatImage,
    weight: npt.NDArray[np.float32],
    down: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    out: FloatImage,
) -> None:
    height, width, channels = image.shape
    for row in range(height):
        target = out[row].reshape(-1)
        for k in range(weight.size):
            source = image[min(max(row - down[k], 0), height - 1)].reshape(-1)
            # From `first` to `last`, the source pixels are within the image and need no clamping, so this loop is
            # simple.
            first, last = max(right[k], 0) * channels, min(width + right[k], width) * channels
            shift = right[k] * channels
            inner, from_inner, share = target[first:last], source[first - shift : last - shift], weight[k]
            for i in range(inner.size):
                inner[i] += share * from_inner[i]
            for i in range(first):
                target[i] += weight[k] * source[i % channels]
            for i in range(last, width * channels):
                target[i] += weight[k] * source[(width - 1) * channels + i % channels]


Samples = tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]


def zoom_blur(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Average the image and its enlargements, each cropped to the size of the image."""
    height, width, channels = image.shape
    factors = settings.parameters
    total = image.reshape(height, -1).astype(np.float32)
    for factor in factors:
        upper, down = zoom_samples(height, factor, centred=settings.profile.original)
        left, across = zoom_samples(width, factor, centred=settings.profile.original)
        values = (left[:, None] * channels + np.arange(channels, dtype=np.uint32)).reshape(-1)
        _add_zoomed(image.reshape(height, -1), upper, down, values, across.repeat(channels), total)
    return to_bytes(total * np.float32(1 / (len(factors) + 1))).reshape(image.shape)


def zoom_samples(length: int, factor: float, *, centred: bool) -> Samples:
    """Return the source pixels of each pixel of a zoomed axis.

    The middle of the axis is enlarged as by SciPy's ``zoom`` of order 1.

    Args:
        length: Length of the axis before the enlargement, and after cropping, in pixels.
        factor: Factor of the enlargement, at least 1.
        centred: True to crop the enlargement around its centre, as the original generator does; False to keep its
            beginning, as `imagecorruptions` does.

    Returns:
        For each pixel of the enlargement, the index of the source pixel before it, and the weight of the next source
        pixel. The arrays are ``(length,)``, or a little shorter: at some sizes, rounding makes the enlargement a pixel
        too short or puts its last pixel just outside the source, where SciPy returns 0. The benchmarks' images lack
        these pixels too.
    """
    crop = math.ceil(length / factor)
    first = (length - crop) // 2
    enlarged = round(crop * factor)
    trim = (enlarged - length) // 2 if centred else 0
    # The first and the last pixel of the enlargement lie on the first and the last source pixel.
    position = (np.arange(min(length, enlarged)) + trim) * ((crop - 1) / (enlarged - 1))
    position = position[(position >= 0) & (position <= crop - 1)]
    # A position on the last source pixel gets the pixel before it and a weight of 1, so before + 1 always exists.
    before = np.minimum(np.floor(position), crop - 2)
    return (before + first).astype(np.uint32), (position - before).astype(np.float32)


@compiled
def _add_zoomed(
    image: ByteImage,
    upper: npt.NDArray[np.uint32],
    down: npt.NDArray[np.float32],
    left: npt.NDArray[np.uint32],
    across: npt.NDArray[np.float32],
    total: npt.NDArray[np.float32],
) -> None:
    """Add an enlargement to ``total``. ``left`` and ``across`` ``(W * 3,)`` have an entry for each value of a row."""
    blended = np.empty(image.shape[1], dtype=np.float32)
    for row in range(upper.size):
        above, below, share = image[upper[row]], image[upper[row] + 1], down[row]
        for i in range(blended.size):
            blended[i] = np.float32(above[i]) + share * (np.float32(below[i]) - np.float32(above[i]))
        line = total[row]
        for i in range(left.size):
            # The indices are unsigned, so numba does not test for negative ones.
            value = blended[left[i]]
            line[i] += value + across[i] * (blended[left[i] + np.uint32(3)] - value)
