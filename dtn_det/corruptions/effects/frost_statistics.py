"""Statistics of the six frost textures of ImageNet-C. The textures that this package draws get the same statistics.

The statistics were measured on ``frost1.png`` to ``frost6.jpg`` of github.com/hendrycks/robustness
(ImageNet-C/imagenet_c/imagenet_c/frost) with :func:`quantiles`, :func:`spectrum` and :func:`layout`. The second and the
third file hold the same picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHARES = (0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995, 1)
"""Share of the pixels below each stored quantile."""

Values = npt.NDArray[np.floating] | npt.NDArray[np.uint8]

BANDS = 2.0 ** np.arange(-8, 0, 0.5)
"""Upper ends of the frequency bands, in cycles per pixel: ``(16,)``. The last is the highest frequency that occurs."""


@dataclass(frozen=True)
class Statistics:
    """The statistics of a texture.

    Attributes:
        size: Height and width, in pixels.
        quantiles: Quantiles of the red, green and blue channels at :data:`SHARES`.
        spectrum: Spectrum of the green channel: see :func:`spectrum`.
        layout: Layout of the green channel: see :func:`layout`.
        correlations: Correlations of the red and the blue channel with the green channel.
    """

    size: tuple[int, int]
    quantiles: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    spectrum: tuple[float, ...]
    layout: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
    correlations: tuple[float, float]


def quantiles(values: Values) -> npt.NDArray[np.float64]:
    """Return the ``(17,)`` quantiles of values at :data:`SHARES`."""
    return np.asarray(np.quantile(values, SHARES), np.float64)


def layout(channel: Values) -> npt.NDArray[np.float64]:
    """Return the mean of each cell of a ``(3, 3)`` grid.

    The place of bright areas matters, because random crops show the middle of a texture more often than its edges.
    """
    rows = (strip.mean(axis=0) for strip in np.array_split(channel, 3, axis=0))
    return np.array([[cell.mean() for cell in np.array_split(row, 3)] for row in rows])


def band_of_each_frequency(height: int, width: int) -> npt.NDArray[np.intp]:
    """Return the band (0 to 15) of each coefficient of a real Fourier transform: ``(height, width // 2 + 1)``."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    bands: npt.NDArray[np.intp] = np.searchsorted(BANDS, frequency).clip(max=len(BANDS) - 1)
    return bands


def spectrum(channel: Values) -> npt.NDArray[np.float64]:
    """Return the mean power of the frequencies of each band.

    The image is faded out towards its edges before the transform, because differences between opposite edges would
    contribute to all frequencies.

    Args:
        channel: ``(H, W)`` values.

    Returns:
        ``(16,)`` powers in decibels relative to the mean over all frequencies.
    """
    height, width = channel.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.rfft2((channel - np.average(channel, weights=window)) * window)) ** 2
    bands = band_of_each_frequency(height, width).reshape(-1)
    mean = np.bincount(bands, power.reshape(-1), len(BANDS)) / np.bincount(bands, minlength=len(BANDS))
    decibels: npt.NDArray[np.float64] = 10 * np.log10(mean / power.mean())
    return decibels


_SECOND_AND_THIRD = Statistics(
    size=(315, 560),
    quantiles=(
        (55, 127, 147, 162, 173, 185, 193, 199, 204, 208, 213, 218, 225, 230, 237, 244, 253),
        (56, 129, 150, 165, 176, 189, 197, 203, 209, 213, 218, 224, 230, 235, 241, 248, 255),
        (60, 135, 157, 172, 184, 198, 206, 213, 218, 224, 228, 234, 240, 244, 248, 251, 255),
    ),
    spectrum=(35.1, 28.5, 24.5, 18.1, 18.7, 15.5, 14.2, 11.8, 10.9, 8.3, 4.6, 1.9, -0.5, -3.6, -8.9, -15.7),
    layout=((226, 220, 215), (217, 195, 201), (205, 183, 187)),
    correlations=(0.996, 0.995),
)

TEXTURES = (
    Statistics(
        size=(600, 900),
        quantiles=(
            (15, 28, 34, 40, 46, 54, 61, 67, 74, 82, 90, 100, 115, 127, 142, 157, 201),
            (99, 114, 119, 123, 128, 135, 140, 144, 148, 152, 157, 163, 171, 178, 185, 194, 230),
            (115, 132, 137, 141, 146, 152, 157, 162, 166, 169, 174, 179, 186, 191, 197, 207, 235),
        ),
        spectrum=(38.5, 33.6, 28.1, 22.3, 18.4, 16.3, 11.4, 7.3, 3.4, 1.6, 0.2, -1.2, -2.3, -4.4, -9.1, -14.8),
        layout=((156, 150, 159), (141, 145, 150), (146, 150, 146)),
        correlations=(0.824, 0.933),
    ),
    _SECOND_AND_THIRD,
    _SECOND_AND_THIRD,
    Statistics(
        size=(350, 527),
        quantiles=(
            (15, 59, 79, 91, 102, 115, 124, 131, 138, 144, 151, 159, 171, 183, 203, 231, 251),
            (24, 73, 93, 105, 118, 131, 139, 146, 153, 159, 166, 174, 186, 199, 218, 246, 255),
            (31, 82, 102, 115, 129, 142, 151, 158, 165, 172, 179, 188, 201, 214, 234, 255, 255),
        ),
        spectrum=(31.3, 28.7, 21.5, 12.6, 15.5, 13.4, 12.9, 10.8, 9.7, 7.0, 5.6, 4.2, 1.8, -1.0, -5.7, -12.3),
        layout=((157, 180, 152), (135, 165, 142), (142, 164, 137)),
        correlations=(0.997, 0.993),
    ),
    Statistics(
        size=(495, 660),
        quantiles=(
            (14, 30, 39, 48, 59, 73, 85, 96, 107, 119, 132, 148, 174, 195, 219, 243, 255),
            (25, 41, 50, 60, 70, 85, 97, 108, 119, 131, 144, 159, 183, 203, 225, 246, 255),
            (36, 53, 62, 72, 83, 98, 110, 120, 131, 142, 155, 169, 192, 211, 231, 250, 255),
        ),
        spectrum=(33.1, 27.3, 23.0, 21.3, 20.1, 18.7, 16.4, 12.9, 10.3, 7.6, 4.7, 1.7, -0.9, -3.7, -6.0, -7.5),
        layout=((153, 141, 165), (125, 100, 109), (107, 102, 108)),
        correlations=(0.999, 0.999),
    ),
    Statistics(
        size=(323, 485),
        quantiles=(
            (0, 9, 15, 21, 28, 38, 48, 58, 68, 79, 90, 103, 119, 133, 149, 170, 255),
            (0, 16, 23, 31, 41, 54, 67, 81, 93, 106, 120, 135, 154, 168, 184, 203, 252),
            (0, 11, 20, 30, 40, 58, 75, 90, 105, 119, 134, 149, 167, 181, 197, 216, 255),
        ),
        spectrum=(34.8, 32.6, 29.1, 26.4, 21.0, 17.6, 12.6, 10.9, 8.0, 5.7, 3.0, 0.6, -1.9, -5.4, -10.1, -14.2),
        layout=((69, 72, 73), (87, 86, 118), (109, 122, 124)),
        correlations=(0.977, 0.977),
    ),
)
"""The statistics of the six textures, in the order of their files."""
