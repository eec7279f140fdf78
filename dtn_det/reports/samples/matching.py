"""Which detections of an image are right, at one IoU: what a caption says, not an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_IOU = 0.5


@dataclass(frozen=True)
class Objects:
    """Ground truth of an image.

    Attributes:
        boxes: x1, y1, x2, y2, (objects, 4).
        labels: (objects,).
        crowd: Whether a box is around a crowd, in which nothing counts, (objects,).
    """

    boxes: NDArray[Any]
    labels: NDArray[Any]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True)
class Matched:
    """What came of it.

    Attributes:
        right: Whether a detection is an object of its class, (detections,).
        ignored: Whether it is in a crowd, (detections,).
        objects: That count.
    """

    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: int

    @property
    def found(self) -> int:
        """Objects that were found."""
        return int(self.right.sum())

    @property
    def false(self) -> int:
        """Detections that are no object, or one that was found already."""
        return int((~self.right & ~self.ignored).sum())

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 where there is nothing and nothing was found."""
        total = self.objects + self.found + self.false
        return 2 * self.found / total if total else 1.0


def match(objects: Objects, boxes: NDArray[Any], labels: NDArray[Any]) -> Matched:
    """Match detections to objects of their class, the first ones first.

    Args:
        objects: Of the image.
        boxes: x1, y1, x2, y2, (detections, 4), best first.
        labels: (detections,).
    """
    overlaps = _intersections(boxes, objects.boxes)
    areas, object_areas = _areas(boxes), _areas(objects.boxes)
    union = areas[:, None] + object_areas[None] - overlaps
    same = labels[:, None] == objects.labels[None]
    iou = np.where(same & ~objects.crowd, overlaps / np.maximum(union, 1e-9), 0)
    right = np.zeros(len(boxes), np.bool_)
    for place in range(len(boxes)) if iou.size else ():
        best = int(iou[place].argmax())
        if iou[place, best] >= LEAST_IOU:
            right[place] = True
            iou[:, best] = 0
    within = np.where(same & objects.crowd, overlaps / np.maximum(areas[:, None], 1e-9), 0)
    ignored = ~right & (within >= LEAST_IOU).any(1)
    return Matched(right, ignored, int((~objects.crowd).sum()))


def _intersections(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    inner: NDArray[Any] = np.clip(high - low, 0, None).prod(2)
    return inner


def _areas(boxes: NDArray[Any]) -> NDArray[Any]:
    areas: NDArray[Any] = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return areas
