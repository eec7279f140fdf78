"""Elastic transform: a smooth random displacement of the pixels, after a random affine map in some benchmarks."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage, to_bytes
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled

# Distance at which the generators cut off the smoothing kernel, in sigmas.
TRUNCATE = 3.0
# Share of the energy that a low-rank smoothing may lose by omitting the weakest frequencies.
LOST_ENERGY = 2e-5

Basis = npt.NDArray[np.float32]


def elastic_transform(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Displace the pixels by smooth noise. Profiles with ``original`` first apply a random affine map."""
    height, width = image.shape[:2]
    amplitude, sigma, shift = settings.parameters
    values = image.astype(np.float32)
    if settings.profile.original:
        values = _affine(values, shift, settings.stream)
        sigmas = (sigma, sigma)
    else:
        amplitude *= 0.005 * height
        sigmas = (sigma / 100 * height, sigma / 100 * width)
    if amplitude == 0:
        return to_bytes(values)
    across = amplitude * displacement((height, width), sigmas, settings.stream)
    down = amplitude * displacement((height, width), sigmas, settings.stream)
    moved = np.empty_like(image)
    _sample(values, down, across, moved)
    return moved


def _affine(image: FloatImage, shift: float, stream: Stream) -> FloatImage:
    """Apply the affine map that moves three points around the centre by up to ``shift`` pixels in each direction."""
    height, width = image.shape[:2]
    # The generator uses (height, width) as (x, y) here, which makes no difference for its square images.
    centre = np.array([width // 2, height // 2], dtype=np.float32)
    side = min(height, width) // 3
    corners = centre + side * np.array([[1, 1], [1, -1], [-1, -1]], dtype=np.float32)
    moved = corners + (2 * shift * stream.uniforms((3, 2)) - shift)
    matrix = cv2.getAffineTransform(corners, moved.astype(np.float32))
    warped = np.empty_like(image)
    # OpenCV is not used here, because its warps round the coordinates in version 4 but not in version 5.
    _warp(image, cv2.invertAffineTransform(matrix), warped)
    return warped


@compiled
def _warp(image: FloatImage, matrix: npt.NDArray[np.float64], out: FloatImage) -> None:
    """Interpolate bilinearly at ``matrix @ (x, y, 1)``; the image is mirrored about its outermost pixels."""
    height, width, channels = image.shape
    for row in range(height):
        for column in range(width):
            x = matrix[0, 0] * column + matrix[0, 1] * row + matrix[0, 2]
            y = matrix[1, 0] * column + matrix[1, 1] * row + matrix[1, 2]
            top, left = math.floor(y), math.floor(x)
            lower, right = np.float32(y - top), np.float32(x - left)
            if 0 <= top < height - 1 and 0 <= left < width - 1:
                bottom, end = top + 1, left + 1
            else:
                top, bottom = _mirror_within(top, height), _mirror_within(top + 1, height)
                left, end = _mirror_within(left, width), _mirror_within(left + 1, width)
            for c in range(channels):
                above = image[top, left, c] + right * (image[top, end, c] - image[top, left, c])
                below = image[bottom, left, c] + right * (image[bottom, end, c] - image[bottom, left, c])
                out[row, column, c] = above + lower * (below - above)


@compiled
def _mirror_within(index: int, length: int) -> int:
    """Return the pixel for an index on an axis that is mirrored about its outermost pixels (c b | a b c | b a)."""
    index = index % (2 * length - 2)
    return index if index < length else 2 * length - 2 - index


def displacement(size: tuple[int, int], sigmas: tuple[float, float], stream: Stream) -> FloatImage:
    """Draw uniform noise from -1 to 1 and smooth it with a Gaussian; the noise is mirrored at the edges of the image.

    Args:
        size: Height and width of the image, in pixels.
        sigmas: Sigmas of the Gaussian along height and width, in pixels.
        stream: Random numbers.

    Returns:
        ``(H, W)`` noise.
    """
    noise = 2 * stream.uniforms(size) - 1
    rows, columns = (smoothing_basis(length, sigma) for length, sigma in zip(size, sigmas, strict=True))
    taps = [2 * _reach(sigma) + 1 for sigma in sigmas]
    if 2 * (len(rows) + len(columns)) < sum(taps):
        smooth = np.empty_like(noise)
        _smooth_by_basis(noise, rows, columns, smooth)
        return smooth
    blurred: FloatImage = cv2.GaussianBlur(
        noise, (taps[1], taps[0]), sigmaX=sigmas[1], sigmaY=sigmas[0], borderType=cv2.BORDER_REFLECT
    )
    return blurred


def _reach(sigma: float) -> int:
    return int(TRUNCATE * sigma + 0.5)


@functools.lru_cache(maxsize=64)
def smoothing_basis(length: int, sigma: float) -> Basis:
    """Decompose a wide Gaussian filter on a mirrored axis as ``basis.T @ basis``.

    A symmetric kernel on an axis mirrored about its ends is diagonal in the cosines of the DCT-II. A wide Gaussian
    passes few of these frequencies, so the basis has few rows.

    Args:
        length: Length of the axis, in pixels.
        sigma: Sigma of the Gaussian, in pixels.

    Returns:
        ``(K, length)`` basis. Negative frequency responses, which result from the cut-off of the kernel, are set to 0.
    """
    offset = np.arange(-_reach(sigma), _reach(sigma) + 1)
    kernel = np.exp(-(offset**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    frequency = np.arange(length)
    response = np.cos(math.pi / length * frequency[:, None] * offset) @ kernel  # (length,)
    energy = np.cumsum((response**2)[::-1])[::-1]
    count = max(int((energy > LOST_ENERGY * energy[0]).sum()), 1)
    position = np.arange(length) + 0.5
    cosines = np.sqrt(2 / length) * np.cos(math.pi / length * frequency[:count, None] * position)  # (K, length)
    cosines[0] /= math.sqrt(2)
    basis: Basis = (np.sqrt(response[:count].clip(min=0))[:, None] * cosines).astype(np.float32)
    basis.setflags(write=False)
    return basis


@compiled
def _smooth_by_basis(noise: FloatImage, rows: Basis, columns: Basis, out: FloatImage) -> None:
    """Compute ``rows.T @ (rows @ noise @ columns.T) @ columns``; not with BLAS: its sums depend on its threads."""
    height, width = noise.shape
    spectrum = np.zeros((rows.shape[0], columns.shape[0]), dtype=np.float32)
    line = np.empty(width, dtype=np.float32)
    for k in range(rows.shape[0]):
        line[:] = 0
        for i in range(height):
            for j in range(width):
                line[j] += rows[k, i] * noise[i, j]
        for m in range(columns.shape[0]):
            total = np.float32(0)
            for j in range(width):
                total += line[j] * columns[m, j]
            spectrum[k, m] = total
    expanded = np.zeros((rows.shape[0], width), dtype=np.float32)
    for k in range(rows.shape[0]):
        for m in range(columns.shape[0]):
            for j in range(width):
                expanded[k, j] += spectrum[k, m] * columns[m, j]
    for i in range(height):
        out[i] = 0
        for k in range(rows.shape[0]):
            for j in range(width):
                out[i, j] += rows[k, i] * expanded[k, j]


@compiled
def _mirror(index: int, length: int) -> int:
    """Return the pixel for an index on a mirrored axis (c b a | a b c | c b a)."""
    index = index % (2 * length)
    return index if index < length else 2 * length - 1 - index


@compiled
def _sample(image: FloatImage, down: FloatImage, across: FloatImage, out: ByteImage) -> None:
    """Interpolate bilinearly at the displaced positions, and round down."""
    height, width, channels = image.shape
    for row in range(height):
        for column in range(width):
            y, x = np.float32(row) + down[row, column], np.float32(column) + across[row, column]
            top, left = math.floor(y), math.floor(x)
            lower, right = y - np.float32(top), x - np.float32(left)
            if 0 <= top < height - 1 and 0 <= left < width - 1:
                bottom, end = top + 1, left + 1
            else:
                top, bottom = _mirror(top, height), _mirror(top + 1, height)
                left, end = _mirror(left, width), _mirror(left + 1, width)
            for c in range(channels):
                above = image[top, left, c] + right * (image[top, end, c] - image[top, left, c])
                below = image[bottom, left, c] + right * (image[bottom, end, c] - image[bottom, left, c])
                value = above + lower * (below - above)
                out[row, column, c] = np.uint8(min(max(value, np.float32(0)), np.float32(255)))
