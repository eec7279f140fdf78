"""From the records of a store to numbers and the table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.errors import StoreError
from dtn_det.robustness.cells import Cell
from dtn_det.robustness.store.files import bad_images_of
from dtn_det.robustness.store.store import ModelStore

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow


@dataclass
class Tally:
    """Counts of one model's records, unit by unit: the size does not grow with the images.

    Attributes:
        cells: Of the store.
        errors: Wrong answers under each cell.
        top5_errors: Answers under each cell whose five best classes are wrong.
        images: Answers under each cell.
        bad: Images that were left out: number to what is wrong with each.
    """

    cells: Sequence[Cell]
    errors: NDArray[np.int64] = field(init=False)
    top5_errors: NDArray[np.int64] = field(init=False)
    images: NDArray[np.int64] = field(init=False)
    bad: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.errors, self.top5_errors, self.images = (np.zeros(len(self.cells), np.int64) for _ in range(3))

    def add(self, records: pyarrow.Table) -> None:
        """Count one unit."""
        cell = records["cell"].to_numpy()
        for counts, wrong in (
            (self.errors, ~records["correct"].to_numpy()),
            (self.top5_errors, ~records["correct_top5"].to_numpy()),
            (self.images, np.ones(len(cell), bool)),
        ):
            counts += np.bincount(cell[wrong], minlength=len(self.cells))
        self.bad.update(bad_images_of(records))

    def frame(self) -> pd.DataFrame:
        """Columns ``corruption``, ``severity``, ``error``, ``top5_error``, ``num_images``, of cells with images."""
        rows = [
            (*cell, wrong / count, wrong5 / count, count)
            for cell, wrong, wrong5, count in zip(
                self.cells, self.errors.tolist(), self.top5_errors.tolist(), self.images.tolist(), strict=True
            )
            if count
        ]
        columns = ["corruption", "severity", "error", "top5_error", "num_images"]
        frame: pd.DataFrame = require("pandas", "eval").DataFrame(rows, columns=columns)
        return frame


def tally(model: ModelStore) -> Tally:
    """Count the finished units of a model."""
    counts = Tally(model.store.manifest.cells)
    for records in model.batches(["cell", "correct", "correct_top5"]):
        if any(column.null_count for column in records.columns):
            raise StoreError(
                f"expected answers without gaps in the records of {model.manifest.name!r}, got missing ones: delete "
                f"{model.folder} and evaluate the model again"
            )
        counts.add(records)
    return counts
