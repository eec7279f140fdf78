"""`dtn-det mpc`: evaluate detectors under every cell, a corruption at a severity, and write the records to a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dtn_det.corruptions.catalog import BENCHMARK
from dtn_det.corruptions.cells import Cell, sweep_cells
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.profiles import check_swept
from dtn_det.datasets.coco.known_sets import coco_set_title
from dtn_det.datasets.coco.orientation import ignores_orientation
from dtn_det.datasets.remarks import Remark, counted, tell
from dtn_det.errors import InputError
from dtn_det.robustness.detection.data import DetectionData
from dtn_det.robustness.detection.evaluation import try_evaluation
from dtn_det.robustness.detection.folders import read_folder
from dtn_det.robustness.detection.images import BadImage, CellImages
from dtn_det.robustness.detection.models.detector import Detector
from dtn_det.robustness.detection.models.loading import load_pixel_model
from dtn_det.robustness.detection.models.pixels import detector_of
from dtn_det.robustness.detection.second_opinion import check_rule
from dtn_det.robustness.detection.task import DetectionTask
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.options import DetectionOptions
from dtn_det.robustness.store import ModelStore, Store
from dtn_det.robustness.store.manifest import StoreManifest, differences
from dtn_det.robustness.sweep import Rank, Swept, joined, open_models, run_sweep
from dtn_det.system.progress import meter, say

if TYPE_CHECKING:
    from rich.console import Console

    from dtn_det.robustness.detection.models.mmdetection import OpenedConfig


def run_detection(sets: Sequence[DetectionOptions], console: Console) -> list[Swept]:
    """Evaluate the units of images that the stores do not hold yet, one set of images after the other.

    The data of all sets are read and checked before the first image is evaluated.

    Args:
        sets: The options of each set, at least one, with the same models and a store of its own.

    Returns:
        The evaluated models and the store of each set; empty in all processes but the first.

    Raises:
        ValueError: Options, data, models or a store do not fit; the message says what to do.
        OSError: A file is missing or cannot be written.
    """
    for options in sets:
        Store.check(options.store)
    found = []
    with joined(sets[0].launcher, sets[0].device) as (rank, device):
        if len(sets) > 1:
            for options in sets:
                _data(options, _opened(options)).file_sizes()
        for options in sets:
            if len(sets) > 1 and rank.is_first:
                say(console, f"{options.store.name}: {options.data_root}")
            models, task = prepare_detection(options, rank, device, console)
            _sweep_units(models, task, options.workers, rank, console)
            found.append(Swept(models[0].store, tuple(model.manifest.name for model in models)))
    return found if rank.is_first else []


def prepare_detection(
    options: DetectionOptions, rank: Rank, device: torch.device, console: Console
) -> tuple[list[ModelStore], DetectionTask]:
    """Open or create the store, and build the task that evaluates its images.

    Raises:
        ValueError: Options, data, models or store do not fit.
        OSError: A file is missing.
    """
    profile = options.profile or "coco-c"
    check_swept(profile)
    corruptions = BENCHMARK if options.corruptions is None else options.corruptions
    cells = sweep_cells(corruptions, options.severities)
    frost = None if options.frost is None else str(options.frost)
    corruptor = Corruptor(profile, options.seed, None, options.channel_order, frost, engine=options.engine)
    if options.amp and device.type == "cpu":
        raise InputError("expected a GPU for --amp, got none: leave it out")
    opened = _opened(options)
    data = _data(options, opened)
    if options.on_bad_image == "fail":
        _, place = ignores_orientation(data.pipeline)
        color_type = f"{data.where}.pipeline.{place}.color_type" if data.where else ""
        data.orientations().check(color_type, leaving_out="--on-bad-image record")
    forms = [one.data.form() for one in opened if one is not None]
    images = data.images(cells, corruptor, forms, pixels=None in opened)
    manifest = store_manifest(data, cells, corruptor, options.unit_size)
    _check_same(opened, manifest, cells, corruptor, options.unit_size)

    def tell_user(text: str) -> None:
        if rank.is_first:
            say(console, text)

    first = cache(lambda: data.images(sweep_cells(()), corruptor, forms, pixels=None in opened)[0])
    detectors = _detectors(options, opened, data, device, first)
    for detector in detectors:
        tell(detector.remarks, tell_user)
    if any(detector.gives_masks for detector in detectors):
        _check_masks(data, tell_user)
    tell(data.remarks, tell_user)
    if options.evaluator != "hotcoco":
        check_rule(data.truth)
    if rank.is_first:
        with_masks = data.truth.has_masks and any(detector.gives_masks for detector in detectors)
        try_evaluation(data.file.path, data.truth, masks=with_masks)
        take_new_annotations(options.store, manifest, data, tell_user)
    models = open_models(
        options.store,
        manifest,
        data.truth.table(),
        [detector.manifest for detector in detectors],
        [detector.facts for detector in detectors],
        rank,
    )
    return models, DetectionTask(images, len(cells), detectors, options.batch_size, options.on_bad_image)


def _opened(options: DetectionOptions) -> list[OpenedConfig | None]:
    """Return, for each model, its config of MMDetection with the data; None for a model that takes images."""
    if not options.models:
        raise InputError("expected at least one MODEL, got none: name one")
    found: list[OpenedConfig | None] = []
    for source in options.models:
        if not source.checkpoint:
            found.append(None)
            continue
        from dtn_det.robustness.detection.models.mmdetection import open_config

        found.append(open_config(source, options))
    return found


def _data(options: DetectionOptions, opened: Sequence[OpenedConfig | None]) -> DetectionData:
    """Return the data set of the run: that of the first config, or else of the folder."""
    of_config = next((one.data for one in opened if one is not None), None)
    if of_config is None:
        if options.cfg_options:
            raise InputError("expected a config of MMDetection for --cfg-options, got none: leave the options out")
        root = None if options.data_root is None else Path(options.data_root)
        return read_folder(root, options.ann, options.images, options.limit, options.limit_seed)
    given = [f"--{name}" for name in ("ann", "images") if getattr(options, name) is not None]
    if given:
        raise InputError(
            f"expected the data of the config, got {' and '.join(given)}: name them with --cfg-options "
            f"{of_config.where}.ann_file=FILE {of_config.where}.data_prefix.img=DIR/"
        )
    return of_config


def _check_same(
    opened: Sequence[OpenedConfig | None],
    manifest: StoreManifest,
    cells: tuple[Cell, ...],
    corruptor: Corruptor,
    unit_size: int,
) -> None:
    """Refuse configs of other images or categories than the run's."""
    configs = [one for one in opened if one is not None]
    for one in configs[1:]:
        lines = differences(manifest.to_dict(), store_manifest(one.data, cells, corruptor, unit_size).to_dict())
        if lines:
            raise InputError(
                f"expected {one.source.model} with the images and categories of {configs[0].source.model}, got others "
                f"({'; '.join(lines)}): evaluate it with a command and a store of its own"
            )


def _detectors(
    options: DetectionOptions,
    opened: Sequence[OpenedConfig | None],
    data: DetectionData,
    device: torch.device,
    first: Callable[[], CellImages | BadImage],
) -> list[Detector]:
    found: list[Detector] = []
    form = 0
    for source, config in zip(options.models, opened, strict=True):
        if config is None:
            model = load_pixel_model(source.model, device, options.weights)
            found.append(detector_of(model, source.name, options, device, data, first()))
            continue
        from dtn_det.robustness.detection.models.mmdetection import load_mmdetection

        found.append(load_mmdetection(config, form, options, device, first))
        form += 1
    names = [detector.name for detector in found]
    numbered = [name for name, config in zip(names, opened, strict=True) if config is None]
    for word in options.category_ids:
        name, sign, _ = word.partition("=")
        if not numbered or (sign and name not in numbered):
            raise InputError(
                f"expected --category-ids for a model that is no config of MMDetection ({', '.join(numbered) or 'none'}"
                f" here), got {word!r}: leave it out"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"expected models of different names, got {', '.join(twice)} twice: name them with --names")
    return found


def _check_masks(data: DetectionData, tell_user: Callable[[str], None]) -> None:
    """Check the masks of the data for models that give masks; warn if the data have none.

    Raises:
        ValueError: Only some of the objects in the data have a mask, or a mask cannot be evaluated.
    """
    data.file.check_masks()
    if data.truth.num_without_masks:
        data.truth.check_masks(data.name)
        tell_user(f"warning: the objects of {data.name} have no segmentation, so only boxes are evaluated, not masks")


def _sweep_units(models: Sequence[ModelStore], task: DetectionTask, workers: int, rank: Rank, console: Console) -> None:
    store = models[0].store
    manifest = store.manifest
    pending = sorted(set().union(*(model.pending() for model in models)))
    if rank.is_first and len(pending) < manifest.num_units:
        console.print(manifest.progress(pending), highlight=False)
    own = pending[rank.number :: rank.count]
    images = sum(len(manifest.unit(number)) for number in own)
    total, workers = images * len(manifest.cells), min(workers, images)
    if not rank.is_first or not total:
        run_sweep(store, models, task, workers=workers, rank=rank)
        return
    called = models[0].manifest.name if len(models) == 1 else counted(len(models), "model")
    with meter(console, f"{called} under {len(manifest.cells)} cells", total, "images") as advance:
        run_sweep(store, models, replace(task, on_image=advance), workers=workers, rank=rank)


def store_manifest(data: DetectionData, cells: tuple[Cell, ...], corruptor: Corruptor, unit_size: int) -> StoreManifest:
    """Return the manifest of the data and conditions that all detectors of a store share.

    Raises:
        InputError: Images are missing.
    """
    sizes = data.file_sizes()
    title = coco_set_title(data.file)
    return StoreManifest(
        task="detection",
        data=data.name,
        data_hash=data.truth.hash(sizes),
        num_images=len(data.paths),
        selection=data.selection,
        corruption=corruptor.identity,
        cells=cells,
        unit_size=unit_size,
        protocol=data.truth.protocol,
        remarks=data.remarks,
        recognised={"dataset": title} if title else {},
        images_hash=data.truth.images_hash(sizes),
    )


def take_new_annotations(
    folder: Path, manifest: StoreManifest, data: DetectionData, say: Callable[[str], None] = lambda text: None
) -> bool:
    """Replace a store's annotations by those of this run if nothing else differs. The store's detections stay valid.

    Args:
        folder: Folder of a store, or one that is to become a store.

    Returns:
        Whether the annotations were replaced.

    Raises:
        StoreError: The store is damaged.
        ValueError: Another process is writing to the store.
    """
    if not (folder / "store.json").is_file():
        return False
    store = Store.open(folder)
    found = store.manifest
    if found.data_hash == manifest.data_hash or _others(found, manifest):
        return False
    if manifest.images_hash != (found.images_hash or _images_hash(store, data)):
        return False
    hashes = f"{found.data_hash[:12]} before, {manifest.data_hash[:12]} now"
    what = "change of the annotations; the detections are of the same images and were kept"
    remark = Remark("annotations_replaced", what, data.name, 1, (hashes,))
    earlier = (*found.earlier_data_hashes, found.data_hash)
    new = replace(manifest, remarks=(*manifest.remarks, remark), earlier_data_hashes=earlier)
    store.with_other_labels(new, data.truth.table())
    say(f"note: {remark.sentence()}")
    return True


def _others(found: StoreManifest, wanted: StoreManifest) -> list[str]:
    """Return a line for each difference between two manifests apart from the annotations."""
    return differences({**found.to_dict(), "data_hash": ""}, {**wanted.to_dict(), "data_hash": ""})


def _images_hash(store: Store, data: DetectionData) -> str:
    """Return the hash of the images without annotations, for stores that lack it; empty if images have changed."""
    truth, sizes = CocoTruth.of(store), data.file_sizes()
    if len(truth.images) != len(sizes) or truth.hash(sizes) != store.manifest.data_hash:
        return ""
    return truth.images_hash(sizes)
