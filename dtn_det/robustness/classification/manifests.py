"""Manifests of a store of classifiers: one for its data and one for each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

import torch

from dtn_det._optional import require
from dtn_det.datasets.folders.image_files import printable
from dtn_det.robustness.classification.data import Prepared
from dtn_det.robustness.classification.images import SIDES
from dtn_det.robustness.classification.models.classifier import Classifier
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest
from dtn_det.robustness.store.store import ModelStore

if TYPE_CHECKING:
    import pyarrow

_CROP = "short side 256 bilinear antialiased, centre 224"
_LIBRARIES = ("dtn-det", "torch", "numpy", "pillow")


def store_manifest(options: ClassificationOptions, prepared: Prepared) -> StoreManifest:
    """Return the manifest of the data and conditions that all classifiers of a store share."""
    found, images, side = prepared.found, prepared.images, prepared.side
    clean = _CROP if side == SIDES["imagenet-c"] else f"{side} x {side} as it is"
    return StoreManifest(
        task="classification",
        data=options.data.resolve().name,
        data_hash=prepared.digest,
        num_images=len(images.images),
        selection=images.selection,
        corruption=prepared.corruption,
        cells=prepared.cells,
        unit_size=options.unit_size,
        protocol={
            "classes": prepared.classes,
            "num_classes": str(images.num_classes),
            "clean": f"{clean}, after the corruption" if prepared.cropped_after else clean,
            "bad_images": "left out" if options.on_bad_image == "record" else "none",
            **({} if prepared.clean_digest is None else {"clean_images": prepared.clean_digest}),
        },
        remarks=prepared.remarks,
        recognised={
            "folder": found.title,
            "dataset": found.dataset,
            "profile": prepared.profile,
            "side": str(side),
            "num_images_found": str(images.num_found),
            "num_classes_found": str(images.num_folders),
        },
    )


def model_manifest(classifier: Classifier, options: ClassificationOptions, device: torch.device) -> ModelManifest:
    """Return the manifest of the weights and settings that a classifier's numbers depend on."""
    protocol = {
        "batch_size": str(options.batch_size),
        "precision": "amp" if options.amp else "float32",
        "device": device.type,
    }
    return classifier.manifest(protocol, versions())


def versions() -> dict[str, str]:
    """Return the versions of the libraries that the numbers may depend on, by package."""
    return {name: metadata.version(name) for name in _LIBRARIES}


def image_table(prepared: Prepared) -> pyarrow.Table:
    """Return the list of images for a store: a table with the key and label of every image."""
    arrow = require("pyarrow", "eval")
    images = prepared.images.images
    table: pyarrow.Table = arrow.table(
        {
            "key": [printable(image.key) for image in images],
            "label": arrow.array([image.label for image in images], arrow.int32()),
        }
    )
    return table


def warn_of_versions(
    models: Sequence[ModelStore], classifiers: Sequence[Classifier], say: Callable[[str], None]
) -> None:
    """Warn of each model in a store whose finished units were evaluated with other versions of the libraries."""
    now = versions()
    for model, classifier in zip(models, classifiers, strict=True):
        current = {**now, **classifier.versions}
        changed = [
            f"{name} {version} then, {current[name]} now"
            for name, version in model.manifest.versions.items()
            if current.get(name, version) != version
        ]
        if changed and model.finished():
            say(f"warning: {model.manifest.name} was begun with other versions: {', '.join(changed)}")
