"""The objects of a COCO set as arrays, with which the detections of each cell are matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.errors import InputError
from dtn_det.metrics.coco_matches import COCO_SETTINGS, CocoMatches, InPairs, best_of_pairs, match_pairs

Runs = Mapping[str, Any]
"""A mask in COCO's run lengths: ``size`` (height, width in pixels) and compressed ``counts``."""


@dataclass(frozen=True)
class CocoObjects:
    """The objects of a set, sorted by category and then by image. They are built once for all cells of a store.

    Attributes:
        images: Ids of the images that are evaluated, in rising order, (I,).
        num_categories: Number of categories.
        pairs: Category, image and area of each object. The area is that of the annotation.
        boxes: x, y, width, height in pixels, (objects, 4).
        crowd: Whether each object is a crowd, (objects,).
        masks: The mask of each object; None if an object has none.
    """

    images: tuple[int, ...]
    num_categories: int
    pairs: InPairs
    boxes: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    masks: Sequence[Runs] | None = None

    def match(
        self,
        category: NDArray[np.int64],
        image: NDArray[np.int64],
        boxes: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> CocoMatches:
        """Match the boxes of detections with those of the objects.

        Args:
            category: Index of the category of each detection, (detections,).
            image: Index in `images` of the image of each detection, (detections,).
            boxes: x, y, width, height in pixels, (detections, 4). A box with NaN overlaps no object.

        Raises:
            InputError: A score is NaN.
        """
        order = self.order(category, image, scores)
        boxes = np.ascontiguousarray(boxes[order])
        iou = require("hotcoco", "det").primitives.bbox_iou

        def overlap(rows: slice, columns: slice) -> NDArray[np.float64]:
            found: NDArray[np.float64] = iou(boxes[rows], self.boxes[columns], self.crowd[columns])
            return found

        found = InPairs(category[order], image[order], boxes[:, 2] * boxes[:, 3])
        return match_pairs(self.images, self.num_categories, self.pairs, self.crowd, found, scores[order], overlap)

    def match_masks(
        self,
        category: NDArray[np.int64],
        image: NDArray[np.int64],
        masks: Sequence[Runs],
        scores: NDArray[np.float64],
    ) -> CocoMatches:
        """Match the masks of detections with those of the objects; see :meth:`match`.

        Raises:
            InputError: An object has no mask, or a score is NaN.
        """
        if self.masks is None:
            raise InputError(
                "expected a mask of each object to evaluate masks, got objects without: evaluate boxes alone"
            )
        objects = self.masks
        order = self.order(category, image, scores)
        masks = [masks[row] for row in order.tolist()]
        hotcoco = require("hotcoco", "det")
        iou = hotcoco.primitives.mask_iou

        def overlap(rows: slice, columns: slice) -> NDArray[np.float64]:
            found: NDArray[np.float64] = iou(masks[rows], objects[columns], self.crowd[columns])
            return found

        area = np.asarray(hotcoco.mask.area(masks), np.float64) if masks else np.empty(0)
        found = InPairs(category[order], image[order], area)
        return match_pairs(self.images, self.num_categories, self.pairs, self.crowd, found, scores[order], overlap)

    def order(
        self, category: NDArray[np.int64], image: NDArray[np.int64], scores: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return the order of the detections in which they are matched: by category, image and falling score.

        Raises:
            InputError: A score is NaN.
        """
        if np.isnan(scores).any():
            raise InputError(
                f"expected a number as score of each detection, got NaN for {int(np.isnan(scores).sum())} of "
                f"{len(scores)}: the model does not work in this precision, or its weights are broken"
            )
        return best_of_pairs(scores, category * len(self.images) + image, COCO_SETTINGS.most)


def run_lengths(segmentation: Any, height: int, width: int) -> Runs:
    """Convert a segmentation of COCO into compressed run lengths.

    Args:
        segmentation: Polygons as lists of x and y in pixels, or run lengths, compressed or not.
    """
    mask = require("hotcoco", "det").mask
    if isinstance(segmentation, list):
        merged: Runs = mask.merge(mask.fr_py_objects(segmentation, height, width))
        return merged
    if isinstance(segmentation["counts"], list):
        packed: Runs = mask.fr_py_objects(segmentation, height, width)
        return packed
    runs: Runs = segmentation
    return runs
