"""``dtn-det mce`` from what was asked for to the table: evaluates what the store lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

import torch
from PIL import Image
from rich.console import Console

from dtn_det._optional import require
from dtn_det.robustness.classification_data import ClassificationRun, Prepared, prepare
from dtn_det.robustness.classification_images import SIDES, CorruptedHere
from dtn_det.robustness.classification_progress import SweepProgress
from dtn_det.robustness.classification_report import print_results
from dtn_det.robustness.classification_results import ALEXNET, results
from dtn_det.robustness.classification_task import ClassificationTask
from dtn_det.robustness.classifiers import Classifier
from dtn_det.robustness.classifiers_loading import load_classifiers
from dtn_det.robustness.imagenet_data import printable
from dtn_det.robustness.manifest import StoreManifest
from dtn_det.robustness.processes import joined
from dtn_det.robustness.store import ModelStore, Store
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
        launcher: See :func:`dtn_det.robustness.processes.joined`, as for ``device``.
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
        classifiers = load_classifiers(run.models, run.names, prepared.images.num_classes)
        names = [model.name for model in classifiers]
        baseline = _baseline(run, prepared, names)
        say = _say(console) if rank.is_first else lambda text: None
        _warn(prepared, classifiers, say)
        store, models = _open(run, prepared, classifiers, place, rank)
        _warn_versions(models, classifiers, say)
        _sweep(run, prepared, classifiers, models, place, SweepProgress(models, baseline, rank), console)
    if not rank.is_first:
        return 0
    numbers = results(store, names, baseline)
    print_results(console, store, numbers, baseline)
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


def _open(
    run: ClassificationRun, prepared: Prepared, classifiers: Sequence[Classifier], device: torch.device, rank: Rank
) -> tuple[Store, list[ModelStore]]:
    """The store and its models; the first process makes what is not there, the others see that it fits."""
    manifest = StoreManifest(
        task="classification",
        data=run.data.resolve().name,
        data_hash=prepared.digest,
        num_images=len(prepared.images.images),
        selection=prepared.images.selection,
        corruption=prepared.corruption,
        cells=prepared.cells,
        unit_size=run.unit_size,
        protocol={
            "classes": prepared.classes,
            "num_classes": str(prepared.images.num_classes),
            "clean": _CROP if prepared.side == SIDES["imagenet-c"] else f"{prepared.side} x {prepared.side} as it is",
            "bad_images": "left out" if run.records_bad else "none",
            **({} if prepared.clean_digest is None else {"clean_images": prepared.clean_digest}),
        },
    )
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


def _baseline(run: ClassificationRun, prepared: Prepared, names: Sequence[str]) -> str | None:
    """AlexNet for ImageNet-C unless another is named; none for what AlexNet was not measured on."""
    if run.baseline is not None and run.baseline != ALEXNET:
        stored = Store.open(run.store).models() if (run.store / "store.json").is_file() else {}
        known = list(dict.fromkeys([*names, *stored]))
        if run.baseline not in known:
            raise ValueError(f"expected --baseline to be {ALEXNET} or one of {', '.join(known)}, got {run.baseline!r}")
        return run.baseline
    fits = prepared.classes == "imagenet" and prepared.profile == "imagenet-c"
    if run.baseline == ALEXNET and not fits:
        raise ValueError(
            f"expected another --baseline than {ALEXNET}, whose errors are known for ImageNet-C, got classes by "
            f"{prepared.classes} and profile {prepared.profile}: name one of the models"
        )
    return ALEXNET if fits else None


def _warn(prepared: Prepared, classifiers: Sequence[Classifier], say: Callable[[str], None]) -> None:
    side = prepared.side
    for model in classifiers:
        size = model.view.of(side).size
        if size is not None:
            say(f"warning: {model.name} takes {size[0]} x {size[1]}: corrupted images of {side} x {side} are resized")
    if side != SIDES["imagenet-c"] or not isinstance(prepared.source, CorruptedHere):
        return
    path = prepared.images.images[0].path
    try:
        with Image.open(path) as picture:
            size = picture.size
    # What is wrong with it is told when its turn comes; Pillow meets bad files with many kinds of errors.
    except Exception:
        return
    profile = {(SIDES[name], SIDES[name]): name for name in ("cifar-c", "tiny-imagenet-c")}.get(size)
    if profile is not None:
        say(
            f"warning: images such as {printable(path)} are {size[0]} x {size[1]} and are enlarged to {side} x {side}: "
            f"take --profile {profile} to corrupt them as they are"
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
