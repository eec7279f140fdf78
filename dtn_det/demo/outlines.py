"""Outlines of the classes: which points of the plane belong to a shape that fits the unit circle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from dtn_det.demo.textures import FloatArray

BoolArray = npt.NDArray[np.bool_]
Outline = Callable[[FloatArray, FloatArray], BoolArray]

# Unit vectors at 90 + 72 k degrees, written out because sines differ between C libraries.
_FIFTHS = (
    (0.0, 1.0),
    (-0.9510565162951535, 0.3090169943749475),
    (-0.5877852522924732, -0.8090169943749473),
    (0.587785252292473, -0.8090169943749475),
    (0.9510565162951535, 0.3090169943749472),
)
_SQRT_3 = 1.7320508075688772


def disc(u: FloatArray, v: FloatArray) -> BoolArray:
    """A full circle."""
    return u * u + v * v <= 1


def ring(u: FloatArray, v: FloatArray) -> BoolArray:
    """A circle with a hole of half its radius."""
    r2 = u * u + v * v
    return (r2 <= 1) & (r2 >= 0.25)


def square(u: FloatArray, v: FloatArray) -> BoolArray:
    """A square inscribed in the circle, slightly enlarged."""
    inside: BoolArray = np.maximum(np.abs(u), np.abs(v)) <= 0.8
    return inside


def triangle(u: FloatArray, v: FloatArray) -> BoolArray:
    """An equilateral triangle inscribed in the circle."""
    return (v >= -0.5) & (_SQRT_3 * np.abs(u) + v <= 1)


def star(u: FloatArray, v: FloatArray) -> BoolArray:
    """A pentagram: the points on the inner side of at least four of its five lines."""
    inner = 0.3090169943749474  # distance of the lines from the centre
    sides = np.stack([x * u + y * v >= -inner for x, y in _FIFTHS])
    inside: BoolArray = sides.sum(axis=0) >= 4
    return inside


def cross(u: FloatArray, v: FloatArray) -> BoolArray:
    """A plus sign."""
    a, b = np.abs(u), np.abs(v)
    inside: BoolArray = (np.maximum(a, b) <= 0.95) & (np.minimum(a, b) <= 0.3)
    return inside


def bar(u: FloatArray, v: FloatArray) -> BoolArray:
    """A long thin rectangle: a distractor."""
    return (np.abs(u) <= 1) & (np.abs(v) <= 0.12)


def lens(u: FloatArray, v: FloatArray) -> BoolArray:
    """A flat ellipse: a distractor."""
    return u * u + 9 * v * v <= 1


CLASSES: dict[str, Outline] = {
    "disc": disc,
    "square": square,
    "triangle": triangle,
    "star": star,
    "ring": ring,
    "cross": cross,
}
"""The classes in the order of their COCO category ids, which start at 1."""

DISTRACTORS: tuple[Outline, ...] = (bar, lens)
"""Shapes that are drawn and belong to no class."""
