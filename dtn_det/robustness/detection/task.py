"""A detector in the loop of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dtn_det.errors import InputError
from dtn_det.robustness.detection.images import BadImage, CellImages, DetectionImages
from dtn_det.robustness.detection.model import Detector, batches
from dtn_det.robustness.detection.records import ImageDetections, RecordRows, from_instances
from dtn_det.robustness.options import OnBadImage

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class DetectionTask:
    """The task of a sweep of a detector: see :class:`dtn_det.robustness.sweep.Task`.

    Attributes:
        images: Each under every cell.
        num_cells: Conditions of an image.
        num_categories: Number of categories of the data set.
        detector: The model.
        batch_size: Conditions of an image that the model sees at once.
        on_bad_image: `fail`, or `record` the reason and go on.
        masks: Keep the model's masks, if it gives any.
        on_image: Called after each image with the number of its conditions.
        places: For each label of the model, the place of its category in the data set; None where both orders agree.
    """

    images: DetectionImages
    num_cells: int
    num_categories: int
    detector: Detector
    batch_size: int
    on_bad_image: OnBadImage = "fail"
    masks: bool = True
    on_image: Callable[[int], None] = lambda count: None
    places: tuple[int, ...] | None = None

    def loading(self, images: Sequence[int], ahead: int) -> tuple[DetectionImages, Iterator[int]]:
        """See :class:`dtn_det.robustness.sweep.Task`."""
        return self.images, iter(images)

    def evaluate(self, items: Iterator[CellImages | BadImage], names: Sequence[str]) -> Mapping[str, pyarrow.Table]:
        """The detections of one unit's images; there is one model.

        Raises:
            ValueError: An image is bad and must not be, or the model cannot be run.
        """
        rows = RecordRows()
        for item in items:
            if isinstance(item, BadImage):
                self._bad(rows, item)
            else:
                self._image(rows, item)
            self.on_image(self.num_cells)
        return dict.fromkeys(names, rows.table())

    def _image(self, rows: RecordRows, item: CellImages) -> None:
        for part in batches(self.num_cells, self.batch_size):
            found = self.detector.detect(item.inputs[part], item.sample)
            for cell, instances in zip(range(part.start, part.stop), found, strict=True):
                detections = from_instances(instances, self.num_categories, masks=self.masks)
                rows.add(item.number, cell, self._by_name(detections))

    def _by_name(self, found: ImageDetections) -> ImageDetections:
        """The detections with the places of their categories as labels."""
        if self.places is None:
            return found
        return replace(found, labels=np.asarray(self.places, np.int32)[found.labels])

    def _bad(self, rows: RecordRows, item: BadImage) -> None:
        if item.fault == "pipeline":
            raise InputError(f"expected the config's test pipeline to take every image, got {item.reason}")
        if self.on_bad_image == "fail":
            raise InputError(
                f"expected images that can be read, got {item.reason}: mend or replace the file, or go on without such "
                "images with --on-bad-image record. All finished units are kept"
            )
        rows.add_bad(item.number, range(self.num_cells), item.reason)
