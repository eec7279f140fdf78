"""The objects of a COCO set as arrays, with which the detections of each cell are matched."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.errors import InputError
from dtn_det.metrics.coco_matches import (
    COCO_SETTINGS,
    CocoMatches,
    InPairs,
    OfCategory,
    Overlap,
    best_of_groups,
    match_categories,
)

Runs = Mapping[str, Any]
"""A mask in COCO's run lengths: ``size`` (height, width in pixels) and compressed ``counts``."""


LVIS_MOST = 300
"""Largest number of detections of an image, of all categories together, that count by LVIS's rule."""


@dataclass(frozen=True)
class Federated:
    """What is known about the categories of images in which not all were annotated (LVIS, Gupta et al., CVPR 2019).

    Attributes:
        negative: Pairs of a category and an image that has no object of it, numbered as in
            :meth:`~dtn_det.metrics.coco_matches.InPairs.keys`, (pairs,). Detections in pairs that are neither negative
            nor have an object are left out.
        not_exhaustive: Pairs in which not all objects are annotated, so that detections without a match are ignored.
        frequencies: Frequency of each category: `r` (rare), `c` (common) or `f` (frequent); empty where unknown.
    """

    negative: NDArray[np.int64]
    not_exhaustive: NDArray[np.int64]
    frequencies: tuple[str, ...]


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
        federated: What LVIS's rule needs; None for COCO's rule.
    """

    images: tuple[int, ...]
    num_categories: int
    pairs: InPairs
    boxes: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    masks: Sequence[Runs] | None = None
    federated: Federated | None = None

    def match(
        self,
        category: NDArray[np.integer],
        image: NDArray[np.integer],
        boxes: NDArray[np.float64],
        scores: NDArray[np.floating],
    ) -> CocoMatches:
        """Match the boxes of detections with those of the objects.

        Args:
            category: Index of the category of each detection, (detections,).
            image: Index in `images` of the image of each detection, (detections,).
            boxes: x, y, width, height in pixels, (detections, 4). A box with NaN overlaps no object.

        Raises:
            InputError: A score is NaN.
        """
        iou = require("hotcoco", "det").primitives.bbox_iou

        def of_rows(rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], Overlap]:
            own = boxes[rows]
            return own[:, 2] * own[:, 3], lambda found, objects: iou(
                own[found], self.boxes[objects], self.crowd[objects]
            )

        return self._match(category, image, scores, of_rows)

    def match_masks(
        self,
        category: NDArray[np.integer],
        image: NDArray[np.integer],
        masks: Sequence[Runs],
        scores: NDArray[np.floating],
    ) -> CocoMatches:
        """Match the masks of detections with those of the objects; see :meth:`match`.

        Raises:
            InputError: An object has no mask, or a score is NaN.
        """
        if self.masks is None:
            raise InputError(
                "expected a mask of each object to evaluate masks, got objects without: evaluate boxes alone"
            )
        truths = self.masks
        hotcoco = require("hotcoco", "det")
        iou = hotcoco.primitives.mask_iou

        def of_rows(rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], Overlap]:
            own = [masks[row] for row in rows.tolist()]
            area = np.asarray(hotcoco.mask.area(own), np.float64) if own else np.empty(0)
            return area, lambda found, objects: iou(own[found], truths[objects], self.crowd[objects])

        return self._match(category, image, scores, of_rows)

    def _match(
        self,
        category: NDArray[np.integer],
        image: NDArray[np.integer],
        scores: NDArray[np.floating],
        of_rows: Callable[[NDArray[np.int64]], tuple[NDArray[np.float64], Overlap]],
    ) -> CocoMatches:
        order = self._order(category, image, scores)
        starts = np.searchsorted(category[order], np.arange(self.num_categories + 1)).tolist()
        ignored: NDArray[np.bool_] = np.zeros(len(order), np.bool_)
        if self.federated is not None:
            ignored = np.isin(self._keys(category[order], image[order]), self.federated.not_exhaustive)

        def of_category(first: int, last: int) -> OfCategory:
            rows = order[first:last]
            area, overlap = of_rows(rows)
            return OfCategory(image[rows], scores[rows], area, ignored[first:last], overlap)

        found = itertools.starmap(of_category, itertools.pairwise(starts))
        matches = match_categories(self.images, self.pairs, self.crowd, found)
        return matches if self.federated is None else replace(matches, frequencies=self.federated.frequencies)

    def _order(
        self, category: NDArray[np.integer], image: NDArray[np.integer], scores: NDArray[np.floating]
    ) -> NDArray[np.int64]:
        """Return the order in which detections are matched: by category, image and falling score."""
        # By COCO's rule, these are the 100 best of each category in an image. By LVIS's rule, these are the 300 best of
        # an image, without those of categories that are not annotated there.
        check_scores(scores)
        keys = self._keys(category, image)
        if self.federated is None:
            return best_of_groups(scores, keys, COCO_SETTINGS.most)
        best = best_of_groups(scores, image, LVIS_MOST)
        known = np.concatenate([self.pairs.keys(len(self.images)), self.federated.negative])
        best = best[np.isin(keys[best], known)]
        return best[best_of_groups(scores[best], keys[best], LVIS_MOST)]

    def _keys(self, category: NDArray[np.integer], image: NDArray[np.integer]) -> NDArray[np.int64]:
        keys: NDArray[np.int64] = category * np.int64(len(self.images)) + image
        return keys


def check_scores(scores: NDArray[np.floating]) -> None:
    """Check the scores of detections.

    Raises:
        InputError: A score is NaN.
    """
    if np.isnan(scores).any():
        raise InputError(
            f"expected a number as score of each detection, got NaN for {int(np.isnan(scores).sum())} of "
            f"{len(scores)}: the model does not work in this precision, or its weights are broken"
        )


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
