"""Progress of a sweep of classifiers: how many images are done, and estimates of the errors from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from dtn_det._optional import require
from dtn_det.corruptions.cells import Cell
from dtn_det.errors import StoreError
from dtn_det.metrics import CellError, mean_corruption_error, mean_error
from dtn_det.robustness.classification.baseline import ALEXNET
from dtn_det.robustness.store import ModelStore
from dtn_det.robustness.store.files import bad_images_of
from dtn_det.robustness.sweep import Rank
from dtn_det.system.progress import duration, stages

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow


@dataclass
class Tally:
    """Counts a model's errors unit by unit, in memory that does not grow with the number of images.

    Attributes:
        errors: Number of wrong answers under each cell.
        top5_errors: Number of answers under each cell whose five best classes are all wrong.
        bad: What is wrong with each image that was left out, by the number of the image.
    """

    cells: Sequence[Cell]
    errors: NDArray[np.int64] = field(init=False)
    top5_errors: NDArray[np.int64] = field(init=False)
    images: NDArray[np.int64] = field(init=False)
    bad: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.errors, self.top5_errors, self.images = (np.zeros(len(self.cells), np.int64) for _ in range(3))

    def add(self, records: pyarrow.Table) -> None:
        """Count the records of one unit."""
        cell = records["cell"].to_numpy()
        for counts, wrong in (
            (self.errors, ~records["correct"].to_numpy()),
            (self.top5_errors, ~records["correct_top5"].to_numpy()),
            (self.images, np.ones(len(cell), bool)),
        ):
            counts += np.bincount(cell[wrong], minlength=len(self.cells))
        self.bad.update(bad_images_of(records))

    def frame(self) -> pd.DataFrame:
        """Return ``corruption``, ``severity``, ``error``, ``top5_error``, ``num_images`` of each cell with images."""
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
    """Count the errors in the finished units of a model.

    Raises:
        StoreError: An answer is missing in the records.
    """
    counts = Tally(model.store.manifest.cells)
    for records in model.batches(["cell", "correct", "correct_top5"]):
        if any(column.null_count for column in records.columns):
            raise StoreError(
                f"expected answers without gaps in the records of {model.manifest.name!r}, got missing ones: delete "
                f"{model.folder} and evaluate the model again"
            )
        counts.add(records)
    return counts


_SHOWN, _SHOWN_SECONDS = 3, 0.1


class SweepProgress:
    """Counts the errors of classifiers during a sweep and shows its progress.

    Args:
        baseline: Name of the model whose errors are the denominators of corruption errors, or ``alexnet``; None to show
            the mean error instead of mCE.
        rank: This process. It counts the units that were finished before the run and the units that it writes itself.
    """

    def __init__(self, models: Sequence[ModelStore], baseline: str | None, rank: Rank) -> None:
        self.tallies: dict[str, Tally] = {model.manifest.name: tally(model) for model in models}
        if baseline is not None and baseline not in (ALEXNET, *self.tallies):
            self.tallies[baseline] = tally(models[0].store.model(baseline))
        self.names = [model.manifest.name for model in models]
        self.baseline, self.rank = baseline, rank
        self.num_cells = len(models[0].store.manifest.cells)
        self._texts: list[str] | None = None

    def add(self, number: int, records: Mapping[str, pyarrow.Table]) -> None:
        """Count the records of a unit that was written: one table for each model, by the model's name."""
        for name, table in records.items():
            self.tallies[name].add(table)
        self._texts = None

    @contextmanager
    def shown(self, console: Console, num_images: int) -> Iterator[Callable[[], None]]:
        """Show the progress within the block.

        Args:
            num_images: Number of images that this process evaluates.

        Yields:
            A function to be called after each image.
        """
        title = "Evaluating" if self.rank.count == 1 else f"Evaluating (process 1 of {self.rank.count})"
        with stages(console) as add_stage:
            stage = add_stage(f"{title} images", num_images)
            stage(0, note=f"{self.num_cells} cells each")
            started, done, shown = time.monotonic(), 0, 0.0

            def on_image() -> None:
                nonlocal done, shown
                done += 1
                now = time.monotonic()
                # Progress is not shown for each image, because a run may evaluate thousands of small images a second.
                if now - shown < _SHOWN_SECONDS and done < num_images:
                    return
                shown = now
                rate = done / max(now - started, 1e-9)
                parts = [f"{rate:,.1f} images/s x {self.num_cells} cells = {rate * self.num_cells:,.0f}/s"]
                if console.is_terminal and done < num_images:
                    parts.append(f"{duration((num_images - done) / rate)} left")
                stage(done, note=", ".join([*parts, *self.estimate()]))

            yield on_image

    def estimate(self) -> list[str]:
        """Return mCE or mean error over the finished units, as a text for each of the first three models."""
        # The estimate changes with each unit, and computing it takes longer than reading an image from an array.
        if self._texts is None:
            self._texts = self._estimates()
        return self._texts

    def _estimates(self) -> list[str]:
        texts = []
        for name in self.names[:_SHOWN]:
            number = self._estimate(name)
            if number is not None:
                texts.append(f"{name} {number} (estimate)" if len(self.names) > 1 else f"{number} (estimate)")
        return texts

    def _estimate(self, name: str) -> str | None:
        frame = self.tallies[name].frame()
        try:
            if self.baseline is None:
                return f"mean error {100 * mean_error(frame, allow_partial=True).value:.1f} %"
            baseline = self.baseline if self.baseline == ALEXNET else self.tallies[self.baseline].frame()
            return f"mCE {mean_corruption_error(frame, baseline, allow_partial=True).value:.1f}"
        # An estimate is impossible in four cases: no unit is finished, all corruptions are hold-outs, the baseline
        # makes no error, or the baseline has fewer or more images than the model.
        except (CellError, ValueError):
            return None
