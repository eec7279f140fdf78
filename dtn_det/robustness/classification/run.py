"""``dtn-det mce``: evaluate classifiers under every cell, a corruption at a severity, and write records to a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from dtn_det.datasets.folders.image_files import printable, square_side
from dtn_det.datasets.remarks import tell
from dtn_det.robustness.classification.baseline import BaselineChoice, choose_baseline
from dtn_det.robustness.classification.class_agreement import ClassSet
from dtn_det.robustness.classification.data import Prepared, prepare
from dtn_det.robustness.classification.images import CorruptedHere
from dtn_det.robustness.classification.manifests import image_table, model_manifest, store_manifest, warn_of_versions
from dtn_det.robustness.classification.models.classifier import Classifier
from dtn_det.robustness.classification.models.loading import load_classifiers
from dtn_det.robustness.classification.progress import SweepProgress
from dtn_det.robustness.classification.task import ClassificationTask
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.store.manifest import StoreManifest
from dtn_det.robustness.store.store import ModelStore, Store
from dtn_det.robustness.sweep import Swept, joined, open_models, run_sweep

if TYPE_CHECKING:
    pass


def run_classification(options: ClassificationOptions, console: Console) -> Swept | None:
    """Evaluate the units of images that the store does not hold yet.

    Args:
        options: What to evaluate.
        console: Where progress and remarks go.

    Returns:
        The evaluated models and their store; None in all processes but the first.

    Raises:
        ValueError: Options, data, models or store do not fit; the message says what to do.
        OSError: The store cannot be written; finished units are kept.
    """
    Store.check(options.store)
    with joined(options.launcher, options.device) as (rank, place):
        prepared = prepare(options)
        say = _say(console) if rank.is_first else lambda text: None
        tell(prepared.remarks, say)
        classes = ClassSet(prepared.found, prepared.images, options.clean)
        classifiers, renumbered = load_classifiers(
            options.models, options.names, classes, prepared.side, options.weights
        )
        tell((remark for model in classifiers for remark in model.remarks), say)
        tell(renumbered, say)
        names = [model.name for model in classifiers]
        manifest = store_manifest(options, prepared)
        choice = _baseline(options, manifest, names)
        _warn(options, prepared, classifiers, say)
        models = open_models(
            options.store,
            manifest,
            image_table(prepared),
            [model_manifest(model, options, place) for model in classifiers],
            [partial(model.facts, prepared.side) for model in classifiers],
            rank,
        )
        warn_of_versions(models, classifiers, say)
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
        _say(console)(manifest.progress(pending))
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


def _say(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, soft_wrap=True, highlight=False, markup=False)
