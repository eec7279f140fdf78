"""`dtn-det mpc`: evaluate a detector under every cell, a corruption at a severity, and write the records to a store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dtn_det._optional import require
from dtn_det.checkpoints.files import check_checkpoint
from dtn_det.corruptions.catalog import BENCHMARK
from dtn_det.corruptions.cells import Cell, sweep_cells
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.profiles import check_swept
from dtn_det.datasets.class_names import (
    LabelNames,
    ModelClasses,
    NamedSet,
    facts_of_names,
    labels_in_evaluation,
    order_remark,
)
from dtn_det.datasets.coco.orientation import ignores_orientation
from dtn_det.datasets.configs.classes import head_numbers, training_classes
from dtn_det.datasets.remarks import Remark, tell
from dtn_det.errors import InputError
from dtn_det.robustness.detection.data import DetectionData, check_loader, read_data
from dtn_det.robustness.detection.evaluation import try_evaluation
from dtn_det.robustness.detection.images import BadImage, CellImages, DetectionImages
from dtn_det.robustness.detection.model import Detector, build_detector, detection_facts
from dtn_det.robustness.detection.records import ImageDetections, RecordRows, from_instances
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.options import DetectionOptions, OnBadImage
from dtn_det.robustness.store import ModelStore, Store
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest, differences, hash_weights
from dtn_det.robustness.sweep import Rank, Swept, joined, open_models, run_sweep
from dtn_det.system.progress import meter, say
from dtn_det.training import launch
from dtn_det.training.config import load_config, parse_options

if TYPE_CHECKING:
    import pyarrow
    from mmengine.config import Config
    from rich.console import Console


def run_detection(options: DetectionOptions, console: Console) -> Swept | None:
    """Evaluate the units of images that the store does not hold yet.

    Returns:
        The evaluated model and its store; None in all processes but the first.

    Raises:
        ValueError: Options, data, checkpoint or store do not fit; the message says what to do.
        OSError: A file is missing or cannot be written.
    """
    Store.check(options.store)
    with joined(options.launcher, options.device) as (rank, device):
        model, task = prepare_detection(options, rank, device, console)
        _sweep_units(model, task, options.workers, rank, console)
    return Swept(model.store, (model.manifest.name,)) if rank.is_first else None


def prepare_detection(
    options: DetectionOptions, rank: Rank, device: torch.device, console: Console
) -> tuple[ModelStore, DetectionTask]:
    """Open or create the store, and build the task that evaluates its images.

    Raises:
        ValueError: Options, data, checkpoint or store do not fit.
        OSError: A file is missing.
    """
    profile = options.profile or "coco-c"
    check_swept(profile)
    corruptions = BENCHMARK if options.corruptions is None else options.corruptions
    cells = sweep_cells(corruptions, options.severities)
    frost = None if options.frost is None else str(options.frost)
    corruptor = Corruptor(profile, options.seed, None, options.channel_order, frost, engine=options.engine)
    cfg = _config(options)
    data = read_data(cfg, options.split, options.limit, options.limit_seed)
    if options.on_bad_image == "fail":
        _, place = ignores_orientation(data.pipeline)
        color_type = f"{options.split}_dataloader.dataset.pipeline.{place}.color_type"
        data.orientations().check(color_type, leaving_out="--on-bad-image record")
    images = data.images(cells, corruptor)
    manifest = store_manifest(data, cells, corruptor, options.unit_size)
    detector = build_detector(cfg, options.checkpoint, device, options.amp, options.weights)
    labels = _labels(cfg, options, data, detector)

    def tell_user(text: str) -> None:
        if rank.is_first:
            say(console, text)

    places = labels.places([name for _, name in data.truth.categories])
    tell((*detector.remarks, *labels.remarks), tell_user)
    if places is not None:
        tell([order_remark(labels)], tell_user)
    masks = _has_masks(data, detector, tell_user)
    tell(data.remarks, tell_user)
    if rank.is_first:
        with_masks = masks and gives_masks(detector.model)
        try_evaluation(data.file.path, data.truth, masks=with_masks)
        take_new_annotations(options.store, manifest, data, tell_user)
    name = options.name or Path(options.config).stem
    # Names without folders, so that the files may be moved.
    source = f"{Path(options.config).name} {os.path.basename(options.checkpoint)}"
    training = {**detector.training, "label order": labels.evidence, **facts_of_names(labels.remarks)}
    known = replace(detector, training=training)
    (model,) = open_models(
        options.store,
        manifest,
        data.truth.table(),
        [model_manifest(name, source, detector, data, options.batch_size, labels)],
        [lambda: detection_facts(cfg, known, data.images(sweep_cells(()), corruptor))],
        rank,
    )
    task = DetectionTask(
        images,
        len(cells),
        len(data.truth.categories),
        detector,
        options.batch_size,
        options.on_bad_image,
        masks,
        places=places,
    )
    return model, task


def _labels(cfg: Config, options: DetectionOptions, data: DetectionData, detector: Detector) -> LabelNames:
    """Return the name of the class that each label of the detector means.

    Raises:
        ClassNameError: The names cannot be known, or do not agree with the names in the data.
    """
    categories = tuple(name for _, name in data.truth.categories)
    where = f"{options.split}_dataloader.dataset"
    tested = NamedSet(where, str(data.dataset.ann_file), tuple(data.dataset.metainfo["classes"]), categories)
    model = ModelClasses(head_numbers(cfg.model), options.checkpoint, detector.classes, detector.classes_in_label_order)
    return labels_in_evaluation([tested], training_classes(cfg, tested), model)


def _has_masks(data: DetectionData, detector: Detector, tell_user: Callable[[str], None]) -> bool:
    """Return whether all objects in the data have masks; warn if the model gives masks that the data lack.

    Raises:
        ValueError: The model gives masks, and only some of the objects in the data have one, or a mask cannot be
            evaluated.
    """
    masks = gives_masks(detector.model)
    if masks:
        data.file.check_masks()
    if data.truth.num_without_masks and gives_masks(detector.model):
        data.truth.check_masks(data.name)
        tell_user(f"warning: the objects of {data.name} have no segmentation, so only boxes are evaluated, not masks")
    return data.truth.has_masks


def gives_masks(model: Any) -> bool:
    """Return whether a detector of MMDetection finds masks: it has a head for them, or a head with parts for them."""
    heads = [part for name, part in model.named_children() if name.endswith("_head")]
    inner = (name for head in heads for name, _ in head.named_modules())
    return bool(getattr(model, "with_mask", False)) or any("mask" in name for name in inner)


def _config(options: DetectionOptions) -> Config:
    check_checkpoint(options.checkpoint)
    cfg = load_config(options.config, parse_options(options.cfg_options))
    require("mmengine.registry", "det").init_default_scope(cfg.get("default_scope") or "mmdet")
    check_loader(cfg, options.split)
    if options.data_root:
        launch.set_data_root(cfg, options.data_root)
    launch.check_data(cfg, [f"{options.split}_dataloader"], options.data_root)
    return cfg


def _sweep_units(model: ModelStore, task: DetectionTask, workers: int, rank: Rank, console: Console) -> None:
    manifest = model.store.manifest
    pending = model.pending()
    if rank.is_first and len(pending) < manifest.num_units:
        console.print(manifest.progress(pending), highlight=False)
    own = pending[rank.number :: rank.count]
    images = sum(len(manifest.unit(number)) for number in own)
    total, workers = images * len(manifest.cells), min(workers, images)
    if not rank.is_first or not total:
        run_sweep(model.store, [model], task, workers=workers, rank=rank)
        return
    title = f"{model.manifest.name} under {len(manifest.cells)} cells"
    with meter(console, title, total, "images") as advance:
        run_sweep(model.store, [model], replace(task, on_image=advance), workers=workers, rank=rank)


def store_manifest(data: DetectionData, cells: tuple[Cell, ...], corruptor: Corruptor, unit_size: int) -> StoreManifest:
    """Return the manifest of the data and conditions that all detectors of a store share.

    Raises:
        InputError: Images are missing.
    """
    sizes = data.file_sizes()
    return StoreManifest(
        task="detection",
        data=data.name,
        data_hash=data.truth.hash(sizes),
        num_images=len(data.indices),
        selection=data.selection,
        corruption=corruptor.identity,
        cells=cells,
        unit_size=unit_size,
        protocol={"categories": data.truth.categories_json},
        remarks=data.remarks,
        images_hash=data.truth.images_hash(sizes),
    )


def model_manifest(
    name: str, source: str, detector: Detector, data: DetectionData, batch_size: int, labels: LabelNames
) -> ModelManifest:
    """Return the manifest of the weights and settings that a detector's numbers depend on.

    The manifest holds the names of the labels only if the labels are in another order than the data's categories. So
    records with and without reordered labels are never mixed.
    """
    state: dict[str, Any] = detector.model.state_dict()
    categories = tuple(name for _, name in data.truth.categories)
    own_order = {} if labels.names == categories else {"labels": json.dumps(labels.names, ensure_ascii=False)}
    return ModelManifest(
        name=name,
        source=source,
        weights_hash=hash_weights(state),
        num_parameters=sum(parameter.numel() for parameter in detector.model.parameters()),
        protocol={
            "model_settings": detector.settings,
            "pipeline": data.pipeline_json,
            "batch_size": str(batch_size),
            "precision": detector.precision,
            "device": detector.device.type,
            **own_order,
        },
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions of the libraries that the numbers may depend on, by package."""
    found = {"torch": str(torch.__version__)}
    for package in ("dtn-det", "numpy", "opencv-python-headless", "onedl-mmdetection", "onedl-mmcv", "mmdet", "mmcv"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


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


@dataclass(frozen=True)
class DetectionTask:
    """The task of a sweep of a detector: see :class:`dtn_det.robustness.sweep.Task`.

    Attributes:
        images: The data set. Each item is one image under every cell (corruption and severity).
        batch_size: Largest number of versions of one image that the model gets at once. There is one version for each
            cell.
        on_bad_image: `fail` to end the run, `record` to write down the reason and go on.
        on_image: Called after each image with the number of its cells.
        places: For each label of the model, the index of its category in the data set; None if labels and categories
            are in the same order.
    """

    images: DetectionImages
    num_cells: int
    num_categories: int
    detector: Detector
    batch_size: int
    on_bad_image: OnBadImage = "fail"
    masks: bool = True
    on_image: Callable[[int], None] = lambda count: None
    places: tuple[int, ...] | None = None

    def block_size(self, ahead: int) -> int:
        """See :class:`dtn_det.robustness.sweep.Task`."""
        return 1

    def loading(self, requests: Iterable[int], ahead: int) -> tuple[DetectionImages, Iterator[int]]:
        """See :class:`dtn_det.robustness.sweep.Task`."""
        return self.images, iter(requests)

    def evaluate(self, items: Iterator[CellImages | BadImage], names: Sequence[str]) -> Mapping[str, pyarrow.Table]:
        """Return the records of one unit's images, under the name of the only model.

        Raises:
            ValueError: An image is bad and bad images end the run, the test pipeline fails, or the model fails.
        """
        rows = RecordRows()
        for item in items:
            if isinstance(item, BadImage):
                self._bad(rows, item)
            else:
                self._image(rows, item)
            self.on_image(self.num_cells)
        return dict.fromkeys(names, rows.table())

    def _image(self, rows: RecordRows, item: CellImages) -> None:
        # No batch mixes images, so none is padded to the size of another.
        for start in range(0, self.num_cells, self.batch_size):
            inputs = item.inputs[start : start + self.batch_size]
            found = self.detector.detect(inputs, item.sample)
            for cell, instances in zip(range(start, start + len(inputs)), found, strict=True):
                detections = from_instances(instances, self.num_categories, masks=self.masks)
                rows.add(item.number, cell, self._by_name(detections))

    def _by_name(self, found: ImageDetections) -> ImageDetections:
        """Return the detections with each label replaced by the index of its category in the data set."""
        if self.places is None:
            return found
        return replace(found, labels=np.asarray(self.places, np.int32)[found.labels])

    def _bad(self, rows: RecordRows, item: BadImage) -> None:
        if item.fault == "pipeline":
            raise InputError(f"expected the config's test pipeline to take every image, got {item.reason}")
        if self.on_bad_image == "fail":
            raise InputError(
                f"expected images that can be read, got {item.reason}: mend or replace the file, or go on without such "
                "images with --on-bad-image record. All finished units are kept"
            )
        rows.add_bad(item.number, range(self.num_cells), item.reason)
