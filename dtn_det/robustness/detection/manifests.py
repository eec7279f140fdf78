"""Manifests of a store of detections, and the replacement of its annotations by corrected ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dtn_det.corruptions.cells import Cell
from dtn_det.corruptions.engine import Corruptor
from dtn_det.datasets.class_names import LabelNames
from dtn_det.datasets.remarks import Remark
from dtn_det.robustness.detection.data import DetectionData
from dtn_det.robustness.detection.model import Detector
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest, differences, hash_weights
from dtn_det.robustness.store.store import Store


def store_manifest(data: DetectionData, cells: tuple[Cell, ...], corruptor: Corruptor, unit_size: int) -> StoreManifest:
    """Return the manifest of the data and conditions that all detectors of a store share.

    Raises:
        InputError: Images are missing.
    """
    sizes = data.file_sizes()
    return StoreManifest(
        task="detection",
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
    """Return the manifest of the weights and settings that a detector's numbers depend on.

    The manifest holds the names of the labels if their order is not that of the data's categories. If the orders agree,
    it holds no such names, so records with and without reordered labels are never mixed.
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
            "model_settings": detector.settings,
            "pipeline": data.pipeline_json,
            "batch_size": str(batch_size),
            "precision": detector.precision,
            "device": detector.device.type,
            **own_order,
        },
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions of the libraries that the numbers may depend on, by package."""
    found = {"torch": str(torch.__version__)}
    for package in ("dtn-det", "numpy", "opencv-python-headless", "onedl-mmdetection", "onedl-mmcv", "mmdet", "mmcv"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def take_new_annotations(
    folder: Path, manifest: StoreManifest, data: DetectionData, say: Callable[[str], None] = lambda text: None
) -> bool:
    """Replace a store's annotations by this run's if nothing else differs. The detections in the store stay valid.

    Args:
        folder: Folder of a store, or one that is to become a store.
        manifest: Manifest of this run.
        data: Data of this run.
        say: Function that is called with one sentence about the replacement.

    Returns:
        Whether the annotations were replaced.

    Raises:
        StoreError: The store is damaged.
        ValueError: Another process is writing to the store.
    """
    if not (folder / "store.json").is_file():
        return False
    store = Store.open(folder)
    found = store.manifest
    if found.data_hash == manifest.data_hash or _others(found, manifest):
        return False
    if manifest.images_hash != (found.images_hash or _images_hash(store, data)):
        return False
    hashes = f"{found.data_hash[:12]} before, {manifest.data_hash[:12]} now"
    what = "change of the annotations; the detections are of the same images and were kept"
    remark = Remark("annotations_replaced", what, data.name, 1, (hashes,))
    earlier = (*found.earlier_data_hashes, found.data_hash)
    new = replace(manifest, remarks=(*manifest.remarks, remark), earlier_data_hashes=earlier)
    store.with_other_labels(new, data.truth.table())
    say(f"note: {remark.sentence()}")
    return True


def _others(found: StoreManifest, wanted: StoreManifest) -> list[str]:
    """Return a line for each difference between two manifests apart from the annotations."""
    return differences({**found.to_dict(), "data_hash": ""}, {**wanted.to_dict(), "data_hash": ""})


def _images_hash(store: Store, data: DetectionData) -> str:
    """Return the hash of the images alone, which the store's manifest lacks; empty if files or annotations changed."""
    truth, sizes = CocoTruth.of(store), data.file_sizes()
    if len(truth.images) != len(sizes) or truth.hash(sizes) != store.manifest.data_hash:
        return ""
    return truth.images_hash(sizes)
