"""Evaluate classifiers under every cell (corruption and severity), and write records to the store of each set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from dtn_det._optional import require
from dtn_det.cost.facts import ModelFacts
from dtn_det.datasets.folders.image_files import printable, square_side
from dtn_det.datasets.remarks import tell
from dtn_det.errors import InputError
from dtn_det.robustness.classification.baseline import BaselineChoice, choose_baseline
from dtn_det.robustness.classification.by_cell import CellOrder, CellTask, cell_order
from dtn_det.robustness.classification.class_agreement import ClassSet
from dtn_det.robustness.classification.data import Prepared, prepare, twin_options
from dtn_det.robustness.classification.images import SIDES, CorruptedHere
from dtn_det.robustness.classification.models.classifier import Classifier
from dtn_det.robustness.classification.models.loading import load_classifiers
from dtn_det.robustness.classification.progress import SweepProgress
from dtn_det.robustness.classification.task import ClassificationTask
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.store import ModelStore, Store
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest
from dtn_det.robustness.sweep import Rank, Swept, joined, open_models, run_sweep
from dtn_det.system.progress import meter, say

if TYPE_CHECKING:
    import pyarrow

_CROP = "short side 256 bilinear antialiased, centre 224"
_LIBRARIES = ("dtn-det", "torch", "numpy", "pillow")


@dataclass(frozen=True)
class _Ready:
    """A data set with its models, checked but not evaluated yet."""

    options: ClassificationOptions
    prepared: Prepared
    classifiers: Sequence[Classifier]
    manifest: StoreManifest
    models: Sequence[ModelManifest]
    choice: BaselineChoice
    order: CellOrder | None

    def facts(self) -> list[Callable[[], ModelFacts]]:
        """Return functions that compute the facts of each model, but not the FLOPs of models that may adapt."""
        # Counting the FLOPs runs a model, which would change one that adapts.
        if self.order is not None:
            return [partial(ModelFacts, training=model.training) for model in self.classifiers]
        return [partial(model.facts, self.prepared.side) for model in self.classifiers]


def run_classification(
    sets: Sequence[ClassificationOptions], console: Console, on_swept: Callable[[Swept], None]
) -> None:
    """Evaluate the units of images that the stores do not contain yet, one set after the other.

    All sets and models are checked before the first image is evaluated. If the options name clean images for ImageNet-R
    or ImageNet-A, the clean images of its classes are evaluated next, as a separate set.

    Args:
        sets: The options of each set, at least one, with the same models, device and launcher.
        on_swept: Called in the first process after the evaluation of each set.

    Raises:
        ValueError: Options, data, models and stores do not fit together; the message says what to do.
        OSError: A store cannot be written; finished units are kept.
    """
    for options in sets:
        Store.check(options.store)
        _check_outside(options)
    with joined(sets[0].launcher, sets[0].device) as (rank, place):
        order = cell_order(sets[0], rank.count)
        tell_user: Callable[[str], None] = partial(say, console) if rank.is_first else lambda text: None
        ready = list(_ready_sets(sets, order, place, tell_user))
        _check_different(ready)
        opened = [
            open_models(
                one.options.store,
                one.manifest,
                image_table(one.prepared),
                one.models,
                one.facts(),
                rank,
            )
            for one in ready
        ]
        for one, models in zip(ready, opened, strict=True):
            if len(sets) > 1:
                tell_user(f"{one.options.store.relative_to(sets[0].store.parent)}:")
            warn_of_versions(models, one.classifiers, tell_user)
            if one.order is None:
                progress = SweepProgress(models, one.choice.name, rank)
                _sweep(one.options, one.prepared, one.classifiers, models, place, progress, console)
            else:
                _sweep_by_cell(one, one.order, models, place, rank, console)
            if rank.is_first:
                on_swept(Swept(models[0].store, tuple(model.manifest.name for model in models)))


def _ready_sets(
    sets: Sequence[ClassificationOptions],
    order: CellOrder | None,
    place: torch.device,
    tell_user: Callable[[str], None],
) -> Iterator[_Ready]:
    """Read and check all sets, and load each model once for all sets of the same number of classes."""
    loaded: dict[tuple[str, int], Classifier] = {}
    for options in sets:
        if len(sets) > 1:
            tell_user(f"{options.store.name}:")
        own = _ready(options, order, loaded, place, tell_user)
        yield own
        twin = twin_options(options, own.prepared.classes)
        if twin is not None:
            yield _ready(twin, order, loaded, place, tell_user)


def _ready(
    options: ClassificationOptions,
    order: CellOrder | None,
    loaded: dict[tuple[str, int], Classifier],
    place: torch.device,
    tell_user: Callable[[str], None],
) -> _Ready:
    prepared = prepare(options)
    tell_user(f"{options.data}: {prepared.found.title}")
    tell(prepared.remarks, tell_user)
    classes = ClassSet(prepared.found, prepared.images, options.clean)
    known = set(loaded)
    classifiers, renumbered = load_classifiers(
        options.models, options.names, classes, prepared.side, options.weights, loaded, adapting=order is not None
    )
    if order is not None or set(loaded) != known:
        tell((remark for model in classifiers for remark in model.remarks), tell_user)
    tell(renumbered, tell_user)
    manifest = store_manifest(options, prepared)
    choice = _baseline(options, manifest, [model.name for model in classifiers])
    _warn(options, prepared, classifiers, tell_user)
    models = [model_manifest(model, options, place, order) for model in classifiers]
    return _Ready(options, prepared, classifiers, manifest, models, choice, order)


def _check_different(ready: Sequence[_Ready]) -> None:
    """Refuse a repeated set, and a model with different weights for different sets."""
    seen: dict[object, _Ready] = {}
    weights: dict[str, tuple[str, _Ready]] = {}
    for one in ready:
        manifest = one.manifest
        key = (manifest.data_hash, manifest.corruption, manifest.cells, str(sorted(manifest.protocol.items())))
        other = seen.setdefault(key, one)
        if other is not one:
            raise InputError(
                f"expected each set once, got the same images and conditions in {other.options.data} (for "
                f"{other.options.store}) and {one.options.data} (for {one.options.store}): leave one out"
            )
        for model in one.models:
            digest, first = weights.setdefault(model.name, (model.weights_hash, one))
            if digest != model.weights_hash:
                raise InputError(
                    f"expected the model {model.name!r} with the same weights for all sets, got others for "
                    f"{first.options.data} and for {one.options.data}: evaluate these two sets with a command each"
                )


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


def _sweep_by_cell(
    ready: _Ready, order: CellOrder, models: Sequence[ModelStore], device: torch.device, rank: Rank, console: Console
) -> None:
    options, prepared, classifiers = ready.options, ready.prepared, ready.classifiers
    blocks = order.blocks(prepared.cells, prepared.images.images)
    pending = sorted(set().union(*(blocks.pending(model) for model in models)))
    own = sum(map(blocks.size, pending[rank.number :: rank.count]))
    if not any((*model.pending(), *model.blocks()) for model in models):
        return
    cells, left = len(prepared.cells), sum(len(blocks.cells[number]) for number in pending)
    if rank.is_first and left < cells:
        say(console, f"{cells - left:,} of {cells:,} corruptions and severities are done already")
    for model in classifiers:
        model.network.to(device)
    sources = [replace(prepared.source, cells=(cell,)) for cell in prepared.cells]
    shown = console if rank.is_first and own else Console(quiet=True)
    with meter(shown, "Evaluating", own, "images") as advance:
        task = CellTask(
            prepared.images,
            sources[0],
            prepared.side,
            classifiers,
            device,
            options.batch_size,
            options.amp,
            options.on_bad_image,
            options.batch_size,
            partial(advance, 1),
            sources=sources,
            order=order,
        )
        run_sweep(models[0].store, models, task, workers=min(options.workers, own), rank=rank, parts=blocks)


def _check_outside(options: ClassificationOptions) -> None:
    """Check that the store does not lie in a folder of images, where its folders would be taken for classes."""
    for place in filter(None, (options.data, options.clean)):
        if options.store.resolve().is_relative_to(place.resolve()):
            raise InputError(
                f"expected a store outside of the images, got {options.store} within {place}, whose folders are "
                "classes: name another folder with --store"
            )


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
            say(f"warning: {model.name} takes {size[0]} x {size[1]}: images of {side} x {side} are resized")
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


def model_manifest(
    classifier: Classifier, options: ClassificationOptions, device: torch.device, order: CellOrder | None = None
) -> ModelManifest:
    """Return the manifest of the weights and settings that a classifier's numbers depend on."""
    protocol = {
        "batch_size": str(options.batch_size),
        "precision": "amp" if options.amp else "float32",
        "device": device.type,
        **({} if order is None else order.protocol),
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
        if changed and (model.finished() or model.blocks()):
            say(f"warning: {model.manifest.name} was begun with other versions: {', '.join(changed)}")
