"""How many detections of one class a model gives in an image, which decides whether two rules of COCO's metrics differ.

COCO's evaluation takes the 100 best detections of each class in an image for AP and all its variants. MMDetection's
CocoMetric takes AP so too, but AP50, AP75 and those of sizes from the 1,000 best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dtn_det.robustness.store.store import ModelStore

LIMIT = 100
"""Detections of a class in an image that COCO's evaluation takes."""


def most_of_one_class(model: ModelStore) -> int:
    """The most detections of one class in one image under one cell, or 0 where no image has more than :data:`LIMIT`.

    Args:
        model: Of a store of detections.
    """
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
    """What must be read with the metrics of a model that gives more detections than COCO's evaluation takes, or ''."""
    most = most_of_one_class(model)
    if not most:
        return ""
    return (
        f"up to {most} detections of a class in an image: as COCO's rule says, all metrics take the {LIMIT} best of "
        "them. MMDetection's CocoMetric takes AP so too, but AP50, AP75 and those of sizes at 1,000, and gives more"
    )
