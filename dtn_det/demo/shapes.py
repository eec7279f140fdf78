"""Scenes of the demonstration set: the outlines of its classes, and images with annotations drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from dtn_det.demo.textures import ByteArray, FloatArray, grid, paint, rotation
from dtn_det.errors import InputError

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
    """Return which points are inside a full circle of radius 1."""
    return u * u + v * v <= 1


def ring(u: FloatArray, v: FloatArray) -> BoolArray:
    """Return which points are inside a circle with a hole of half its radius."""
    r2 = u * u + v * v
    return (r2 <= 1) & (r2 >= 0.25)


def square(u: FloatArray, v: FloatArray) -> BoolArray:
    """Return which points are inside a square that is slightly larger than the square inscribed in the unit circle."""
    return np.maximum(np.abs(u), np.abs(v)) <= 0.8


def triangle(u: FloatArray, v: FloatArray) -> BoolArray:
    """Return which points are inside an equilateral triangle inscribed in the unit circle."""
    return (v >= -0.5) & (_SQRT_3 * np.abs(u) + v <= 1)


def star(u: FloatArray, v: FloatArray) -> BoolArray:
    """Return which points are inside a pentagram, that is on the inner side of at least four of its five lines."""
    inner = 0.3090169943749474  # distance of the lines from the centre
    sides = np.stack([x * u + y * v >= -inner for x, y in _FIFTHS])
    return sides.sum(axis=0) >= 4


def cross(u: FloatArray, v: FloatArray) -> BoolArray:
    """Return which points are inside a plus sign."""
    a, b = np.abs(u), np.abs(v)
    return (np.maximum(a, b) <= 0.95) & (np.minimum(a, b) <= 0.3)


def bar(u: FloatArray, v: FloatArray) -> BoolArray:
    """Return which points are inside a long thin rectangle. This shape is a distractor: it belongs to no class."""
    return (np.abs(u) <= 1) & (np.abs(v) <= 0.12)


def lens(u: FloatArray, v: FloatArray) -> BoolArray:
    """Return which points are inside a flat ellipse. This shape is a distractor: it belongs to no class."""
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
"""Shapes that are drawn but belong to no class."""

# Smallest visible share of an object. It is higher for large objects, so that their visible part is still large.
MIN_VISIBLE = 0.8
MIN_VISIBLE_LARGE = 0.85
# A shape is left out after this many random positions without enough space.
PLACEMENT_TRIES = 20
# Ranges of the mean colours. Shapes, including distractors, are brighter than backgrounds.
BACKGROUND_BASE, SHAPE_BASE = (0.0, 100.0), (110.0, 255.0)
# Largest difference between the two colours of a texture.
TEXTURE_CONTRAST = 50.0
# Smallest difference between the mean colours of a shape and of what lies under it, in at least one channel.
MIN_CONTRAST = 80.0
# Ranges of areas in pixels. In COCO's definition, objects are small up to 1024 pixels and large from 9216 pixels.
SMALL, MEDIUM, LARGE = (250.0, 950.0), (1300.0, 3200.0), (11000.0, 13000.0)
# Largest radius, as a fraction of the image's shorter side. So thin shapes never reach the areas in LARGE.
MAX_RADIUS = 0.53
# LARGE_SHARE is the share of images with a large object, among images with objects. SMALL_SHARE is the share of small
# objects among the objects that are not large.
LARGE_SHARE = 0.2
SMALL_SHARE = 0.4
# Tangent of half the largest angle by which shapes are rotated, 23 degrees.
MAX_TILT = 0.2
# Share of images without objects, and share of images with a crowd.
EMPTY_SHARE = 0.05
CROWD_SHARE = 0.06


@dataclass(frozen=True)
class Annotation:
    """One object of a scene.

    Attributes:
        label: Index into :data:`CLASSES`.
        mask: ``(H, W)``, the visible pixels.
        is_crowd: Whether the object is a group of objects annotated as one region.
    """

    label: int
    mask: BoolArray
    is_crowd: bool

    @property
    def area(self) -> int:
        """Number of visible pixels."""
        return int(self.mask.sum())

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        """``(x, y, width, height)`` of the visible pixels."""
        rows, cols = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        return int(cols[0]), int(rows[0]), int(cols[-1] - cols[0] + 1), int(rows[-1] - rows[0] + 1)


@dataclass(frozen=True)
class Scene:
    """An image with its annotations.

    Attributes:
        image: ``(H, W, 3)`` RGB.
        annotations: The objects, in drawing order.
    """

    image: ByteArray
    annotations: tuple[Annotation, ...]


class _Canvas:
    """The pixels of a scene, and for each pixel the number of the shape that is visible there; -1 for background."""

    def __init__(self, rng: np.random.RandomState, height: int, width: int) -> None:
        self.rng = rng
        self.height, self.width = height, width
        self.size = (width, height)
        self.x, self.y = grid(height, width)
        self.pixels = paint(rng, height, width, _two_colours(rng, BACKGROUND_BASE))
        self.owner: npt.NDArray[np.int64] = np.full((height, width), -1, dtype=np.int64)
        self.needed: list[float] = []  # smallest number of visible pixels of each shape

    def add(self, outline: Outline, centre: tuple[float, float], radius: float, keep: float) -> int | None:
        """Draw a shape around ``centre`` with a radius in pixels, unless too little of a shape would stay visible.

        Returns:
            The number of the shape; None if nothing is drawn. The share ``keep`` of this shape must be visible, and of
            each earlier shape the share that was required for it.
        """
        window = self._window(centre, radius)
        cos, sin = rotation(self.rng, MAX_TILT)
        dx, dy = (self.x[window] - centre[0]) / radius, (centre[1] - self.y[window]) / radius  # y points up
        mask = outline(cos * dx - sin * dy, sin * dx + cos * dy)
        # The area is that of the whole outline, because the border of the image may cut off part of the mask.
        needed = keep * _unit_area(outline) * radius * radius
        number = len(self.needed)
        owner = self.owner.copy()
        owner[window][mask] = number
        visible = np.bincount(owner[owner >= 0], minlength=number + 1)
        if any(count < least for count, least in zip(visible, [*self.needed, needed], strict=True)):
            return None
        self.owner = owner
        self.needed.append(needed)
        if mask.any():
            self._fill(self.pixels[window], mask)
        return number

    def _window(self, centre: tuple[float, float], radius: float) -> tuple[slice, slice]:
        """Return the rows and columns that a shape can reach."""
        x, y = centre
        return (
            slice(max(0, int(y - radius)), min(self.height, int(y + radius) + 1)),
            slice(max(0, int(x - radius)), min(self.width, int(x + radius) + 1)),
        )

    def _fill(self, patch: FloatArray, mask: BoolArray) -> None:
        """Paint the pixels of ``mask`` with a texture whose mean colour contrasts with the previous pixels."""
        # The sum of integers does not depend on their order.
        under = patch[mask].astype(np.int64).sum(axis=0) / mask.sum()
        colours = _two_colours(self.rng, SHAPE_BASE)
        while np.abs(colours.sum(axis=0) / 2 - under).max() < MIN_CONTRAST:
            colours = _two_colours(self.rng, SHAPE_BASE)
        patch[mask] = paint(self.rng, mask.shape[0], mask.shape[1], colours)[mask]


def draw_scene(seed: tuple[int, ...], height: int, width: int) -> Scene:
    """Draw a scene. The same arguments always produce exactly the same scene.

    Args:
        seed: Non-negative integers below 2**32, such as (seed, split, index).

    Raises:
        ValueError: A side is smaller than 32 pixels.
    """
    if min(height, width) < 32:
        raise InputError(f"expected an image of at least 32 x 32 pixels, got {width} x {height}")
    rng = np.random.RandomState(list(seed))
    canvas = _Canvas(rng, height, width)
    kind = rng.random_sample()
    groups: list[tuple[int, list[int], bool]] = []  # label, indices of its shapes, whether it is a crowd
    if kind < CROWD_SHARE:
        label = int(rng.randint(len(CLASSES)))
        if numbers := _add_crowd(canvas, _outlines()[label]):
            groups.append((label, numbers, True))
    if kind >= EMPTY_SHARE + CROWD_SHARE or kind < CROWD_SHARE:
        radii = [LARGE] if rng.random_sample() < LARGE_SHARE else []
        radii += [SMALL if rng.random_sample() < SMALL_SHARE else MEDIUM for _ in range(rng.randint(3, 7))]
        for span in radii:
            label = int(rng.randint(len(CLASSES)))
            if (number := _add_object(canvas, _outlines()[label], span)) is not None:
                groups.append((label, [number], False))
    for _ in range(rng.randint(0, 3)):
        radius = 12 + 30 * rng.random_sample()
        canvas.add(DISTRACTORS[rng.randint(len(DISTRACTORS))], _anywhere(canvas), radius, keep=0.0)

    noise = rng.randint(-8, 9, size=(height, width, 3))
    image = np.clip(canvas.pixels.astype(np.int64) + noise, 0, 255).astype(np.uint8)
    annotations = (Annotation(label, np.isin(canvas.owner, numbers), crowd) for label, numbers, crowd in groups)
    return Scene(image, tuple(annotations))


def _add_object(canvas: _Canvas, outline: Outline, span: tuple[float, float]) -> int | None:
    """Draw a shape with an area in ``span``, at a random position where enough of all shapes stays visible."""
    rng = canvas.rng
    keep = MIN_VISIBLE_LARGE if span == LARGE else MIN_VISIBLE
    for _ in range(PLACEMENT_TRIES):
        area = span[0] + (span[1] - span[0]) * rng.random_sample()
        radius = min(math.sqrt(area / _unit_area(outline)), MAX_RADIUS * min(canvas.size))
        number = canvas.add(outline, _anywhere(canvas, 0.8 * radius), radius, keep)
        if number is not None:
            return number
    return None


def _add_crowd(canvas: _Canvas, outline: Outline) -> list[int]:
    """Draw up to twelve small shapes of one class close together."""
    rng = canvas.rng
    side = 0.4 * min(canvas.height, canvas.width)
    left, top = rng.random_sample() * (canvas.width - side), rng.random_sample() * (canvas.height - side)
    places = ((left + side * rng.random_sample(), top + side * rng.random_sample()) for _ in range(12))
    numbers = (canvas.add(outline, place, 6 + 4 * rng.random_sample(), MIN_VISIBLE) for place in places)
    return [number for number in numbers if number is not None]


def _anywhere(canvas: _Canvas, margin: float = 0.0) -> tuple[float, float]:
    """Return a random point at least ``margin`` from the border, or centred along a side that is too short for this."""
    x, y = (min(margin, side / 2) + max(side - 2 * margin, 0) * canvas.rng.random_sample() for side in canvas.size)
    return x, y


def _two_colours(rng: np.random.RandomState, span: tuple[float, float]) -> FloatArray:
    """Return two similar colours ``(2, 3)``, so that the mean colour characterises a texture."""
    base = span[0] + (span[1] - span[0]) * rng.random_sample(3)
    return np.clip(base + TEXTURE_CONTRAST * (rng.random_sample((2, 3)) - 0.5), 0, 255)


def _outlines() -> list[Outline]:
    return list(CLASSES.values())


@cache
def _unit_area(outline: Outline) -> float:
    """Return the area of an outline of radius 1, counted on a fine grid."""
    x, y = grid(200, 200)
    return float(outline(x / 100 - 1, y / 100 - 1).sum()) / 10_000
