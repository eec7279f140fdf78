"""Check the COCO files of a config before MMDetection reads them, and write corrected copies where it would fail."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dtn_det._optional import require
from dtn_det.datasets.coco import CocoFile, read_coco_file
from dtn_det.datasets.coco.categories import is_read_by_mmdet
from dtn_det.datasets.coco.names import check_images
from dtn_det.datasets.coco.orientation import find_orientations, ignores_orientation
from dtn_det.datasets.coco.values import place_of
from dtn_det.datasets.configs.classes import coco_class, wanted_classes
from dtn_det.datasets.configs.settings import evaluators, innermost_settings
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError
from dtn_det.system.files import write_json

LARGEST = 64 << 20
"""Bytes of the largest file that is read before MMDetection reads it.

COCO's val2017 has 20 MB and takes a second. A file like its train2017, with 118,000 images and 860,000 objects, takes
two thirds of the time in which MMDetection reads it (measured: 16 s against 25 s of CPU), and half of these 16 s go
into parsing the JSON. Such a file is reported as unchecked, and is read only if the run fails: see
:func:`explain_failure`.
"""


def check_files(cfg: Any, dataloaders: Sequence[str], folder: str | os.PathLike[str]) -> tuple[Remark, ...]:
    """Check that the COCO files of a run can be read and that their images exist.

    MMDetection fails on some files that :mod:`dtn_det.datasets.coco` accepts, such as files with an object without an
    area. In this case, a corrected copy is written, and the data sets and evaluators of the config are changed to use
    it.

    Args:
        cfg: The config; changed in place.
        dataloaders: Keys such as ``"train_dataloader"``.
        folder: Folder that copies are written to.

    Returns:
        Remarks on what was left out, filled in or decided, and on files that are too large to be checked.

    Raises:
        AnnotationError: A file is not a COCO file, COCO's evaluation would fail on it, or its annotated sizes differ
            from the sizes of the image files.
        InputError: A file has no objects, MMDetection would train on none of its objects, or images are missing.
    """
    remarks: list[Remark] = []
    for where, settings, path in _files(cfg, dataloaders):
        num_bytes = path.stat().st_size
        if num_bytes > LARGEST:
            what = f"file of {num_bytes >> 20:,} MB was not checked before the run; `dtn-det check {path}` checks it"
            remarks.append(Remark("not_checked", what, str(path)))
            continue
        file = _read(where, settings, path)
        if _takes_masks(cfg, dataloaders, settings):
            file.check_masks()
            _check_has_masks(where, file)
        remarks += file.remarks
        remarks += _check_sizes(where, settings, file)
        if file.changed:
            copy = Path(folder).absolute() / "annotations" / path.name
            write_json(copy, file.content())
            settings["ann_file"] = str(copy)
            _replace_in_evaluators(cfg, dataloaders, path, copy)
    return tuple(dict.fromkeys(remarks))


def explain_failure(cfg: Mapping[str, Any], dataloaders: Sequence[str]) -> str | None:
    """Find faults in the large files of a failed run, which :func:`check_files` skipped.

    Returns:
        The fault, or None if the files are sound.
    """
    try:
        for where, settings, path in _files(cfg, dataloaders):
            if path.stat().st_size > LARGEST:
                _read(where, settings, path)
    except ValueError as error:
        return str(error)
    return None


def _files(cfg: Mapping[str, Any], dataloaders: Sequence[str]) -> Iterator[tuple[str, Any, Path]]:
    """Yield key, settings and annotation file of each data set in COCO's format, if the file is on this machine."""
    if cfg.get("default_scope") == "mmpretrain":
        return
    for loader in dataloaders:
        for where, settings in innermost_settings(cfg, loader):
            name = settings.get("ann_file")
            if isinstance(name, str) and coco_class(settings.get("type")) is not None:
                path = Path(os.path.join(settings.get("data_root") or "", name))
                if path.is_file():
                    yield where, settings, path


def _read(where: str, settings: Mapping[str, Any], path: Path) -> CocoFile:
    """Read a data set's file, and check that it has objects and that its images exist."""
    folder = _image_folder(settings)
    file = read_coco_file(path, folder, wanted_classes(where, settings))
    file.check_objects()
    if where.startswith("train_dataloader") and not settings.get("test_mode"):
        file.check_training((settings.get("filter_cfg") or {}).get("min_size", 0))
    if folder is not None and settings.get("indices") is None:
        names = [str(image["file_name"]) for image in _used(settings, file)]
        check_images(path, [os.path.join(folder, name) for name in names], names, f"{where}.data_prefix.img")
    return file


def _check_sizes(where: str, settings: Mapping[str, Any], file: CocoFile) -> tuple[Remark, ...]:
    """Check that the images that a data set reads have the annotated sizes when the pipeline loads them."""
    folder = _image_folder(settings)
    if folder is None:
        return ()
    as_stored, place = ignores_orientation(settings.get("pipeline") or ())
    found = find_orientations(file.path, _used(settings, file), folder, as_stored=as_stored)
    found.check(f"{where}.pipeline.{place}.color_type")
    return found.remarks()


def _takes_masks(cfg: Mapping[str, Any], dataloaders: Sequence[str], settings: Mapping[str, Any]) -> bool:
    """Return whether a data set's pipeline or one of the evaluators reads masks."""
    steps = settings.get("pipeline") or ()
    if any(isinstance(step, Mapping) and step.get("with_mask") for step in steps):
        return True
    return any(measures_masks(metric) for loader in dataloaders for _, metric in evaluators(cfg, loader))


def measures_masks(metric: Mapping[str, Any]) -> bool:
    """Return whether an evaluator measures masks, according to its settings."""
    kinds = metric.get("metric", ())
    return "segm" in ([kinds] if isinstance(kinds, str) else kinds)


def _check_has_masks(where: str, file: CocoFile) -> None:
    """Check that each object has a mask, as MMDetection requires if it reads masks."""
    without = [row for row in file.annotations if not row.get("segmentation")]
    if without:
        raise InputError(
            f"expected a segmentation of each object in {file.path} ({where}), whose masks the config reads, got "
            f"{len(without):,} of {len(file.annotations):,} objects without, such as {place_of(without[0])}: add them, "
            "or name the config of a detector without masks"
        )
    if file.annotations and not any(map(is_read_by_mmdet, file.annotations)) and where.startswith("train_dataloader"):
        raise InputError(
            f"expected polygons that MMDetection reads in {file.path} ({where}), got {len(file.annotations):,} objects "
            f"whose polygons have an odd number of values or fewer than three points, such as "
            f"{place_of(file.annotations[0])}: write each polygon as x1, y1, x2, y2, x3, y3, ..."
        )


def _used(settings: Mapping[str, Any], file: CocoFile) -> list[Mapping[str, Any]]:
    """Return the images that a data set reads: a training set may leave out images without objects."""
    if settings.get("test_mode") or not (settings.get("filter_cfg") or {}).get("filter_empty_gt"):
        return list(file.images)
    having = {row["image_id"] for row in file.annotations}
    return [image for image in file.images if image["id"] in having]


def _image_folder(settings: Mapping[str, Any]) -> Path | None:
    """Return the folder of the images; None if it is not on this machine or a subclass computes the paths itself."""
    coco = require("mmdet.datasets", "det").CocoDataset
    if coco_class(settings.get("type")).parse_data_info is not coco.parse_data_info or settings.get("backend_args"):
        return None
    prefix = settings.get("data_prefix") or {}
    images = prefix.get("img") or prefix.get("img_path") or "" if isinstance(prefix, Mapping) else prefix
    folder = os.path.join(settings.get("data_root") or "", images)
    return None if "://" in folder else Path(folder)


def _replace_in_evaluators(cfg: Any, dataloaders: Sequence[str], path: Path, copy: Path) -> None:
    for loader in dataloaders:
        for _, metric in evaluators(cfg, loader):
            file = metric.get("ann_file")
            if isinstance(file, str) and os.path.isfile(file) and os.path.samefile(file, path):
                metric["ann_file"] = str(copy)
