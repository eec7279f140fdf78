"""How classifiers are evaluated on images under every cell, a corruption at a severity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dtn_det._optional import require
from dtn_det.datasets.labelled import LabelledImages
from dtn_det.datasets.remarks import counted
from dtn_det.errors import BadImageError, DeviceMemoryError, InputError
from dtn_det.robustness.classification.images import Cells, ClassificationImages, Item, ViewSlots
from dtn_det.robustness.classification.models.classifier import Classifier, View, check_logits
from dtn_det.robustness.classification.network_state import State, changed, state_of
from dtn_det.robustness.classification.records import records_schema, score
from dtn_det.robustness.options import OnBadImage
from dtn_det.robustness.store.files import with_bad_images

if TYPE_CHECKING:
    import pyarrow


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
    _adapts: ClassVar[bool] = False

    def loading(self, requests: Iterable[int], ahead: int) -> tuple[Dataset[Item], Iterator[tuple[int, int]]]:
        """See :class:`dtn_det.robustness.sweep.Task`.

        Raises:
            OSError: There is too little shared memory.
        """
        views = tuple(self._views())
        # One slot for each image that is loaded ahead or processed by the models.
        count = ahead + self._group_size
        self._slots = ViewSlots(views, len(self.cells), self.side, count, shared=ahead > 0)
        images = ClassificationImages(self.data.images, self.cells, views, self._slots.stacks)
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
        batches: dict[str, list[pyarrow.Table]] = {model.name: [] for model in chosen}
        bad: dict[int, str] = {}
        for group in self._groups(items, bad):
            for model in chosen:
                batches[model.name] += self._answers(model, group)
            for item in group:
                self._slots.release(item.slot)
            # Once more at the first images, so that a long run does not stop only after its first unit.
            self._check_states(new)
            new = []
        self._check_states(chosen)
        arrow, schema = require("pyarrow", "eval"), records_schema()
        return {
            name: with_bad_images(arrow.concat_tables([schema.empty_table(), *tables]), bad)
            for name, tables in batches.items()
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

    @property
    def _group_size(self) -> int:
        return min(max(1, self.batch_size // len(self.cells)), self.unit_size)

    def _views(self) -> dict[View, int]:
        """Number the different forms of the images that the models need: see :class:`View`."""
        views = dict.fromkeys(model.view.of(self.side) for model in self.classifiers)
        return {view: number for number, view in enumerate(views)}

    def _answers(self, model: Classifier, group: Sequence[Item]) -> Iterator[pyarrow.Table]:
        number = self._views()[model.view.of(self.side)]
        stack = self._slots.stacks[number]
        pixels = [stack[item.slot] for item in group]
        images = torch.tensor([item.image for item in group]).repeat_interleave(len(self.cells))
        cells = torch.arange(len(self.cells)).repeat(len(group))
        stacked = pixels[0] if len(pixels) == 1 else torch.cat(pixels)
        for start in range(0, len(stacked), self.batch_size):
            part = slice(start, start + self.batch_size)
            labels = torch.tensor([self.data.images[index].label for index in images[part].tolist()])
            right = self._accepted(images[part].tolist()) if self.data.accepted else None
            columns = self._score(model, stacked[part], labels, right)
            values = {"image": images[part], "cell": cells[part], **columns}
            schema = records_schema()
            arrays = [values[field.name].numpy().astype(field.type.to_pandas_dtype()) for field in schema]
            yield require("pyarrow", "eval").table(arrays, schema=schema)

    def _accepted(self, images: Sequence[int]) -> list[tuple[int, ...]]:
        """Return, for each image, all classes that count as right."""
        return [self.data.accepted[self.data.images[number].key] for number in images]

    # In inference mode, a model that computes gradients would fail, rather than be found out by its changed weights.
    @torch.no_grad()
    def _score(
        self, model: Classifier, pixels: Tensor, labels: Tensor, right: list[tuple[int, ...]] | None
    ) -> dict[str, Tensor]:
        precision = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        try:
            images = pixels.to(self.device).permute(0, 3, 1, 2)
            # Copies of weights in low precision are not kept for a model that changes its weights.
            with torch.autocast(self.device.type, precision, enabled=self.amp, cache_enabled=not self._adapts):
                logits = model.logits(images)
            logits = check_logits(logits, len(images), self.data.num_classes, model.name)
            return score(logits, labels.to(self.device), model.name, right)
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"expected room on {self.device} for {counted(len(pixels), 'image')} in the model {model.name!r}, got "
                "none left. What is finished is kept: free the device and start again, or evaluate with a smaller "
                "--batch-size, which needs another --store if a unit of the model is finished"
            ) from error
