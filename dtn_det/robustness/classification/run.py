"""``dtn-det mce``: evaluate classifiers under every cell (corruption and severity), and write records to a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import Dataset

from dtn_det._optional import require
from dtn_det.datasets.folders.image_files import printable, square_side
from dtn_det.datasets.labelled import LabelledImages
from dtn_det.datasets.remarks import counted, tell
from dtn_det.errors import BadImageError, DeviceMemoryError
from dtn_det.robustness.classification.baseline import BaselineChoice, choose_baseline
from dtn_det.robustness.classification.class_agreement import ClassSet
from dtn_det.robustness.classification.data import Prepared, prepare
from dtn_det.robustness.classification.images import SIDES, Cells, ClassificationImages, CorruptedHere, Item, ViewSlots
from dtn_det.robustness.classification.models.classifier import Classifier, View, check_logits
from dtn_det.robustness.classification.models.loading import load_classifiers
from dtn_det.robustness.classification.progress import SweepProgress
from dtn_det.robustness.classification.records import records_schema, score
from dtn_det.robustness.options import ClassificationOptions, OnBadImage
from dtn_det.robustness.store import ModelStore, Store
from dtn_det.robustness.store.files import BAD_IMAGES
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest
from dtn_det.robustness.sweep import Swept, joined, open_models, run_sweep
from dtn_det.system.progress import say

if TYPE_CHECKING:
    import pyarrow

_CROP = "short side 256 bilinear antialiased, centre 224"
_LIBRARIES = ("dtn-det", "torch", "numpy", "pillow")


def run_classification(options: ClassificationOptions, console: Console) -> Swept | None:
    """Evaluate the units of images that the store does not hold yet.

    Returns:
        The evaluated models and their store; None in all processes but the first.

    Raises:
        ValueError: Options, data, models and store do not fit together; the message says what to do.
        OSError: The store cannot be written; finished units are kept.
    """
    Store.check(options.store)
    with joined(options.launcher, options.device) as (rank, place):
        prepared = prepare(options)
        tell_user: Callable[[str], None] = partial(say, console) if rank.is_first else lambda text: None
        tell_user(f"{options.data}: {prepared.found.title}")
        tell(prepared.remarks, tell_user)
        classes = ClassSet(prepared.found, prepared.images, options.clean)
        classifiers, renumbered = load_classifiers(
            options.models, options.names, classes, prepared.side, options.weights
        )
        tell((remark for model in classifiers for remark in model.remarks), tell_user)
        tell(renumbered, tell_user)
        names = [model.name for model in classifiers]
        manifest = store_manifest(options, prepared)
        choice = _baseline(options, manifest, names)
        _warn(options, prepared, classifiers, tell_user)
        models = open_models(
            options.store,
            manifest,
            image_table(prepared),
            [model_manifest(model, options, place) for model in classifiers],
            [partial(model.facts, prepared.side) for model in classifiers],
            rank,
        )
        warn_of_versions(models, classifiers, tell_user)
        _sweep(options, prepared, classifiers, models, place, SweepProgress(models, choice.name, rank), console)
    return Swept(models[0].store, tuple(names)) if rank.is_first else None


def _sweep(
    options: ClassificationOptions,
    prepared: Prepared,
    classifiers: Sequence[Classifier],
    models: Sequence[ModelStore],
    device: torch.device,
    progress: SweepProgress,
    console: Console,
) -> None:
    manifest, rank = models[0].store.manifest, progress.rank
    pending = sorted(set().union(*(model.pending() for model in models)))
    own = sum(len(manifest.unit(number)) for number in pending[rank.number :: rank.count])
    if rank.is_first and len(pending) < manifest.num_units:
        say(console, manifest.progress(pending))
    if not pending:
        return
    for model in classifiers:
        model.network.to(device)
    with progress.shown(console if rank.is_first else Console(quiet=True), own) as on_image:
        task = ClassificationTask(
            prepared.images,
            prepared.source,
            prepared.side,
            classifiers,
            device,
            options.batch_size,
            options.amp,
            options.on_bad_image,
            options.unit_size,
            on_image,
        )
        run_sweep(models[0].store, models, task, workers=min(options.workers, own), on_unit=progress.add, rank=rank)


def _baseline(options: ClassificationOptions, manifest: StoreManifest, names: Sequence[str]) -> BaselineChoice:
    asked = options.baseline is not None and (options.store / "store.json").is_file()
    stored = Store.open(options.store).models() if asked else {}
    return choose_baseline(options.baseline, list(dict.fromkeys([*names, *stored])), [manifest])


def _warn(
    options: ClassificationOptions, prepared: Prepared, classifiers: Sequence[Classifier], say: Callable[[str], None]
) -> None:
    side = prepared.side
    for model in classifiers:
        size = model.view.of(side).size
        if size is not None:
            say(f"warning: {model.name} takes {size[0]} x {size[1]}: corrupted images of {side} x {side} are resized")
    small = square_side(prepared.found.sizes)
    profile = prepared.found.profile
    if (
        not isinstance(prepared.source, CorruptedHere)
        or options.profile != "imagenet-c"
        or profile in (None, options.profile)
    ):
        return
    say(
        f"warning: images such as {printable(prepared.images.images[0].path)} are {small} x {small} and are enlarged "
        f"to {side} x {side}: take --profile {profile} to corrupt them as they are"
    )


def store_manifest(options: ClassificationOptions, prepared: Prepared) -> StoreManifest:
    """Return the manifest of the data and conditions that all classifiers of a store share."""
    found, images, side = prepared.found, prepared.images, prepared.side
    clean = _CROP if side == SIDES["imagenet-c"] else f"{side} x {side} as it is"
    return StoreManifest(
        task="classification",
        data=options.data.resolve().name,
        data_hash=prepared.digest,
        num_images=len(images.images),
        selection=images.selection,
        corruption=prepared.corruption,
        cells=prepared.cells,
        unit_size=options.unit_size,
        protocol={
            "classes": prepared.classes,
            "num_classes": str(images.num_classes),
            "clean": f"{clean}, after the corruption" if prepared.cropped_after else clean,
            "bad_images": "left out" if options.on_bad_image == "record" else "none",
            **({"labels": "Real"} if images.accepted else {}),
            **({} if prepared.clean_digest is None else {"clean_images": prepared.clean_digest}),
        },
        remarks=prepared.remarks,
        recognised={
            "folder": found.title,
            "dataset": found.dataset,
            "profile": prepared.profile,
            "side": str(side),
            "num_images_found": str(images.num_found),
            "num_classes_found": str(images.num_folders),
        },
    )


def model_manifest(classifier: Classifier, options: ClassificationOptions, device: torch.device) -> ModelManifest:
    """Return the manifest of the weights and settings that a classifier's numbers depend on."""
    protocol = {
        "batch_size": str(options.batch_size),
        "precision": "amp" if options.amp else "float32",
        "device": device.type,
    }
    return classifier.manifest(protocol, versions())


def versions() -> dict[str, str]:
    """Return the versions of the libraries that the numbers may depend on, by package."""
    return {name: metadata.version(name) for name in _LIBRARIES}


def image_table(prepared: Prepared) -> pyarrow.Table:
    """Return the image list of a store: a table with the key and label of every image."""
    arrow = require("pyarrow", "eval")
    images = prepared.images.images
    table: pyarrow.Table = arrow.table(
        {
            "key": [printable(image.key) for image in images],
            "label": arrow.array([image.label for image in images], arrow.int32()),
        }
    )
    return table


def warn_of_versions(
    models: Sequence[ModelStore], classifiers: Sequence[Classifier], say: Callable[[str], None]
) -> None:
    """Warn of each model whose finished units were evaluated with other versions of the libraries."""
    now = versions()
    for model, classifier in zip(models, classifiers, strict=True):
        current = {**now, **classifier.versions}
        changed = [
            f"{name} {version} then, {current[name]} now"
            for name, version in model.manifest.versions.items()
            if current.get(name, version) != version
        ]
        if changed and model.finished():
            say(f"warning: {model.manifest.name} was begun with other versions: {', '.join(changed)}")


@dataclass
class ClassificationTask:
    """Evaluates classifiers on every image under every cell (corruption and severity).

    Attributes:
        cells: Makes or reads the corrupted versions of the images.
        classifiers: The models, moved to the device already.
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

    def loading(self, images: Sequence[int], ahead: int) -> tuple[Dataset[Item], Iterator[tuple[int, int]]]:
        """See :class:`dtn_det.robustness.sweep.Task`.

        Raises:
            OSError: There is too little shared memory.
        """
        views = tuple(self._views())
        # One slot for each image that is loaded ahead or processed by the models.
        count = ahead + self._group_size
        self._slots = ViewSlots(views, len(self.cells), self.side, count, shared=ahead > 0)
        return ClassificationImages(self.data.images, self.cells, views, self._slots.stacks), self._slots.requests(
            images
        )

    def evaluate(self, items: Iterator[Item], names: Sequence[str]) -> Mapping[str, pyarrow.Table]:
        """See :class:`dtn_det.robustness.sweep.Task`.

        Raises:
            BadImageError: An image cannot be read, and ``on_bad_image`` is not ``'record'``.
            ValueError: A model fails, or its output is not one finite logit for each image and class.
            DeviceMemoryError: The accelerator's memory is full.
        """
        chosen = [model for model in self.classifiers if model.name in names]
        batches: dict[str, list[pyarrow.Table]] = {model.name: [] for model in chosen}
        bad: dict[int, str] = {}
        for group in self._groups(items, bad):
            for model in chosen:
                batches[model.name] += self._answers(model, group)
            for item in group:
                self._slots.release(item.slot)
        metadata = {BAD_IMAGES: json.dumps(bad).encode()} if bad else None
        arrow, schema = require("pyarrow", "eval"), records_schema()
        return {
            name: arrow.concat_tables([schema.empty_table(), *tables]).replace_schema_metadata(metadata)
            for name, tables in batches.items()
        }

    def _groups(self, items: Iterator[Item], bad: dict[int, str]) -> Iterator[list[Item]]:
        """Yield groups of images for the models, the same in every run; put the errors of bad images into ``bad``."""
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
                    f"expected images that can be read, got {item.error}. Finished units are kept: mend the file and "
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
        """Number the distinct views that the models need: see :class:`View`."""
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
        """Return all classes that are right for each image."""
        return [self.data.accepted[self.data.images[number].key] for number in images]

    @torch.inference_mode()
    def _score(
        self, model: Classifier, pixels: Tensor, labels: Tensor, right: list[tuple[int, ...]] | None
    ) -> dict[str, Tensor]:
        precision = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        try:
            images = pixels.to(self.device).permute(0, 3, 1, 2)
            with torch.autocast(self.device.type, precision, enabled=self.amp):
                logits = model.logits(images)
            logits = check_logits(logits, len(images), self.data.num_classes, model.name)
            return score(logits, labels.to(self.device), model.name, right)
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"expected room on {self.device} for {counted(len(pixels), 'image')} in the model {model.name!r}, got "
                "none left. Finished units are kept: free the device and start again, or evaluate with a smaller "
                "--batch-size, which needs another --store if a unit of the model is finished"
            ) from error
