"""The records of detections in a store: one row for each image and cell (corruption and severity)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.errors import InputError

if TYPE_CHECKING:
    import pyarrow

    from dtn_det.robustness.store import ModelStore


@dataclass(frozen=True)
class ImageDetections:
    """The detections of a model in one image under one cell.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the original image, (detections, 4), float32.
        scores: Scores of the boxes, (detections,), float32.
        labels: Labels of the classes, (detections,), int32.
        masks: COCO's compressed run lengths of each mask; None for a model without masks.
        mask_scores: Scores of the masks, (detections,), float32; None if the model does not score masks.
    """

    boxes: Any
    scores: Any
    labels: Any
    masks: tuple[bytes, ...] | None = None
    mask_scores: Any = None


def from_instances(instances: Any, num_categories: int, *, masks: bool = True) -> ImageDetections:
    """Convert MMDetection's `pred_instances` into arrays.

    Raises:
        ValueError: A label has no category in the data set.
    """
    boxes = instances.bboxes.float().cpu().numpy()
    labels = instances.labels.cpu().numpy().astype(np.int32)
    if len(labels) and (labels.min() < 0 or labels.max() >= num_categories):
        raise InputError(
            f"expected labels below {num_categories}, the number of categories of the data set, got {labels.max()}: "
            "the config's classes are not those of its model"
        )
    scores = instances.scores.float().cpu().numpy()
    if not masks or "masks" not in instances:
        return ImageDetections(boxes, scores, labels)
    own = instances.mask_scores.float().cpu().numpy() if "mask_scores" in instances else None
    return ImageDetections(boxes, scores, labels, _encoded(instances.masks), own)


def _encoded(masks: Any) -> tuple[bytes, ...]:
    if not hasattr(masks, "cpu"):
        return tuple(_bytes(one["counts"]) for one in masks)
    return encoded_masks(masks.cpu().numpy().astype(np.uint8))


def encoded_masks(bits: NDArray[np.uint8]) -> tuple[bytes, ...]:
    """Return COCO's compressed run lengths of masks, (masks, height, width), of 0 and 1."""
    if not len(bits):
        return ()
    encode = require("hotcoco", "det").mask.encode
    return tuple(_bytes(one["counts"]) for one in encode(np.asfortranarray(bits.transpose(1, 2, 0))))


def _bytes(counts: bytes | str) -> bytes:
    return counts.encode() if isinstance(counts, str) else counts


def schema() -> pyarrow.Schema:
    """Return the columns of the records; `error` says why a bad image has no detections, and is null otherwise."""
    arrow = require("pyarrow", "eval")
    floats = arrow.list_(arrow.float32())
    return arrow.schema(
        [
            ("image", arrow.int32()),
            ("cell", arrow.int16()),
            ("boxes", floats),
            ("scores", floats),
            ("labels", arrow.list_(arrow.int32())),
            ("masks", arrow.list_(arrow.binary())),
            ("mask_scores", floats),
            ("error", arrow.string()),
        ]
    )


class RecordRows:
    """Collects the rows of one unit of records."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {field.name: [] for field in schema()}

    def add(self, image: int, cell: int, found: ImageDetections) -> None:
        """Add the detections of one image under one cell."""
        boxes = found.boxes.reshape(-1)
        self._append(image, cell, boxes, found.scores, found.labels, found.masks, found.mask_scores, None)

    def add_bad(self, image: int, cells: Sequence[int], reason: str) -> None:
        """Add a row for each cell of an image that could not be evaluated, with the reason."""
        for cell in cells:
            self._append(image, cell, [], [], [], None, None, reason)

    def _append(self, *values: Any) -> None:
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)

    def table(self) -> pyarrow.Table:
        """Return all records as one Arrow table."""
        table: pyarrow.Table = require("pyarrow", "eval").Table.from_pydict(self.columns, schema=schema())
        return table


LIMIT = 100
"""Largest number of detections of a class in an image that COCO's evaluation counts."""


def most_of_one_class(model: ModelStore) -> int:
    """Return the largest number of detections of a class in an image and cell; 0 if no number exceeds :data:`LIMIT`."""
    most = 0
    for table in model.batches(["labels"]):
        column: Any = table["labels"].combine_chunks()
        lengths = np.diff(column.offsets.to_numpy())
        values = column.values.to_numpy()
        for place in np.flatnonzero(lengths > LIMIT):
            start = column.offsets[place].as_py()
            most = max(most, int(np.bincount(values[start : start + lengths[place]]).max()))
    return most if most > LIMIT else 0


def rule_note(model: ModelStore) -> str:
    """Return a note if a model has more detections than COCO's evaluation counts, else an empty string."""
    most = most_of_one_class(model)
    if not most:
        return ""
    return (
        f"up to {most} detections of a class in an image: as COCO's rule says, all metrics take the {LIMIT} best of "
        "them. MMDetection's CocoMetric takes AP so too, but AP50, AP75 and those of sizes at 1,000, and gives more"
    )
