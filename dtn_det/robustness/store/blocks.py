"""Blocks: the records of all images under some cells, which a sweep cell by cell keeps until the units can be written.

A cell is a corruption at a severity. A model that adapts while it is tested is reset before each block, and what it has
learned within one is not kept. So a block is complete or absent, and an interrupted one is evaluated from its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dtn_det._optional import require
from dtn_det.errors import StoreError
from dtn_det.robustness.store import ModelStore
from dtn_det.robustness.store.files import bad_images_of, check_rows, read_parquet, with_bad_images

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
        if pending := model.pending():
            tables = [self._read(model, number) for number in range(len(self.cells))]
            bad = {image: reason for table in tables for image, reason in bad_images_of(table).items()}
            records = require("pyarrow", "eval").concat_tables([one.replace_schema_metadata(None) for one in tables])
            image, cell = (records[name].to_numpy() for name in ("image", "cell"))
            order = np.lexsort((cell, image))
            order = order[~np.isin(image[order], list(bad))]
            image = image[order]
            for number in pending:
                unit = model.store.manifest.unit(number)
                ends = np.searchsorted(image, (unit.start, unit.stop))
                here = {image: reason for image, reason in bad.items() if image in unit}
                model.write(number, with_bad_images(records.take(order[slice(*ends)]), here))
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
