"""Evaluate classifiers cell by cell: all images of one corruption at one severity, then all of the next.

Models that adapt while they are tested, as in Tent (arXiv:2006.10726) or with the statistics of each batch, need this
order: what such a model answers depends on the images that it got before. The images have the same random order under
every cell. A block consists of the cells between two resets of the models, and every block begins with models in the
state in which they were loaded. So a block can be evaluated after a kill, and in any process, with the same result.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dtn_det._optional import require
from dtn_det.corruptions.cells import Cell
from dtn_det.datasets.choosing import shuffled
from dtn_det.datasets.labelled import LabelledImage
from dtn_det.errors import InputError
from dtn_det.robustness.classification.images import Cells, ClassificationImages, Item
from dtn_det.robustness.classification.models.classifier import Classifier
from dtn_det.robustness.classification.network_state import changed, state_of
from dtn_det.robustness.classification.task import ClassificationTask
from dtn_det.robustness.options import ClassificationOptions, Reset
from dtn_det.robustness.store.blocks import Blocks
from dtn_det.robustness.store.files import bad_images_of, with_bad_images

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class CellOrder:
    """The settings of an evaluation cell by cell.

    Attributes:
        reset: Before what the models are reset.
        seed: Seed of the order of the images.
    """

    reset: Reset = "cell"
    seed: int = 0

    @property
    def protocol(self) -> dict[str, str]:
        """Return what a model's manifest says about the order."""
        return {"order": "cell", "reset": self.reset, "order_seed": str(self.seed)}

    def blocks(self, cells: Sequence[Cell], images: Sequence[LabelledImage]) -> Blocks:
        """Divide the cells into blocks, between which the models are reset, and order the images."""
        numbers = range(len(cells))
        parts: tuple[tuple[int, ...], ...]
        if self.reset == "cell":
            parts = tuple((number,) for number in numbers)
        elif self.reset == "corruption":
            of_corruption = itertools.groupby(numbers, key=lambda number: cells[number].corruption)
            parts = tuple(tuple(found) for _, found in of_corruption)
        else:
            parts = (tuple(numbers),)
        return Blocks(parts, shuffled([image.key for image in images], self.seed))


def cell_order(options: ClassificationOptions, num_processes: int) -> CellOrder | None:
    """Return the settings of an evaluation cell by cell; None for an evaluation image by image.

    Raises:
        InputError: An option is for the other order, or the evaluation cannot be divided among the processes.
    """
    if options.order == "image":
        if options.reset is not None or options.order_seed:
            given = "--order-seed" if options.reset is None else f"--reset {options.reset}"
            raise InputError(
                f"expected --reset and --order-seed with --order cell only, got {given}: add --order cell, or leave "
                "it out"
            )
        return None
    order = CellOrder(options.reset or "cell", options.order_seed)
    if order.reset == "never" and num_processes > 1:
        raise InputError(
            f"expected one process with --reset never, got {num_processes}: a model that is never reset sees all "
            "images in turn, so leave --launcher out, or take --reset cell or corruption"
        )
    return order


class ImagesByCell(Dataset[Item]):
    """Images, each under one cell.

    An index is a pair of a request of :class:`dtn_det.robustness.store.blocks.Blocks` and a slot's number.

    Args:
        by_cell: The images under each cell.
    """

    def __init__(self, by_cell: Sequence[ClassificationImages]) -> None:
        self.by_cell = by_cell

    def __len__(self) -> int:
        return sum(map(len, self.by_cell))

    def __getitem__(self, index: tuple[int, int]) -> Item:
        request, slot = index
        cell, image = divmod(request, len(self.by_cell[0]))
        return replace(self.by_cell[cell][image, slot], cell=cell)

    def __getitems__(self, indices: Sequence[tuple[int, int]]) -> list[Item]:
        found = []
        for cell, requests in itertools.groupby(indices, key=lambda index: index[0] // len(self.by_cell[0])):
            own = [(request % len(self.by_cell[0]), slot) for request, slot in requests]
            found += [replace(item, cell=cell) for item in self.by_cell[cell].__getitems__(own)]
        return found


@dataclass(kw_only=True)
class CellTask(ClassificationTask):
    """Evaluates classifiers on the images of one cell after the other.

    Attributes:
        cells: The source of the images of one cell, whichever.
        sources: The source of the images of each cell.
        order: Decides when the models are reset, and seeds their randomness.
    """

    sources: Sequence[Cells]
    order: CellOrder
    _cell: int = field(init=False, default=0)
    _batches: dict[str, int] = field(init=False, default_factory=dict)
    _adapts = True

    def loading(self, requests: Iterable[int], ahead: int) -> tuple[Dataset[Item], Iterator[tuple[int, int]]]:
        """See :class:`dtn_det.robustness.sweep.Task`."""
        _, indices = super().loading(requests, ahead)
        stacks = self._slots.stacks
        by_cell = [ClassificationImages(self.data.images, source, self._views, stacks) for source in self.sources]
        return ImagesByCell(by_cell), indices

    def evaluate(self, items: Iterator[Item], names: Sequence[str]) -> Mapping[str, pyarrow.Table]:
        """Evaluate a block; see :class:`dtn_det.robustness.sweep.Task` and :meth:`ClassificationTask.evaluate`.

        Raises:
            InputError: A model changes its parameters or buffers and cannot be reset.
        """
        arrow = require("pyarrow", "eval")
        chosen = [model for model in self.classifiers if model.name in names]
        self._reset(chosen)
        tables: dict[str, list[pyarrow.Table]] = {name: [] for name in names}
        bad: dict[int, str] = {}
        for cell, of_cell in itertools.groupby(items, key=lambda item: item.cell):
            self._cell, self._batches = cell or 0, dict.fromkeys(names, 0)
            for name, table in super().evaluate(of_cell, names).items():
                bad.update(bad_images_of(table))
                numbers = arrow.array(np.full(len(table), self._cell, np.uint8))
                tables[name].append(table.set_column(1, "cell", numbers).replace_schema_metadata(None))
        # Once more, so that nothing is written of a model that cannot be reset.
        self._reset(chosen)
        return {name: _without(arrow.concat_tables(found), bad) for name, found in tables.items()}

    def _reset(self, models: Sequence[Classifier]) -> None:
        """Reset models, and check that they are as they were loaded."""
        for model in models:
            reset = getattr(model.network, "reset", None)
            if self.order.reset == "never" or not callable(reset):
                continue
            before = self._states.setdefault(model.name, state_of(model.network))
            try:
                reset()
            # Third-party model code may raise anything.
            except (Exception, SystemExit) as error:
                raise InputError(
                    f"expected reset() of the model {model.name!r} to work without arguments, got "
                    f"{type(error).__name__}: {error}: mend it"
                ) from error
            if name := changed(before, state_of(model.network)):
                raise InputError(
                    f"expected reset() of the model {model.name!r} to restore the parameters and buffers with which it "
                    f"was loaded, got another {name}: mend it, or take --reset never"
                )

    def _check_states(self, models: Sequence[Classifier]) -> None:
        """Raise an InputError if a model has changed and cannot be reset though it must be."""
        for model in models:
            if self.order.reset == "never" or callable(getattr(model.network, "reset", None)):
                continue
            if name := changed(self._states[model.name], state_of(model.network)):
                raise InputError(
                    f"expected a method reset() of the model {model.name!r}, whose {name} changes while it is "
                    f"evaluated, got none: add one that restores what it was loaded with, or take --reset never"
                )

    def _logits(self, model: Classifier, pixels: Tensor) -> Tensor:
        """Run a model on a batch. Its randomness depends on the cell and the number of the batch alone."""
        seed = np.random.SeedSequence((self.order.seed, self._cell, self._batches[model.name]))
        self._batches[model.name] += 1
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(seed.generate_state(1)[0]))
            return super()._logits(model, pixels)


def _without(records: pyarrow.Table, bad: Mapping[int, str]) -> pyarrow.Table:
    """Leave images out of records under all cells if they are bad under one."""
    if bad:
        records = records.filter(~np.isin(records["image"].to_numpy(), list(bad)))
    return with_bad_images(records, bad)
