"""``dtn-det mce`` from what was asked for to the table: evaluates what the store lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from dtn_det._optional import require
from dtn_det.datasets.folders.image_files import printable, square_side
from dtn_det.datasets.remarks import tell
from dtn_det.robustness.classification.baseline import BaselineChoice, choose_baseline
from dtn_det.robustness.classification.class_agreement import ClassSet
from dtn_det.robustness.classification.data import ClassificationRun, Prepared, prepare
from dtn_det.robustness.classification.images import SIDES, CorruptedHere
from dtn_det.robustness.classification.models.classifier import Classifier
from dtn_det.robustness.classification.models.loading import load_classifiers
from dtn_det.robustness.classification.progress import SweepProgress
from dtn_det.robustness.classification.report import print_results
from dtn_det.robustness.classification.results import results
from dtn_det.robustness.classification.task import ClassificationTask
from dtn_det.robustness.rank import joined
from dtn_det.robustness.store.manifest import StoreManifest
from dtn_det.robustness.store.store import ModelStore, Store
from dtn_det.robustness.sweep import Rank, run_sweep

if TYPE_CHECKING:
    import pyarrow

_CROP = "short side 256 bilinear antialiased, centre 224"
_LIBRARIES = ("dtn-det", "torch", "numpy", "pillow")


def run_classification(
    run: ClassificationRun, console: Console, launcher: str = "none", device: str | None = None
) -> int:
    """Evaluate what the store lacks and print the numbers.

    Args:
        run: What to do.
        console: Where progress and table go.
        launcher: See :func:`dtn_det.robustness.rank.joined`, as for ``device``.
        device: Where the models run.

    Returns:
        Number of images that were left out because they are bad.

    Raises:
        ValueError: Something does not fit; the message says what.
        OSError: The store cannot be written; what is finished is kept.
    """
    Store.check(run.store)
    with joined(launcher, device) as (rank, place):
        prepared = prepare(run)
        say = _say(console) if rank.is_first else lambda text: None
        tell(prepared.remarks, say)
        classes = ClassSet(prepared.found, prepared.images)
        classifiers, renumbered = load_classifiers(run.models, run.names, classes, prepared.side, run.weights)
        tell((remark for model in classifiers for remark in model.remarks), say)
        tell(renumbered, say)
        names = [model.name for model in classifiers]
        manifest = _manifest(run, prepared)
        choice = _baseline(run, manifest, names)
        _warn(run, prepared, classifiers, say)
        store, models = _open(run, prepared, manifest, classifiers, place, rank)
        _warn_versions(models, classifiers, say)
        _sweep(run, prepared, classifiers, models, place, SweepProgress(models, choice.name, rank), console)
    if not rank.is_first:
        return 0
    numbers = results(store, names, choice.name)
    print_results(console, store, numbers, choice)
    return max(len(result.bad) for result in numbers)


def _sweep(
    run: ClassificationRun,
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
            run.batch_size,
            run.amp,
            run.records_bad,
            run.unit_size,
            on_image,
        )
        run_sweep(models[0].store, models, task, workers=min(run.workers, own), on_unit=progress.add, rank=rank)


def _manifest(run: ClassificationRun, prepared: Prepared) -> StoreManifest:
    """The data and conditions of the run."""
    found, images, side = prepared.found, prepared.images, prepared.side
    clean = _CROP if side == SIDES["imagenet-c"] else f"{side} x {side} as it is"
    return StoreManifest(
        task="classification",
        data=run.data.resolve().name,
        data_hash=prepared.digest,
        num_images=len(images.images),
        selection=images.selection,
        corruption=prepared.corruption,
        cells=prepared.cells,
        unit_size=run.unit_size,
        protocol={
            "classes": prepared.classes,
            "num_classes": str(images.num_classes),
            "clean": f"{clean}, after the corruption" if prepared.cropped_after else clean,
            "bad_images": "left out" if run.records_bad else "none",
            **({} if prepared.clean_digest is None else {"clean_images": prepared.clean_digest}),
        },
        remarks=prepared.remarks,
        recognised={
            "folder": found.title,
            "dataset": found.dataset,
            "profile": prepared.profile,
            "num_images_found": str(images.num_found),
            "num_classes_found": str(images.num_folders),
        },
    )


def _open(
    run: ClassificationRun,
    prepared: Prepared,
    manifest: StoreManifest,
    classifiers: Sequence[Classifier],
    device: torch.device,
    rank: Rank,
) -> tuple[Store, list[ModelStore]]:
    """The store and its models; the first process makes what is not there, the others see that it fits."""
    protocol = {
        "batch_size": str(run.batch_size),
        "precision": "amp" if run.amp else "float32",
        "device": device.type,
    }
    versions = {name: metadata.version(name) for name in _LIBRARIES}
    if not rank.is_first:
        rank.barrier()
    store = Store.create(run.store, manifest, _image_table(prepared))
    models = [store.add_model(model.manifest(protocol, versions)) for model in classifiers]
    if rank.is_first:
        models = [
            model if model.manifest.facts else model.with_facts(classifier.facts(prepared.side))
            for model, classifier in zip(models, classifiers, strict=True)
        ]
        rank.barrier()
    return store, models


def _image_table(prepared: Prepared) -> pyarrow.Table:
    arrow = require("pyarrow", "eval")
    images = prepared.images.images
    table: pyarrow.Table = arrow.table(
        {
            "key": [printable(image.key) for image in images],
            "label": arrow.array([image.label for image in images], arrow.int32()),
        }
    )
    return table


def _baseline(run: ClassificationRun, manifest: StoreManifest, names: Sequence[str]) -> BaselineChoice:
    asked = run.baseline is not None and (run.store / "store.json").is_file()
    stored = Store.open(run.store).models() if asked else {}
    return choose_baseline(run.baseline, list(dict.fromkeys([*names, *stored])), [manifest])


def _warn(
    run: ClassificationRun, prepared: Prepared, classifiers: Sequence[Classifier], say: Callable[[str], None]
) -> None:
    side = prepared.side
    for model in classifiers:
        size = model.view.of(side).size
        if size is not None:
            say(f"warning: {model.name} takes {size[0]} x {size[1]}: corrupted images of {side} x {side} are resized")
    small = square_side(prepared.found.sizes)
    profile = prepared.found.profile
    if not isinstance(prepared.source, CorruptedHere) or run.profile != "imagenet-c" or profile in (None, run.profile):
        return
    say(
        f"warning: images such as {printable(prepared.images.images[0].path)} are {small} x {small} and are enlarged "
        f"to {side} x {side}: take --profile {profile} to corrupt them as they are"
    )


def _warn_versions(models: Sequence[ModelStore], classifiers: Sequence[Classifier], say: Callable[[str], None]) -> None:
    now = {name: metadata.version(name) for name in _LIBRARIES}
    for model, classifier in zip(models, classifiers, strict=True):
        current = {**now, **classifier.versions}
        changed = [
            f"{name} {version} then, {current[name]} now"
            for name, version in model.manifest.versions.items()
            if current.get(name, version) != version
        ]
        if changed and model.finished():
            say(f"warning: {model.manifest.name} was begun with other versions: {', '.join(changed)}")


def _say(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, soft_wrap=True, highlight=False, markup=False)
