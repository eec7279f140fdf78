"""How classifiers are evaluated on images under every cell, a corruption at a severity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dtn_det._optional import require
from dtn_det.datasets.labelled import LabelledImages
from dtn_det.datasets.remarks import counted
from dtn_det.errors import BadImageError, DeviceMemoryError, InputError
from dtn_det.robustness.classification.images import Cells, ClassificationImages, CorruptedRows, Item, ViewSlots
from dtn_det.robustness.classification.models.classifier import Classifier, View, check_logits
from dtn_det.robustness.classification.network_state import State, changed, state_of
from dtn_det.robustness.classification.records import records_schema, score
from dtn_det.robustness.options import OnBadImage
from dtn_det.robustness.store.files import with_bad_images

if TYPE_CHECKING:
    import pyarrow


_SCORED = 1 << 20
"""Number of logits of a model that are kept before they are scored together, which is quicker than batch by batch."""


@dataclass
class _Answers:
    """The logits of some images under all cells, before they are scored.

    Attributes:
        images: Numbers of the images.
        logits: The logits of each batch; the rows are in the order of the images, with all cells of each.
        tables: The records that are scored already.
    """

    images: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    tables: list[pyarrow.Table] = field(default_factory=list)


@dataclass
class ClassificationTask:
    """Evaluates classifiers on every image under every cell (corruption and severity).

    Attributes:
        cells: Makes or reads the corrupted versions of the images.
        classifiers: The models, already on the device.
        batch_size: Largest number of images that a model gets at once.
    """

    data: LabelledImages
    cells: Cells
    side: int
    classifiers: Sequence[Classifier]
    device: torch.device
    batch_size: int
    amp: bool
    on_bad_image: OnBadImage
    unit_size: int
    on_image: Callable[[], None] = lambda: None
    _slots: ViewSlots = field(init=False, repr=False)
    _states: dict[str, State] = field(init=False, repr=False, default_factory=dict)
    _block: int = field(init=False, repr=False, default=1)
    _adapts: ClassVar[bool] = False

    def block_size(self, ahead: int) -> int:
        """See :class:`dtn_det.robustness.sweep.Task`. Images that are decoded or corrupted take long enough alone."""
        self._block = self.cells.block_size(ahead) if isinstance(self.cells, CorruptedRows) else 1
        return self._block

    def loading(self, requests: Iterable[int], ahead: int) -> tuple[Dataset[Item], Iterator[tuple[int, int]]]:
        """See :class:`dtn_det.robustness.sweep.Task`.

        Raises:
            OSError: There is too little shared memory.
        """
        # One slot for each image that is loaded ahead, waits in its block or is processed by the models.
        count = ahead + self._block - 1 + self._group_size
        self._slots = ViewSlots(self._views, len(self.cells), self.side, count, shared=ahead > 0)
        images = ClassificationImages(self.data.images, self.cells, self._views, self._slots.stacks)
        return images, self._slots.indices(requests)

    def evaluate(self, items: Iterator[Item], names: Sequence[str]) -> Mapping[str, pyarrow.Table]:
        """See :class:`dtn_det.robustness.sweep.Task`.

        Raises:
            BadImageError: An image cannot be read, and ``on_bad_image`` is not ``'record'``.
            ValueError: A model fails, its output is not one finite logit for each image and class, or it changes its
                parameters or buffers.
            DeviceMemoryError: The accelerator's memory is full.
        """
        chosen = [model for model in self.classifiers if model.name in names]
        new = [model for model in chosen if model.name not in self._states]
        self._states.update({model.name: state_of(model.network) for model in new})
        answers = {model.name: _Answers() for model in chosen}
        bad: dict[int, str] = {}
        for group in self._groups(items, bad):
            for model in chosen:
                self._answer(model, group, answers[model.name])
            for item in group:
                self._slots.release(item.slot)
            # Once more at the first images, so that a long run does not stop only after its first unit.
            self._check_states(new)
            new = []
        self._check_states(chosen)
        for name, found in answers.items():
            self._score(name, found)
        arrow, schema = require("pyarrow", "eval"), records_schema()
        return {
            name: with_bad_images(arrow.concat_tables([schema.empty_table(), *found.tables]), bad)
            for name, found in answers.items()
        }

    def _check_states(self, models: Sequence[Classifier]) -> None:
        """Raise an InputError if a model has changed its parameters or buffers."""
        for model in models:
            if name := changed(self._states[model.name], state_of(model.network)):
                raise InputError(
                    f"expected the model {model.name!r} to keep its parameters and buffers while images are evaluated "
                    f"in any order, got another {name} after some images: evaluate a model that adapts with --order "
                    "cell, or mend it"
                )

    def _groups(self, items: Iterator[Item], bad: dict[int, str]) -> Iterator[list[Item]]:
        """Yield the groups of images that a model gets together, the same in every run. Add bad images to ``bad``."""
        group: list[Item] = []
        for item in items:
            self.on_image()
            if item.error is None:
                group.append(item)
            elif self.on_bad_image == "record":
                bad[item.image] = item.error
                self._slots.release(item.slot)
            else:
                raise BadImageError(
                    f"expected images that can be read, got {item.error}. What is finished is kept: mend the file and "
                    "start again, or leave such images out with --on-bad-image record"
                )
            if len(group) == self._group_size:
                yield group
                group = []
        if group:
            yield group

    @cached_property
    def _group_size(self) -> int:
        return min(max(1, self.batch_size // len(self.cells)), self.unit_size)

    @cached_property
    def _views(self) -> tuple[View, ...]:
        """The different forms of the images that the models need: see :class:`View`."""
        return tuple(dict.fromkeys(model.view.of(self.side) for model in self.classifiers))

    def _answer(self, model: Classifier, group: Sequence[Item], answers: _Answers) -> None:
        """Run a model on a group of images, and score its answers if there are many."""
        stack, size = self._slots.stacks[self._views.index(model.view.of(self.side))], self.batch_size
        pixels = [stack[item.slot] for item in group]
        stacked = pixels[0] if len(pixels) == 1 else torch.cat(pixels)
        answers.logits += [self._logits(model, stacked[at : at + size]) for at in range(0, stacked.shape[0], size)]
        answers.images += [item.image for item in group]
        if len(answers.images) * len(self.cells) * self.data.num_classes >= _SCORED:
            self._score(model.name, answers)

    def _score(self, name: str, answers: _Answers) -> None:
        """Turn the logits that are kept into records."""
        if not answers.logits:
            return
        images = np.repeat(answers.images, len(self.cells))
        cells = np.tile(np.arange(len(self.cells)), len(answers.images))
        labels = torch.tensor([self.data.images[number].label for number in answers.images])
        right = self._accepted(images.tolist()) if self.data.accepted else None
        logits = torch.cat(answers.logits)
        with self._memory_checked(len(logits), name):
            columns = score(logits, labels.repeat_interleave(len(self.cells)).to(self.device), name, right)
        values = {"image": images, "cell": cells, **{name: column.numpy() for name, column in columns.items()}}
        schema = records_schema()
        arrays = [values[field.name].astype(field.type.to_pandas_dtype()) for field in schema]
        answers.tables.append(require("pyarrow", "eval").table(arrays, schema=schema))
        answers.images, answers.logits = [], []

    def _accepted(self, images: Sequence[int]) -> list[tuple[int, ...]]:
        """Return, for each image, all classes that count as right."""
        return [self.data.accepted[self.data.images[number].key] for number in images]

    # In inference mode, a model that computes gradients would fail, rather than be found out by its changed weights.
    @torch.no_grad()
    def _logits(self, model: Classifier, pixels: Tensor) -> Tensor:
        """Run a model on a batch of images, ``(N, H, W, 3)``, and return a copy of its logits."""
        precision = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        with self._memory_checked(pixels.shape[0], model.name):
            images = pixels.to(self.device).permute(0, 3, 1, 2)
            # Copies of weights in low precision are not kept for a model that changes its weights.
            cached = not self._adapts
            with torch.autocast(self.device.type, precision, cache_enabled=cached) if self.amp else nullcontext():
                logits = model.logits(images)
            logits = check_logits(logits, images.shape[0], self.data.num_classes, model.name)
            # A model may return the same memory for every batch.
            return logits.to(torch.float32, copy=True)

    @contextmanager
    def _memory_checked(self, num_images: int, name: str) -> Iterator[None]:
        """Report that the memory of the device is full."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"expected room on {self.device} for {counted(num_images, 'image')} in the model {name!r}, got "
                "none left. What is finished is kept: free the device and start again, or evaluate with a smaller "
                "--batch-size, which needs another --store if a unit of the model is finished"
            ) from error
