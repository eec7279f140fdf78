"""The records of a classifier as arrays with a row for each image and a column for each cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtn_det.corruptions.cells import Cell
from dtn_det.errors import StoreError
from dtn_det.robustness.store.files import bad_images_of
from dtn_det.robustness.store.store import ModelStore

_COLUMNS = {
    "correct": np.bool_,
    "correct_top5": np.bool_,
    "confidence": np.float32,
    "true_probability": np.float32,
    "squared_norm": np.float32,
}


@dataclass(frozen=True)
class ClassifierRecords:
    """The answers of one classifier to all images under all cells.

    Attributes:
        images: Numbers of the images with answers, in increasing order, (images,).
        cells: The cell of each column.
        columns: Arrays of shape (images, cells) by name: ``correct``, ``correct_top5``, ``confidence``,
            ``true_probability``, ``squared_norm`` as in
            :func:`dtn_det.robustness.classification.records.records_schema`.
        bad: The error of each image that could not be read and was left out, by the number of the image.
    """

    images: NDArray[np.int64]
    cells: tuple[Cell, ...]
    columns: Mapping[str, NDArray[np.generic]]
    bad: Mapping[int, str]


def read_records(model: ModelStore) -> ClassifierRecords:
    """Read the records of a model from all finished units, the files that a sweep writes.

    Raises:
        StoreError: There are no records, they are damaged, or an image lacks cells.
    """
    manifest = model.store.manifest
    parts: list[NDArray[np.int64]] = []
    stacks: dict[str, list[NDArray[np.generic]]] = {name: [] for name in _COLUMNS}
    bad: dict[int, str] = {}
    for number in sorted(model.finished()):
        table = model.read(number, ["image", "cell", *_COLUMNS])
        bad.update(bad_images_of(table))
        # The store has checked that each image is there exactly once under every cell.
        place = table["image"].to_numpy().astype(np.int64) * len(manifest.cells) + table["cell"].to_numpy()
        # Sweeps write records sorted by image, then by cell; sort only those that are not.
        order = None if (np.diff(place) > 0).all() else np.argsort(place)
        images = (place if order is None else place[order])[:: len(manifest.cells)] // len(manifest.cells)
        parts.append(images)
        for name, kind in _COLUMNS.items():
            values: NDArray[np.generic] = table[name].to_numpy().astype(kind, copy=False)
            stacks[name].append((values if order is None else values[order]).reshape(len(images), len(manifest.cells)))
    if not sum(map(len, parts)):
        raise StoreError(
            f"expected records of {model.manifest.name!r} in {model.store.folder}, got none: evaluate it first, or "
            "leave it out with --models"
        )
    columns = {name: np.concatenate(stack) for name, stack in stacks.items()}
    return ClassifierRecords(np.concatenate(parts), manifest.cells, columns, bad)
