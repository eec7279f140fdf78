"""The records of a classifier as arrays with one row an image and one column a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtn_det.errors import StoreError
from dtn_det.metrics.cells import Cell
from dtn_det.robustness.store.files import BAD_IMAGES
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
    """The answers of one classifier.

    Attributes:
        images: Numbers of the images that it answered, (images,), rising.
        cells: The cell of each column.
        columns: Arrays ``(images, cells)`` by name: ``correct``, ``correct_top5``, ``confidence``,
            ``true_probability``, ``squared_norm`` as in
            :func:`dtn_det.robustness.classification.records.records_schema`.
        bad: Images that were left out: number of the image to what is wrong with it.
    """

    images: NDArray[np.int64]
    cells: tuple[Cell, ...]
    columns: Mapping[str, NDArray[np.generic]]
    bad: Mapping[int, str]


def read_records(model: ModelStore) -> ClassifierRecords:
    """Read the records of all finished units of a model.

    Raises:
        StoreError: There are none, they are damaged, or an image lacks cells.
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
        images, order = _layout(table["image"].to_numpy(), table["cell"].to_numpy(), len(manifest.cells))
        if images is None:
            raise StoreError(
                f"expected every image of unit {number} of {model.manifest.name!r} once under every cell, got others: "
                f"delete unit-{number:06d}.parquet in {model.folder} and start the run again"
            )
        parts.append(images.astype(np.int64))
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


def _layout(
    image: NDArray[np.generic], cell: NDArray[np.generic], num_cells: int
) -> tuple[NDArray[np.generic] | None, NDArray[np.intp] | None]:
    """The images of a unit, rising, and the order of its rows that puts all cells of each image side by side.

    Args:
        image: Image of each row.
        cell: Cell of each row.
        num_cells: Cells of each image.

    Returns:
        Images and order. The order is None where the rows have it already; the images are None where one of them lacks
        a cell or has it twice.
    """
    # Sweeps write them in this order already, which is quick to check.
    order = None
    if not _is_ordered(image, cell, num_cells):
        order = np.lexsort((cell, image))
        image, cell = image[order], cell[order]
        if not _is_ordered(image, cell, num_cells):
            return None, None
    return image[::num_cells], order


def _is_ordered(image: NDArray[Any], cell: NDArray[Any], num_cells: int) -> bool:
    if len(image) % num_cells:
        return False
    images, cells = image.reshape(-1, num_cells), cell.reshape(-1, num_cells)
    first = images[:, 0].astype(np.int64)
    return bool(
        (cells == np.arange(num_cells)).all() and (images == images[:, :1]).all() and (np.diff(first) > 0).all()
    )
