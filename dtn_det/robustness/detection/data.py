"""Read the data set of a config: the images that a sweep evaluates, and their ground truth."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.corruptions.cells import Cell
from dtn_det.corruptions.engine import Corruptor
from dtn_det.datasets.choosing import choose_ids
from dtn_det.datasets.class_names import NamedSet, check_set
from dtn_det.datasets.coco import CocoFile, read_coco_file
from dtn_det.datasets.coco.names import check_images, is_elsewhere
from dtn_det.datasets.coco.orientation import Orientations, find_orientations, ignores_orientation
from dtn_det.datasets.coco.values import Id, identifier
from dtn_det.datasets.configs.classes import wanted_classes
from dtn_det.datasets.configs.settings import evaluators
from dtn_det.datasets.remarks import Remark, agreeing, counted
from dtn_det.errors import InputError
from dtn_det.robustness.detection.images import AS_STORED, TURNED, DetectionImages, PipelineForm, decoding_of
from dtn_det.robustness.detection.truth import CocoTruth, truth_of

if TYPE_CHECKING:
    from mmengine.config import Config


@dataclass(frozen=True)
class DetectionData:
    """A COCO set, and the pipeline of MMDetection that its images go through if it is the set of a config.

    Attributes:
        name: Path of the annotation file, as reports show it.
        selection: How the images were chosen from the file, for reports; ``'all'`` if none was left out.
        paths: Path of each image of the sweep.
        as_stored: Whether images are read as they are stored, without regard to their EXIF orientation.
        dataset: The data set of MMDetection, without a pipeline; None if the set is not that of a config.
        indices: Indices of the images of the sweep in ``dataset``.
        pipeline: Steps of the config's test pipeline.
        where: Key of the data set in the config; empty if the set is not that of a config.
    """

    name: str
    file: CocoFile
    truth: CocoTruth
    selection: str
    paths: tuple[str, ...]
    as_stored: bool
    remarks: tuple[Remark, ...] = ()
    dataset: Any = None
    indices: tuple[int, ...] = ()
    pipeline: tuple[dict[str, Any], ...] = ()
    where: str = ""

    @property
    def pipeline_json(self) -> str:
        """The pipeline as JSON for the model's manifest, because results depend on the pipeline."""
        return json.dumps(self.pipeline, default=str, sort_keys=True)

    def orientations(self) -> Orientations:
        """Read the EXIF orientations of the image files."""
        rows = [
            {"id": image.key, "file_name": path, "height": image.height, "width": image.width}
            for image, path in zip(self.truth.images, self.paths, strict=True)
            if not is_elsewhere(path)
        ]
        return find_orientations(self.file.path, rows, Path(), as_stored=self.as_stored)

    def file_sizes(self) -> list[int]:
        """Return the size of each image's file in bytes, 0 for URLs.

        Raises:
            InputError: Images are missing.
        """
        option = f"{self.where}.data_prefix.img" if self.where else ""
        check_images(self.file.path, self.paths, [image.file for image in self.truth.images], option)
        return [0 if is_elsewhere(path) else os.path.getsize(path) for path in self.paths]

    def form(self) -> PipelineForm:
        """Return the form in which a detector of the config gets the images.

        Raises:
            ValueError: A step of the pipeline cannot be built, or no step or several steps load an image.
        """
        load, rest = build_pipeline(self.pipeline)
        return PipelineForm(self.dataset, self.indices, load, rest, decoding_of(self.pipeline[: len(load)]))

    def images(
        self,
        cells: Sequence[Cell],
        corruptor: Corruptor,
        forms: Sequence[PipelineForm] | None = None,
        *,
        pixels: bool = False,
    ) -> DetectionImages:
        """Return the PyTorch dataset of the images under every cell, for worker processes.

        Args:
            forms: The forms of the detectors of MMDetection; None for the form of this set's config alone.
            pixels: Whether other detectors take the images too.

        Raises:
            ValueError: A pipeline is not as :meth:`form` needs it.
        """
        return DetectionImages(
            [image.key for image in self.truth.images],
            self.paths,
            [(image.height, image.width) for image in self.truth.images],
            [self.form()] if forms is None else forms,
            (AS_STORED if self.as_stored else TURNED) if pixels else None,
            cells,
            corruptor,
        )


def read_data(cfg: Config, split: str, limit: int | None = None, limit_seed: int = 0) -> DetectionData:
    """Read the data set of a config's dataloader.

    Args:
        split: `test` or `val`.
        limit: Largest number of images to evaluate. They are chosen at random, the same ones in every run. None for
            all.

    Raises:
        ValueError: The config has no such dataloader. The data set is not in COCO's format, or is not evaluated by
            COCO's rules. The annotation file is damaged or has no images, or its categories are not the classes in the
            config.
    """
    check_loader(cfg, split)
    settings = copy.deepcopy(cfg[f"{split}_dataloader"]["dataset"])
    if "pipeline" not in settings or not settings.get("ann_file"):
        wrapped = "dataset" in settings or "datasets" in settings
        raise InputError(
            f"expected one data set with a pipeline and an ann_file in {split}_dataloader, got "
            f"{settings.get('type')!r}"
            + (", which repeats, narrows or joins others: give it the settings of one of them" if wrapped else "")
            + (
                ": name the annotation file of one COCO set with --cfg-options"
                if not wrapped
                else f", as {split}_dataloader.dataset, in the config"
            )
        )
    pipeline = tuple(_plain(step) for step in settings["pipeline"])
    settings.update(pipeline=[], test_mode=True, lazy_init=False)
    datasets = require("mmdet.registry", "det").DATASETS
    coco_class = require("mmdet.datasets", "det").CocoDataset
    kind = datasets.get(settings["type"]) if isinstance(settings["type"], str) else settings["type"]
    if kind is None or not issubclass(kind, coco_class):
        raise InputError(
            f"expected a data set of COCO's format, got {settings['type']!r}: convert its annotations, and use "
            "CocoDataset"
        )
    remarks = check_protocol(cfg, split, kind)
    file = read_coco_file(*_paths(settings), wanted_classes(f"{split}_dataloader.dataset", settings))
    file.check_objects()
    file.check_sizes()
    dataset = _dataset(settings, file, plain=kind is coco_class)
    found = _selected(dataset, file, pipeline, limit, limit_seed, remarks)
    found = replace(found, where=f"{split}_dataloader.dataset")
    return replace(found, remarks=(*found.remarks, *found.orientations().remarks()))


def _paths(settings: Mapping[str, Any]) -> tuple[Path, Path]:
    """Return the paths of a data set's annotation file and image folder, put together as MMEngine does."""
    root = settings.get("data_root") or ""
    prefix = settings.get("data_prefix") or {}
    images = prefix.get("img") or prefix.get("img_path") or ""
    return Path(os.path.join(root, settings["ann_file"])), Path(os.path.join(root, images))


def _dataset(settings: dict[str, Any], file: CocoFile, *, plain: bool) -> Any:
    """Build MMDetection's data set, from a temporary copy of the annotation file if the file itself cannot be used.

    A copy is used if the content was mended when it was read, and always for a plain `CocoDataset`. The copy for a
    `CocoDataset` has no objects, because only the evaluation needs objects. A copy for a subclass has objects, because
    the subclass may choose images by them.
    """
    with tempfile.TemporaryDirectory() as folder:
        if plain or file.changed:
            place = Path(folder) / file.path.name
            content = file.content()
            place.write_text(json.dumps({**content, "annotations": []} if plain else content))
            settings = {**settings, "ann_file": str(place)}
        try:
            dataset = require("mmdet.registry", "det").DATASETS.build(settings)
        except (KeyError, TypeError, ValueError, AssertionError, IndexError) as error:
            raise InputError(
                f"expected COCO annotations in {file.path} that {settings['type']} takes, got "
                f"{type(error).__name__}: {error}: check the settings of the data set"
            ) from error
    dataset.ann_file = str(file.path)
    return dataset


def check_loader(cfg: Config, split: str) -> None:
    """Check that a config has a dataloader whose parts are of the right types.

    Raises:
        ValueError: The config has no such dataloader, or a part of it has another type.
    """
    loader = cfg.get(f"{split}_dataloader")
    if not loader:
        raise InputError(f"expected {split}_dataloader in the config, got none: choose another --split")
    dataset = loader.get("dataset") if isinstance(loader, dict) else None
    pipeline = dataset.get("pipeline", []) if isinstance(dataset, dict) else None
    if not isinstance(pipeline, list | tuple) or not all(isinstance(step, dict) for step in pipeline):
        raise InputError(
            f"expected {split}_dataloader with a dataset, and in it a pipeline of steps, got {loader!r:.200}: mend the "
            "config or --cfg-options"
        )


def _selected(
    dataset: Any,
    file: CocoFile,
    pipeline: tuple[dict[str, Any], ...],
    limit: int | None,
    limit_seed: int,
    remarks: tuple[Remark, ...],
) -> DetectionData:
    classes = tuple(dataset.metainfo["classes"])
    names = tuple(str(row["name"]) for row in file.categories)
    check_set(NamedSet("the data set", str(dataset.ann_file), classes, names))
    if not len(dataset):
        raise InputError(f"expected images in {dataset.ann_file}, got an empty data set: name another")
    ids = [identifier(dataset.get_data_info(index)["img_id"]) for index in range(len(dataset))]
    if len(set(ids)) < len(ids):
        raise InputError(
            f"expected each image of {dataset.ann_file} once, got {len(ids) - len(set(ids))} twice: mend `indices` of "
            "the data set"
        )
    narrowed, narrowing = _narrowed(ids, file)
    indices = tuple(choose_ids(ids, limit, limit_seed))
    limited = len(indices) < len(ids)
    selection = f"limit={len(indices)} of {len(ids)} seed={limit_seed}" if limited else narrowed or "all"
    truth = truth_of(file, [ids[index] for index in indices], dataset.cat_ids)
    truth.check_objects(dataset.ann_file)
    name = os.path.relpath(dataset.ann_file, dataset.data_root) if dataset.data_root else dataset.ann_file
    return DetectionData(
        str(name),
        file,
        truth,
        f"{selection}, {narrowed}" if limited and narrowed else selection,
        tuple(str(dataset.get_data_info(index)["img_path"]) for index in indices),
        ignores_orientation(pipeline)[0],
        (*remarks, *file.remarks, *narrowing),
        dataset,
        indices,
        pipeline,
    )


def _narrowed(ids: Sequence[Id | None], file: CocoFile) -> tuple[str, tuple[Remark, ...]]:
    """If the config leaves out images of the file, return the name of the selection and a remark; else empty values."""
    taken = set(ids)
    left_out = [str(row["id"]) for row in file.images if row["id"] not in taken]
    if not left_out:
        return "", ()
    what = agreeing(
        len(left_out),
        "{image was|images were} left out by the config (indices or a filter of the data set), so numbers are of a "
        "part",
    )
    remark = Remark("images_narrowed", what, str(file.path), len(left_out), tuple(left_out[:3]), partial=True)
    return f"{len(ids)} of {counted(len(file.images), 'image')}", (remark,)


def build_pipeline(pipeline: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any]]:
    """Build the steps of a test pipeline, without the steps that load annotations.

    Returns:
        The steps up to the one that loads the image, and the steps after it.

    Raises:
        InputError: A step cannot be built, or no step or several steps load an image.
    """
    transforms = require("mmdet.registry", "det").TRANSFORMS
    annotations = require("mmcv.transforms", "det").LoadAnnotations
    try:
        steps = [transforms.build(dict(step)) for step in pipeline]
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise InputError(f"expected a test pipeline that builds, got {type(error).__name__}: {error}") from error
    loads = [place for place, step in enumerate(steps) if type(step).__name__.startswith("LoadImage")]
    if len(loads) != 1:
        names = ", ".join(type(step).__name__ for step in steps)
        raise InputError(f"expected a test pipeline with one LoadImageFromFile, got {names}")
    rest = [step for step in steps[loads[0] + 1 :] if not isinstance(step, annotations)]
    return steps[: loads[0] + 1], rest


def _plain(value: Any) -> Any:
    """Return settings with plain dicts in place of mmengine's, whose text differs between versions of mmengine."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(inner) for inner in value)
    return value


# Evaluators that write results and compute no metrics.
_WRITERS = ("DumpResults", "DumpDetResults", "DumpProposals")
_COCO_CLASSES = ("CocoMetric", "FasterCocoMetric")
# Data sets in COCO's format that are evaluated by other rules than COCO's.
_OTHER_PROTOCOLS = ("LVISV05Dataset", "LVISV1Dataset", "CocoPanopticDataset")
_KINDS = {"bbox", "segm"}


def check_protocol(cfg: Config, split: str, dataset: type) -> tuple[Remark, ...]:
    """Check that a config evaluates its data set by COCO's rules.

    Returns:
        A remark for each option of the evaluator that MMDetection's own test follows and `dtn-det mpc` does not.

    Raises:
        ValueError: The data set or the evaluator follows other rules, or the evaluator computes no AP, or AP at other
            IoU thresholds.
    """
    modules = require("mmdet.datasets", "det")
    for name in _OTHER_PROTOCOLS:
        other = getattr(modules, name, None)
        if other is not None and issubclass(dataset, other):
            raise InputError(
                f"expected a data set of COCO's protocol in {split}_dataloader, got {dataset.__name__}, whose AP "
                "follows other rules: test it with MMDetection, or evaluate its boxes as COCO does with --cfg-options "
                f"{split}_dataloader.dataset.type=CocoDataset {split}_evaluator.type=CocoMetric"
            )
    found = evaluators(cfg, f"{split}_dataloader")
    return tuple(remark for key, settings in found for remark in _check_evaluator(settings, key))


def _check_evaluator(settings: Mapping[str, Any], key: str) -> list[Remark]:
    kind = settings.get("type")
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    name = name.rpartition(".")[2]
    if name in _WRITERS:
        return []
    if name not in _COCO_CLASSES:
        raise InputError(
            f"expected COCO's evaluation (CocoMetric) as {key}, got {name}, whose numbers follow other rules: test it "
            f"with MMDetection, or evaluate by COCO's rule with --cfg-options {key}.type=CocoMetric"
        )
    metric = settings.get("metric", "bbox")
    metrics = {metric} if isinstance(metric, str) else set(metric)
    if not metrics & _KINDS:
        raise InputError(
            f"expected bbox or segm among the metrics of {key}, got {', '.join(sorted(metrics))}: ask for AP with "
            f"--cfg-options {key}.metric=bbox"
        )
    if settings.get("iou_thrs") is not None:
        raise InputError(
            f"expected the IoU thresholds of COCO, 0.5 to 0.95, got {key}.iou_thrs={settings['iou_thrs']!r}: take them "
            f"with --cfg-options {key}.iou_thrs=None"
        )
    told = {
        "proposal_nums": "COCO's 1, 10 and 100 boxes an image are taken",
        "format_only": "results are evaluated all the same",
    }
    return [
        Remark("evaluator_options", f"option of the evaluator that mpc does not follow: {what}", key, 1, (option,))
        for option, what in told.items()
        if settings.get(option) and tuple(_listed(settings[option])) != (100, 300, 1000)
    ]


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
