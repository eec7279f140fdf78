"""The task of a sweep of a detector: how its images are loaded and how it is evaluated on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dtn_det.errors import InputError
from dtn_det.robustness.detection.images import BadImage, CellImages, DetectionImages
from dtn_det.robustness.detection.model import Detector
from dtn_det.robustness.detection.records import ImageDetections, RecordRows, from_instances
from dtn_det.robustness.options import OnBadImage

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class DetectionTask:
    """The task of a sweep of a detector: see :class:`dtn_det.robustness.sweep.Task`.

    Attributes:
        images: Dataset of which each item is one image under every cell (corruption and severity).
        batch_size: Largest number of versions of one image that the model gets at once. There is one version for each
            cell.
        on_bad_image: `fail` to end the run, `record` to write down the reason and go on.
        on_image: Called after each image with the number of its cells.
        places: For each label of the model, the index of its category in the data set; None if labels and categories
            are in the same order.
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
        """Return the records of one unit's images, under the name of the only model.

        Raises:
            ValueError: An image is bad and bad images end the run, the test pipeline fails, or the model fails.
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
        # No batch mixes images, so none is padded to the size of another.
        for start in range(0, self.num_cells, self.batch_size):
            inputs = item.inputs[start : start + self.batch_size]
            found = self.detector.detect(inputs, item.sample)
            for cell, instances in zip(range(start, start + len(inputs)), found, strict=True):
                detections = from_instances(instances, self.num_categories, masks=self.masks)
                rows.add(item.number, cell, self._by_name(detections))

    def _by_name(self, found: ImageDetections) -> ImageDetections:
        """Return the detections with each label replaced by the index of its category in the data set."""
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
