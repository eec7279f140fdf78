"""How detectors are evaluated on images under every cell, a corruption at a severity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtn_det.errors import InputError
from dtn_det.robustness.detection.images import BadImage, CellImages, DetectionImages
from dtn_det.robustness.detection.models.detector import Detector
from dtn_det.robustness.detection.records import RecordRows
from dtn_det.robustness.options import OnBadImage

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class DetectionTask:
    """The task of a sweep of detectors: see :class:`dtn_det.robustness.sweep.Task`.

    Attributes:
        images: The data set. Each item is one image under every cell (corruption and severity).
        batch_size: Largest number of versions of one image that a model gets at once. There is one version for each
            cell.
        on_bad_image: `fail` to end the run, `record` to write down the reason and go on.
        on_image: Called after each image with the number of its cells.
    """

    images: DetectionImages
    num_cells: int
    detectors: Sequence[Detector]
    batch_size: int
    on_bad_image: OnBadImage = "fail"
    on_image: Callable[[int], None] = lambda count: None

    def block_size(self, ahead: int) -> int:
        """See :class:`dtn_det.robustness.sweep.Task`."""
        return 1

    def loading(self, requests: Iterable[int], ahead: int) -> tuple[DetectionImages, Iterator[int]]:
        """See :class:`dtn_det.robustness.sweep.Task`."""
        return self.images, iter(requests)

    def evaluate(self, items: Iterator[CellImages | BadImage], names: Sequence[str]) -> Mapping[str, pyarrow.Table]:
        """Return the records of one unit's images for each of the named models.

        Raises:
            ValueError: An image is bad and bad images end the run, a test pipeline fails, or a model fails.
        """
        rows = {detector.name: RecordRows() for detector in self.detectors if detector.name in names}
        for item in items:
            for detector in self.detectors:
                if detector.name not in rows:
                    continue
                if isinstance(item, BadImage):
                    self._bad(rows[detector.name], item)
                else:
                    self._image(detector, rows[detector.name], item)
            self.on_image(self.num_cells)
        return {name: found.table() for name, found in rows.items()}

    def _image(self, detector: Detector, rows: RecordRows, item: CellImages) -> None:
        # No batch mixes images, so none is padded to the size of another.
        for start in range(0, self.num_cells, self.batch_size):
            cells = range(start, min(start + self.batch_size, self.num_cells))
            for cell, found in zip(cells, detector.detect(item, cells), strict=True):
                rows.add(item.number, cell, found)

    def _bad(self, rows: RecordRows, item: BadImage) -> None:
        if item.fault == "pipeline":
            raise InputError(f"expected the config's test pipeline to take every image, got {item.reason}")
        if self.on_bad_image == "fail":
            raise InputError(
                f"expected images that can be read, got {item.reason}: mend or replace the file, or go on without such "
                "images with --on-bad-image record. All finished units are kept"
            )
        rows.add_bad(item.number, range(self.num_cells), item.reason)
