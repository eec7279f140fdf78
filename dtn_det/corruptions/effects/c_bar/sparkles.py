"""Sparkles: white stars with rays of random length, or white everywhere except in one such star."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dtn_det.corruptions.effects.c_bar.trigonometry import angle_of
from dtn_det.corruptions.effects.settings import EffectSettings
from dtn_det.corruptions.image import ByteImage, FloatImage
from dtn_det.corruptions.stream import Stream
from dtn_det.system.compiled import compiled

Floats = npt.NDArray[np.float32]

_SPREAD = 0.25
"""Standard deviation of the rays' lengths, as a share of their mean."""


@dataclass(frozen=True)
class Star:
    """A star. Its brightness falls with the square of the distance from the centre, relative to the length of its rays.

    Attributes:
        centre: Row and column of the centre, in pixels.
        rays: ``(n,)`` lengths of the rays, in pixels. Their directions are evenly spaced around the centre.
    """

    centre: tuple[float, float]
    rays: Floats


@dataclass(frozen=True)
class InverseSparkle:
    """The random parameters of inverse sparkles.

    Attributes:
        star: The part of the image that stays.
        exponent: Exponent of the brightness. A higher value makes the star darker beyond the ends of its rays.
    """

    star: Star
    exponent: float


def sparkles(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Draw five white stars over the image."""
    (magnitude,) = settings.parameters
    return apply_sparkles(image, draw_sparkles(settings.stream, len(image), magnitude))


def inverse_sparkles(image: ByteImage, settings: EffectSettings) -> ByteImage:
    """Turn the image white except for one star near its middle."""
    (magnitude,) = settings.parameters
    return apply_inverse_sparkles(image, draw_inverse_sparkles(settings.stream, len(image), magnitude))


def draw_sparkles(stream: Stream, side: int, magnitude: float) -> tuple[Star, ...]:
    """Draw the random parameters of the stars, for an image of ``side`` x ``side`` pixels."""
    centres = [(stream.uniform(0, side), stream.uniform(0, side)) for _ in range(5)]
    mean = 0.01 * magnitude * side
    # A ray is at least one pixel long.
    return tuple(Star(centre, np.maximum(_rays(stream, mean), np.float32(1))) for centre in centres)


def draw_inverse_sparkles(stream: Stream, side: int, magnitude: float) -> InverseSparkle:
    """Draw the random parameters of inverse sparkles, for an image of ``side`` x ``side`` pixels."""
    centre = (stream.uniform(0.25, 0.75) * side, stream.uniform(0.25, 0.75) * side)
    return InverseSparkle(Star(centre, _rays(stream, 0.25 * side)), 0.13 * magnitude)


def _rays(stream: Stream, mean: float) -> Floats:
    """Draw the normally distributed lengths of 50 to 199 rays."""
    lengths: Floats = np.float32(mean) * (1 + np.float32(_SPREAD) * stream.normals((50 + stream.below(150),)))
    return lengths


def apply_sparkles(image: ByteImage, stars: tuple[Star, ...]) -> ByteImage:
    """Draw stars over a square image."""
    dark = np.ones(image.shape[:2], np.float32)
    for star in stars:
        _shine(dark, *star.centre, _closed(star.rays), 1.0, False)
    return _whiten(image, dark)


def apply_inverse_sparkles(image: ByteImage, sparkle: InverseSparkle) -> ByteImage:
    """Turn a square image white except for the star."""
    bright = np.ones(image.shape[:2], np.float32)
    _shine(bright, *sparkle.star.centre, _closed(sparkle.star.rays), sparkle.exponent, True)
    return _whiten(image, bright)


def _closed(rays: Floats) -> Floats:
    """Append the first two rays again, so that the last ray has a successor."""
    return np.concatenate((rays, rays[:2])).astype(np.float32)


@compiled
def _shine(factors: FloatImage, centre_y: float, centre_x: float, rays: Floats, exponent: float, inside: bool) -> None:
    """Multiply ``factors`` by the brightness of the star (0 to 1) if ``inside``, else by 1 minus the brightness."""
    side, number = len(factors), len(rays) - 2
    turn, half_turn = np.float32(number / (2 * np.pi)), np.float32(np.pi)
    half, one, power, most = np.float32(0.5), np.float32(1), np.float32(exponent), np.float32(number)
    offsets = np.arange(side).astype(np.float32) - np.float32(centre_x)
    places, lengths = np.empty(side, np.float32), np.empty(side, np.float32)
    # The work on a row is split into several loops, so that loops without look-ups compute several pixels at once.
    for row in range(side):
        dy = np.float32(row - centre_y)
        for column in range(side):
            places[column] = min(max((angle_of(offsets[column], dy) + half_turn) * turn, np.float32(0)), most)
        for column in range(side):
            ray = np.uint32(places[column])
            places[column] -= np.float32(ray)
            lengths[column] = rays[ray] + places[column] * (rays[ray + np.uint32(1)] - rays[ray])
        for column in range(side):
            aside = places[column] - half
            distance = offsets[column] * offsets[column] + dy * dy + np.float32(1e-4)
            light = lengths[column] * lengths[column] / distance
            lengths[column] = light
            places[column] = one - aside * aside
        if power != one:
            for column in range(side):
                lengths[column] = lengths[column] ** power
        for column in range(side):
            light = min(lengths[column] * places[column], one)
            factors[row, column] *= light if inside else one - light


def _whiten(image: ByteImage, dark: FloatImage) -> ByteImage:
    out = np.empty_like(image)
    _blend_white(image, dark, out)
    return out


@compiled
def _blend_white(image: ByteImage, dark: FloatImage, out: ByteImage) -> None:
    """Multiply the distance of each value from white by ``dark``."""
    side, white = len(image), np.float32(255)
    for row in range(side):
        for column in range(side):
            for c in range(3):
                out[row, column, c] = np.uint8(white - (white - np.float32(image[row, column, c])) * dark[row, column])
