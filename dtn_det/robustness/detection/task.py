"""The sweep of a detector over every cell: mPC on COCO-C."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dtn_det.corruptions.engine import Corruptor
from dtn_det.datasets.class_names import LabelNames
from dtn_det.errors import InputError
from dtn_det.robustness.cells import Cell
from dtn_det.robustness.detection.data import DetectionData
from dtn_det.robustness.detection.images import BadImage, CellImages, DetectionImages
from dtn_det.robustness.detection.model import Detector, batches
from dtn_det.robustness.detection.records import ImageDetections, RecordRows, from_instances
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest, hash_weights

if TYPE_CHECKING:
    import pyarrow

TASK = "detection"

OnBadImage = Literal["fail", "record"]


@dataclass(frozen=True)
class DetectionTask:
    """What a sweep does with the images of a detector: see :class:`dtn_det.robustness.sweep.Task`.

    Attributes:
        images: Each under every cell.
        num_cells: Conditions of an image.
        num_categories: Of the data set.
        detector: The model.
        batch_size: Conditions of an image that the model sees at once.
        on_bad_image: `fail`, or `record` the reason and go on.
        masks: Keep the model's masks, if it gives any.
        on_image: Called after each image with the number of its conditions.
        places: Of each label's category among those of the data set; None where labels are these places.
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


def store_manifest(data: DetectionData, cells: tuple[Cell, ...], corruptor: Corruptor, unit_size: int) -> StoreManifest:
    """What all detectors of a store share.

    Raises:
        InputError: Images are missing.
    """
    sizes = data.file_sizes()
    return StoreManifest(
        task=TASK,
        data=data.name,
        data_hash=data.truth.hash(sizes),
        num_images=len(data.indices),
        selection=data.selection,
        corruption=corruptor.identity,
        cells=cells,
        unit_size=unit_size,
        protocol={"categories": data.truth.categories_json},
        remarks=data.remarks,
        images_hash=data.truth.images_hash(sizes),
    )


def model_manifest(
    name: str, source: str, detector: Detector, data: DetectionData, batch_size: int, labels: LabelNames
) -> ModelManifest:
    """What a detector's numbers were made from.

    Where its labels are in another order than the categories of the data, their names are part of that: a store of
    numbers that were taken by places does not go on.
    """
    state: dict[str, Any] = detector.model.state_dict()
    categories = tuple(name for _, name in data.truth.categories)
    own_order = {} if labels.names == categories else {"labels": json.dumps(labels.names, ensure_ascii=False)}
    return ModelManifest(
        name=name,
        source=source,
        weights_hash=hash_weights(state),
        num_parameters=sum(parameter.numel() for parameter in detector.model.parameters()),
        protocol={
            "model settings": detector.settings,
            "pipeline": data.pipeline_json,
            "batch size": str(batch_size),
            "precision": detector.precision,
            "device": detector.device.type,
            **own_order,
        },
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Libraries that the numbers may depend on."""
    from importlib import metadata

    import torch

    found = {"torch": str(torch.__version__)}
    for package in ("dtn-det", "numpy", "opencv-python-headless", "onedl-mmdetection", "onedl-mmcv", "mmdet", "mmcv"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
