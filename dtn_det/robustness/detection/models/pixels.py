"""Detectors of any library that take RGB images and return boxes in pixels of these images."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dtn_det.corruptions.image import ByteImage
from dtn_det.cost.facts import ModelFacts
from dtn_det.datasets.coco.values import identifier
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError
from dtn_det.robustness.detection.data import DetectionData
from dtn_det.robustness.detection.images import BadImage, CellImages
from dtn_det.robustness.detection.models.category_ids import (
    DataCategories,
    StatedClasses,
    asked_for,
    category_places,
)
from dtn_det.robustness.detection.models.detector import Detector, memory_reported, versions
from dtn_det.robustness.detection.models.outputs import OutputCheck
from dtn_det.robustness.detection.records import ImageDetections
from dtn_det.robustness.options import DetectionOptions
from dtn_det.robustness.store.manifest import ModelManifest, hash_weights
from dtn_det.system.processes import worker_died


@dataclass(frozen=True)
class PixelModel:
    """A detector that takes images as they are corrupted.

    Attributes:
        name: Name of the model if the user gives none.
        source: The model as the user named it, without the folders of files.
        adapter: How its library was called, for the manifest.
        detect: Function from RGB images, (height, width, 3) uint8 each, to a list with a mapping for each image:
            ``boxes``, (n, 4), as x1, y1, x2, y2 in pixels of the image; ``scores``, (n,), from 0 to 1;
            ``category_ids``, (n,); and ``masks`` if the model finds masks, (n, height, width) of 0 and 1, or COCO's run
            lengths.
        classes: What the model states about its category ids.
        network: The module that holds the weights; None if it cannot be seen.
        weights_hash: Hash of the weights if there is no network.
        packages: The libraries whose versions the manifest has.
        protocol: Settings that results depend on besides weights and images.
        training: How the model was trained, if known.
        remarks: What was decided when the model was loaded.
    """

    name: str
    source: str
    adapter: str
    detect: Callable[[list[ByteImage]], object]
    classes: StatedClasses
    network: nn.Module | None = None
    weights_hash: str = ""
    packages: tuple[str, ...] = ()
    protocol: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()


def detector_of(
    model: PixelModel,
    name: str | None,
    options: DetectionOptions,
    device: torch.device,
    data: DetectionData,
    first: CellImages | BadImage,
) -> Detector:
    """Return a model of images as a detector of a sweep, after a trial with the first image.

    Args:
        name: Name of the model in the store; None for its own.
        first: The first image of the sweep, under the clean cell alone.

    Raises:
        ValueError: The model fails on the image or returns values that cannot be right, or nothing tells what its
            category ids mean.
    """
    name = name or model.name
    places = category_places(name, model.classes, _categories(data), asked_for(name, options.category_ids))
    check = OutputCheck(name, places, data.truth.has_masks, str(data.file.path))
    runner = _Runner(name, model, device, options.amp)
    gives_masks = False
    if isinstance(first, CellImages):
        images = _arrays(first, range(1))
        found = runner(images, first.path)
        check.detections(found, images, first.path)
        gives_masks = any(one.get("masks") is not None for one in found)

    def detect(item: CellImages, cells: range) -> list[ImageDetections]:
        images = _arrays(item, cells)
        done = check.detections(runner(images, item.path), images, item.path)
        if check.masks and any((one.masks is None) == gives_masks for one in done if len(one.scores)):
            kinds = ("masks", "none") if gives_masks else ("none", "masks")
            raise InputError(
                f"expected the model {name!r} to give masks for all images or for none, got {kinds[0]} for the first "
                f"image and {kinds[1]} for {item.path}: mend the model's function"
            )
        return done

    network = model.network
    return Detector(
        manifest=ModelManifest(
            name=name,
            source=model.source,
            weights_hash=model.weights_hash if network is None else hash_weights(network.state_dict()),
            num_parameters=0 if network is None else sum(one.numel() for one in network.parameters()),
            protocol={
                "adapter": model.adapter,
                "category_ids": f"{places.way} {json.dumps(sorted(places.places.items()))}",
                "decoding": "as stored" if data.as_stored else "turned as EXIF says",
                "batch_size": str(options.batch_size),
                "precision": "amp" if options.amp else "float32",
                "device": device.type,
                **model.protocol,
            },
            versions=versions(*model.packages),
        ),
        detect=detect,
        facts=lambda: ModelFacts(training={**model.training, "label order": places.evidence}),
        gives_masks=gives_masks,
        remarks=(*model.remarks, *places.remarks),
    )


def _categories(data: DetectionData) -> DataCategories:
    """Return the categories in the order of the truth, with their ids in the file."""
    ids = {str(row["name"]): identifier(row["id"]) for row in data.file.categories}
    names = tuple(name for _, name in data.truth.categories)
    return DataCategories(Path(data.file.path), tuple(ids[name] or 0 for name in names), names)


def _arrays(item: CellImages, cells: range) -> list[ByteImage]:
    assert item.pixels is not None  # asked for wherever a model takes pixels
    # Copies, because a model may write into its images, which others share.
    return [pixels.numpy().copy() for pixels in item.pixels[cells.start : cells.stop]]


@dataclass(frozen=True)
class _Runner:
    """Runs a model on images, and names model and image where it fails."""

    name: str
    model: PixelModel
    device: torch.device
    amp: bool

    @torch.no_grad()
    def __call__(self, images: list[ByteImage], path: str) -> Sequence[Mapping[str, Any]]:
        precision = torch.autocast(self.device.type) if self.amp else contextlib.nullcontext()
        try:
            with memory_reported(len(images), self.device), precision:
                found: Any = self.model.detect(images)
        except InputError:
            raise
        # Third-party model code may raise anything.
        except (Exception, SystemExit) as error:
            if worker_died(error):
                raise
            raise InputError(
                f"expected the model {self.name!r} to detect objects in {path}, {images[0].shape[1]} x "
                f"{images[0].shape[0]} pixels, got {type(error).__name__}: {error}: mend it, or name another. What is "
                "finished is kept"
            ) from error
        return found
