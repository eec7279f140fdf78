"""Small stores with generated records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as arrow

from dtn_det.corruptions import Corruptor
from dtn_det.corruptions.cells import Cell, sweep_cells
from dtn_det.robustness.classification.records import records_schema
from dtn_det.robustness.detection.records import ImageDetections, RecordRows
from dtn_det.robustness.detection.truth import CocoTruth, read_truth
from dtn_det.robustness.store import ModelStore, Store
from dtn_det.robustness.store.files import BAD_IMAGES
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest

SEVERITIES = (1, 3, 5)
CORRUPTIONS = ("gaussian_noise", "fog", "speckle_noise")


def classifier_store(
    folder: Path,
    models: Mapping[str, int],
    *,
    images: int = 40,
    cells: Sequence[Cell] = sweep_cells(CORRUPTIONS, SEVERITIES),
    units: Iterable[int] | None = None,
    bad: Sequence[int] = (),
    table: arrow.Table | None = None,
    **fields: object,
) -> Path:
    """A store of classifiers, named with the seeds of their answers.

    Args:
        folder: Where to.
        models: Name to seed.
        images: Their number.
        cells: Conditions.
        units: Those that are finished, all if None.
        bad: Images that cannot be read.
        table: The list of images, keys without labels if None.
        fields: Of the manifest, in place of the usual ones.
    """
    values = {
        "task": "classification", "data": "pictures", "data_hash": "abc", "num_images": images, "selection": "all",
        "corruption": Corruptor("cifar-c").identity, "cells": tuple(cells), "unit_size": 16,
        "protocol": {"classes": "folder", "num_classes": "10"}, **fields,
    }  # fmt: skip
    table = arrow.table({"key": [f"{n}.png" for n in range(images)]}) if table is None else table
    store = Store.create(folder, StoreManifest(**values), table)
    for name, seed in models.items():
        model = store.add_model(
            ModelManifest(
                name, f"timm:{name}", f"weights {seed}", 1000 + seed, {"precision": "float32"}, {"torch": "2"}
            )
        )
        answers = classifier_answers(seed, images, store.manifest.cells)
        for unit in model.pending() if units is None else units:
            chosen = [image for image in store.manifest.unit(unit) if image not in bad]
            told = {image: "is truncated" for image in store.manifest.unit(unit) if image in bad}
            rows = arrow.table({key: column[chosen].reshape(-1) for key, column in answers.items()}).cast(
                records_schema()
            )
            model.write(unit, rows.replace_schema_metadata({BAD_IMAGES: json.dumps(told).encode()} if told else None))
    return folder


def classifier_answers(seed: int, images: int, cells: Sequence[Cell]) -> dict[str, np.ndarray]:
    """The columns of the records, each (images, cells); models of higher seeds are better."""
    ease = np.random.default_rng(0).normal(size=(images, 1))
    rng = np.random.default_rng((7, seed))
    harm = np.array([0.4 * severity for _, severity in cells])
    margin = ease + rng.normal(size=(images, len(cells))) + 0.5 + 0.3 * seed - harm
    true = 1 / (1 + np.exp(-margin))
    correct = true > 0.5
    confidence = np.where(correct, true, 0.9 * (1 - true))
    return {
        "image": np.repeat(np.arange(images)[:, None], len(cells), 1),
        "cell": np.repeat(np.arange(len(cells))[None], images, 0),
        "prediction": np.where(correct, 1, 2),
        "confidence": confidence.astype(np.float32),
        "correct": correct,
        "correct_top5": true > 0.2,
        "true_probability": true.astype(np.float32),
        "squared_norm": (confidence**2).astype(np.float32),
    }


def detector_store(
    folder: Path,
    models: Mapping[str, int],
    *,
    images: int = 24,
    cells: Sequence[Cell] = sweep_cells(CORRUPTIONS, SEVERITIES),
    units: Iterable[int] | None = None,
    masks: bool = False,
    bad: Sequence[int] = (),
) -> Path:
    """A store of detectors that find boxes near the objects, the closer the higher the seed; arguments as above."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    truth = _truth(folder.parent / f"{folder.name}.json", images)
    manifest = StoreManifest(
        "detection", "boxes", truth.hash([0] * images), images, "all", Corruptor("coco-c").identity, tuple(cells), 8,
        truth.protocol,
    )  # fmt: skip
    store = Store.create(folder, manifest, truth.table())
    for name, seed in models.items():
        model = store.add_model(ModelManifest(name, f"{name}.py", f"weights {seed}", 5000, {}, {"torch": "2"}))
        for unit in model.pending() if units is None else units:
            _write_detections(model, unit, truth, seed, masks, bad)
    return folder


def _truth(path: Path, images: int) -> CocoTruth:
    rng = np.random.default_rng(0)
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 96, "width": 128} for i in range(1, images + 1)],
        "annotations": [],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "bar"}],
    }
    for image in range(1, images + 1):
        for _ in range(3):
            (x, y), (w, h) = rng.uniform(0, 40, 2).tolist(), rng.uniform(36, 50, 2).tolist()
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": image, "category_id": int(rng.integers(1, 3)),
                 "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": [polygon]}
            )  # fmt: skip
    path.write_text(json.dumps(content))
    return read_truth(path, list(range(1, images + 1)), [1, 2])


def _write_detections(
    model: ModelStore, unit: int, truth: CocoTruth, seed: int, masks: bool, bad: Sequence[int]
) -> None:
    from faster_coco_eval.core.mask import encode

    manifest = model.store.manifest
    rows = RecordRows()
    for image in manifest.unit(unit):
        if image in bad:
            rows.add_bad(image, range(len(manifest.cells)), "is truncated")
            continue
        objects = json.loads(truth.images[image].annotations)
        boxes = np.array([one["bbox"] for one in objects])
        boxes[:, 2:] += boxes[:, :2]
        for number, (_, severity) in enumerate(manifest.cells):
            rng = np.random.default_rng((seed, image, number))
            moved = boxes + rng.normal(scale=(1 + severity) / (1 + seed), size=boxes.shape)
            labels = np.array([one["category_id"] - 1 for one in objects], np.int32)
            runs = None
            if masks:
                pictures = np.zeros((96, 128, len(moved)), np.uint8, order="F")
                for place, (x1, y1, x2, y2) in enumerate(moved.astype(int).clip(0)):
                    pictures[y1:y2, x1:x2, place] = 1
                runs = tuple(one["counts"] for one in encode(pictures))
            scores = rng.uniform(0.1, 1, len(moved)).astype(np.float32)
            rows.add(image, number, ImageDetections(moved.astype(np.float32), scores, labels, runs))
    model.write(unit, rows.table())
