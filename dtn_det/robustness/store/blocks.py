"""Records of all images under some cells, written as units: by a sweep cell by cell, or when results are imported.

Blocks are such records, which a sweep cell by cell keeps until the units can be written.

A cell is a corruption at a severity. A model that adapts while it is tested is reset before each block, and what it has
learned within one is not kept. So a block is complete or absent, and an interrupted one is evaluated from its start.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dtn_det._optional import require
from dtn_det.errors import StoreError
from dtn_det.robustness.store import ModelStore, Store
from dtn_det.robustness.store.files import (
    bad_images_of,
    check_name,
    check_rows,
    folder_name,
    read_parquet,
    with_bad_images,
)
from dtn_det.robustness.store.manifest import ModelManifest
from dtn_det.system.files import is_temporary, locked, write_json

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Blocks:
    """The blocks of a sweep, as :class:`dtn_det.robustness.sweep.Parts`.

    Attributes:
        cells: Numbers of the cells of each block, in the order in which they are evaluated.
        images: Numbers of the images, in the order in which they are evaluated under each cell.
    """

    cells: tuple[tuple[int, ...], ...]
    images: Sequence[int]

    def size(self, number: int) -> int:
        """Return how many images under how many cells a block has, in all."""
        return len(self.cells[number]) * len(self.images)

    def requests(self, number: int) -> Iterator[int]:
        """Yield ``cell * images + image`` for each cell and image of a block, by the numbers of cells and images."""
        return (cell * len(self.images) + image for cell in self.cells[number] for image in self.images)

    def pending(self, model: ModelStore) -> Iterable[int]:
        """Return the numbers of the blocks that are still to be evaluated."""
        if not model.pending():
            return []
        done = model.blocks()
        return [number for number in range(len(self.cells)) if number not in done]

    def write(self, model: ModelStore, number: int, records: pyarrow.Table) -> None:
        """Write the records of a block.

        Args:
            records: As for :meth:`ModelStore.write`, of all images that are not bad and the cells of the block.

        Raises:
            OSError: The records could not be written, on a full disk for example. All earlier files are kept.
        """
        model.write_records(f"block-{number:04d}.parquet", records)

    def finish(self, model: ModelStore) -> None:
        """Write the units from the blocks of all cells, and delete the blocks.

        An image that is bad under one cell is left out of all.

        Raises:
            StoreError: A block is damaged.
            OSError: A unit could not be written; the blocks are kept.
        """
        if model.pending():
            write_units(model, [self._read(model, number) for number in range(len(self.cells))])
        for path in model.blocks().values():
            path.unlink(missing_ok=True)

    def _read(self, model: ModelStore, number: int) -> pyarrow.Table:
        path = model.folder / f"block-{number:04d}.parquet"
        try:
            table = read_parquet(path)
            check_rows(table, range(len(self.images)), self.cells[number])
        except Exception as error:  # pyarrow raises errors of its own kinds, OSError and ValueError
            raise StoreError(f"expected records in {path}, got: {error}. Delete the file and start again") from error
        return table


def write_units(model: ModelStore, tables: Sequence[pyarrow.Table]) -> None:
    """Write the units that a model lacks, from the records of all images under each cell.

    An image that is bad under one cell is left out of all.

    Args:
        tables: As for :meth:`ModelStore.write`, of some cells each, and of all cells together.

    Raises:
        OSError: A unit could not be written.
    """
    bad = {image: reason for table in tables for image, reason in bad_images_of(table).items()}
    parts = []
    for table in tables:
        # In one chunk, because taking rows copies all chunks of a column.
        whole = table.replace_schema_metadata(None).combine_chunks()
        image = whole["image"].to_numpy()
        order = np.argsort(image, kind="stable")
        parts.append((whole, order, image[order]))
    concat = require("pyarrow", "eval").concat_tables
    for number in model.pending():
        unit = model.store.manifest.unit(number)
        records = concat(
            [
                whole.take(order[slice(*np.searchsorted(image, (unit.start, unit.stop)))])
                for whole, order, image in parts
            ]
        )
        image, cell = (records[name].to_numpy() for name in ("image", "cell"))
        rows = np.lexsort((cell, image))
        here = {image: reason for image, reason in bad.items() if image in unit}
        model.write(number, with_bad_images(records.take(rows[~np.isin(image[rows], list(bad))]), here))


def write_model(store: Store, manifest: ModelManifest, tables: Sequence[pyarrow.Table]) -> ModelStore:
    """Add a model with all its records to a store, whole or not at all.

    The model is written under a temporary name and renamed. A temporary folder that a killed process left is deleted.

    Args:
        tables: See :func:`write_units`.

    Returns:
        The model; the one in the store if its manifest is the same and its records are complete.

    Raises:
        StoreError: The store has another model of this name.
        InputError: Another process is writing to the store.
        OSError: A file could not be written; nothing of the model is kept.
    """
    check_name(manifest.name)
    if manifest.name in store.models():
        model = store.add_model(manifest)
        if not model.pending():
            return model
    with locked(store.folder, "--store"):
        for entry in store.folder.iterdir():
            if is_temporary(entry.name) and entry.is_dir():
                shutil.rmtree(entry)
        temporary = store.folder / f".{secrets.token_hex(8)}.{os.getpid()}.tmp"
        try:
            temporary.mkdir()
            write_units(ModelStore(store, temporary, manifest), tables)
            write_json(temporary / "model.json", manifest.to_dict())
            target = store.folder / "models" / folder_name(manifest.name)
            target.parent.mkdir(exist_ok=True)
            # A folder of this name without the manifest of a model is of no use.
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return store.model(manifest.name)
