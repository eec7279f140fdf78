"""The records of a classifier as arrays with one row an image and one column a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtn_det.metrics.cells import Cell
from dtn_det.robustness.classification_task import BAD_IMAGES
from dtn_det.robustness.store import ModelStore, StoreError

_COLUMNS = {
    "correct": np.bool_,
    "correct_top5": np.bool_,
    "confidence": np.float32,
    "true_probability": np.float32,
    "squared_norm": np.float32,
}


@dataclass(frozen=True)
class ClassifierRecords:
    """What one classifier answered.

    Attributes:
        images: Numbers of the images that it answered, (images,), rising.
        cells: Of the columns.
        columns: By name ``(images, cells)``: ``correct``, ``correct_top5``, ``confidence``, ``true_probability``,
            ``squared_norm`` as in :func:`dtn_det.robustness.classification_records.records_schema`.
        bad: Images that were left out: number to what is wrong with each.
    """

    images: NDArray[np.int64]
    cells: tuple[Cell, ...]
    columns: Mapping[str, NDArray[np.generic]]
    bad: Mapping[int, str]


def read_records(model: ModelStore) -> ClassifierRecords:
    """Read the finished units of a model.

    Raises:
        StoreError: Records are damaged, or an image lacks cells.
    """
    manifest = model.store.manifest
    parts: list[NDArray[np.int64]] = []
    stacks: dict[str, list[NDArray[np.generic]]] = {name: [] for name in _COLUMNS}
    bad: dict[int, str] = {}
    for number in sorted(model.finished()):
        table = model.read(number, ["image", "cell", *_COLUMNS])
        told = (table.schema.metadata or {}).get(BAD_IMAGES)
        if told is not None:
            bad.update({int(image): text for image, text in json.loads(told).items()})
        images, rows = np.unique(table["image"].to_numpy(), return_inverse=True)
        shape = (len(images), len(manifest.cells))
        places = rows * shape[1] + table["cell"].to_numpy()
        if not np.array_equal(np.sort(places), np.arange(shape[0] * shape[1])):
            raise StoreError(
                f"expected every image of unit {number} of {model.manifest.name!r} once under every cell, got others: "
                f"delete unit-{number:06d}.parquet in {model.folder} and start the run again"
            )
        parts.append(images.astype(np.int64))
        for name, kind in _COLUMNS.items():
            values: NDArray[np.generic] = np.empty(len(places), kind)
            values[places] = table[name].to_numpy()
            stacks[name].append(values.reshape(shape))
    if not sum(map(len, parts)):
        raise StoreError(
            f"expected records of {model.manifest.name!r} in {model.store.folder}, got none: evaluate it first, or "
            "leave it out with --models"
        )
    columns = {name: np.concatenate(stack) for name, stack in stacks.items()}
    return ClassifierRecords(np.concatenate(parts), manifest.cells, columns, bad)
