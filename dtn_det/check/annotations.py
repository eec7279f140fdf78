"""The check of a COCO annotation file: what it holds, whether it can be evaluated, and whether it fits a detector."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det.check import CheckResult
from dtn_det.corrupted_folders.layouts import ANNOTATION_FOLDER, image_folder
from dtn_det.corruptions.image import read_image
from dtn_det.datasets.coco import CocoFile, read_coco_file
from dtn_det.datasets.coco.names import unquoted_advice
from dtn_det.datasets.coco.orientation import find_orientations
from dtn_det.datasets.coco.values import place_of
from dtn_det.datasets.folders.image_files import spread
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import AnnotationError, BadImageError, ClassNameError, SmallImageError, UnsupportedImageError

if TYPE_CHECKING:
    from dtn_det.check.model import Target
    from dtn_det.datasets.coco.categories import WantedClasses

LOOKED_AT = 100
"""Largest number of images of a set whose pixels are read."""

_RESULT_KEYS = {"image_id", "category_id", "score"}


def check_annotations(path: Path, target: Target | None = None, root: Path | None = None) -> CheckResult:
    """Check an annotation file: read it as every command does, and evaluate it once as a trial.

    Args:
        target: Detector with which the file's categories are compared; None for no comparison.
        root: Folder of the data set; None to search the file's folder and the parent folder for the images.
    """
    try:
        file = read_coco_file(path, wanted=_wanted(target))
    except AnnotationError as error:
        return CheckResult(str(path), *_other(path), problems=(str(error),))
    file, problems = _with_images(file, root)
    masks = target is not None and target.gives_masks
    try:
        file.check_objects()
    except AnnotationError as error:
        problems.append(f"{error} (`corrupt` takes it)")
    else:
        problems += _trial(file, masks)
    facts = dict(_facts(file))
    remarks = file.remarks
    if target is None or not target.is_detector:
        return CheckResult(str(path), "coco", _TITLE, facts, remarks, problems)
    fault, told = _against(file, target, root)
    stops = masks and _masks_stop(file)
    if stops:
        # The problems already name the unusable masks, so the remark on them is dropped.
        remarks = tuple(remark for remark in remarks if remark.kind != "unusable_masks")
    elif masks:
        told += _without_masks(file)
    problems += [fault] if fault else []
    return CheckResult(str(path), "coco", _TITLE, facts, (*remarks, *told), problems, fits=not fault and not stops)


_TITLE = "COCO annotation file"


def _facts(file: CocoFile) -> Iterator[tuple[str, Any]]:
    objects = (*file.annotations, *file.left_out)
    yield "images", len(file.images)
    yield "images without objects", len(file.images) - len({row["image_id"] for row in objects})
    yield "objects", len(objects)
    yield "crowds", sum(row["iscrowd"] for row in objects)
    yield "masks", sum(bool(row.get("segmentation")) for row in objects)
    yield "categories", [row["name"] for row in file.categories]
    found = {row["category_id"] for row in objects}
    yield "categories without objects", [row["name"] for row in file.categories if row["id"] not in found]


def _wanted(target: Target | None) -> WantedClasses | None:
    """Return the classes for which a detector is evaluated; None if there is no detector or its classes are unknown."""
    from dtn_det.datasets.configs.classes import wanted_classes
    from dtn_det.datasets.configs.settings import innermost_settings

    if target is None or target.config is None or not target.is_detector:
        return None
    try:
        found = [wanted_classes(*one) for one in innermost_settings(target.config, "test_dataloader")]
    # The error is reported by _against, where the comparison raises it again.
    except ClassNameError:
        return None
    return found[0] if found else None


def _with_images(file: CocoFile, root: Path | None) -> tuple[CocoFile, list[str]]:
    """Return the file with image names as found on disk, and the problems with its images."""
    problems: list[str] = []
    for place in _around(file.path) if root is None else (root,):
        try:
            folder = image_folder(place, file, "name the folder of the data set, or fetch the images")
        except (FileNotFoundError, ValueError) as error:
            problems.append(str(error))
            continue
        file = file.with_folder(folder)
        missing = [row["file_name"] for row in file.images if not (folder / row["file_name"]).is_file()]
        if missing:
            return file, [
                f"expected all images of {file.path} in {folder}, got {len(missing):,} of {len(file.images):,} "
                f"missing, such as {missing[0]}: {unquoted_advice(folder, missing[0]) or 'fetch them'}"
            ]
        orientations = find_orientations(file.path, file.images, folder)
        file = replace(file, remarks=(*file.remarks, *orientations.remarks()))
        try:
            orientations.check()
        except AnnotationError as error:
            return file, [str(error)]
        return _with_pixels(file, folder)
    return file, problems[:1]


def _with_pixels(file: CocoFile, folder: Path) -> tuple[CocoFile, list[str]]:
    """Read a sample of the images; return the file with added remarks on unsuitable images, and the problems found."""
    looked_at = spread(list(dict.fromkeys(row["file_name"] for row in file.images)), LOOKED_AT)
    bad, unsupported, small = [], [], []
    for name in looked_at:
        try:
            read_image(folder / name, upright=True)
        except SmallImageError as error:
            small.append(f"{folder / name}: {error}")
        except UnsupportedImageError as error:
            unsupported.append(f"{folder / name}: {error}")
        except BadImageError as error:
            bad.append(f"{folder / name}: {error}")
    found = (
        (
            "refused_by_corrupt",
            unsupported,
            "{is|are} of a kind that `dtn-det corrupt` refuses, and dtn-det mpc, tools/train.py and tools/test.py take "
            "the 8 bits of the first picture that OpenCV reads",
        ),
        (
            "too_small_to_corrupt",
            small,
            "{has|have} fewer pixels than corruptions need, so that `dtn-det corrupt` and `dtn-det mpc` refuse "
            "{it|them}",
        ),
    )
    remarks = tuple(
        Remark(
            kind,
            agreeing(len(images), f"{{image|images}} of {len(looked_at)} looked at {what}"),
            str(file.path),
            len(images),
            tuple(images[:1]),
        )
        for kind, images, what in found
        if images
    )
    file = replace(file, remarks=(*file.remarks, *remarks))
    return file, unreadable(bad, len(looked_at))


def unreadable(bad: Sequence[str], looked_at: int) -> list[str]:
    """Return a problem that counts the unreadable images and shows the first; an empty list if there are none.

    Args:
        bad: For each unreadable image, its path and the error.
        looked_at: Number of images that were read.
    """
    if not bad:
        return []
    return [f"expected images that can be read, got {len(bad)} of {looked_at} looked at that cannot; {bad[0]}"]


def _around(path: Path) -> tuple[Path, Path]:
    """Return the two folders that may be the root of an annotation file's data set, the more likely one first."""
    # The parents of a short relative path such as "a.json" have no names, so the path is made absolute.
    path = path if len(path.parts) > 2 else path.absolute()
    near = path.parent, path.parent.parent
    return (near[1], near[0]) if near[0].name == ANNOTATION_FOLDER else near


def _in_folder(config: Any, folders: Iterable[Path]) -> Any:
    """Return a copy of a config; its data_root becomes the first folder with all training files, if there is one."""
    from dtn_det.datasets.configs.settings import data_paths
    from dtn_det.training.launch import set_data_root

    for folder in folders if config.get("data_root") else ():
        moved = copy.deepcopy(config)
        set_data_root(moved, str(folder))
        files = [path for _, path in data_paths(moved, "train_dataloader") if path.endswith(".json")]
        if files and all(Path(path).is_file() and Path(path).is_relative_to(folder) for path in files):
            return moved
    return copy.deepcopy(config)


def _trial(file: CocoFile, masks: bool) -> list[str]:
    """Evaluate the annotated boxes (and masks if `masks`) as if they were detections; return any error."""
    from dtn_det.robustness.detection.evaluation import try_evaluation
    from dtn_det.robustness.detection.truth import truth_of

    try:
        truth = truth_of(file, [row["id"] for row in file.images], [row["id"] for row in file.categories])
        truth.check_objects(file.path)
        if masks:
            file.check_masks()
            truth.check_masks(file.path)
        try_evaluation(file.path, truth, masks=truth.has_masks)
    except ValueError as error:
        return [str(error)]
    return []


def _against(file: CocoFile, target: Target, root: Path | None) -> tuple[str, tuple[Remark, ...]]:
    """Return why a file does not fit a detector (empty if it fits), and a remark if its classes have another order."""
    from dtn_det.datasets.configs.classes import classes_in_evaluation

    assert target.config is not None
    path, config = file.path, _in_folder(target.config, _around(file.path) if root is None else (root,))
    if fault := _not_trained(file, config):
        return fault, ()
    for key in ("test_dataloader", "test_evaluator"):
        _name_file(config.get(key), path)
    try:
        found = classes_in_evaluation(config, "test", read={path.resolve(): file})
    except ClassNameError as error:
        return str(error), ()
    if found is None or not found.differing:
        return "", ()
    stand = agreeing(len(found.names), "{category stands|categories stand}")
    what = (
        f"{stand} in another order than in {found.source}: dtn-det mpc goes by their names, and "
        "tools/test.py refuses the file"
    )
    return "", (Remark("class_order", what, str(path), len(found.names)),)


def _not_trained(file: CocoFile, config: Any) -> str:
    """Return why MMDetection trains on no object of a training file; empty if it does, or if the file is no such."""
    from dtn_det.datasets.configs.settings import innermost_settings

    for _, dataset in innermost_settings(config, "train_dataloader"):
        named = Path(dataset.get("data_root") or "", str(dataset.get("ann_file") or ""))
        if dataset.get("test_mode") or named.resolve() != file.path.resolve():
            continue
        try:
            file.check_training((dataset.get("filter_cfg") or {}).get("min_size", 0))
        except AnnotationError as error:
            return str(error)
    return ""


def _masks_stop(file: CocoFile) -> bool:
    """Return whether the masks prevent evaluation: a mask is faulty, or some objects have a mask and others do not."""
    without = sum(not row.get("segmentation") for row in file.annotations)
    return bool(file.mask_faults) or 0 < without < len(file.annotations)


def _without_masks(file: CocoFile) -> tuple[Remark, ...]:
    """Return a remark on objects without a mask, which detectors with masks need."""
    without = [place_of(row) for row in file.annotations if not row.get("segmentation")]
    if not without:
        return ()
    what = (
        "objects have no segmentation: dtn-det mpc evaluates boxes alone, and tools/train.py and tools/test.py refuse "
        "the file for a detector with masks"
    )
    return (Remark("objects_without_masks", what, str(file.path), len(without), tuple(without[:3]), partial=True),)


def _name_file(node: Any, path: Path) -> None:
    """Replace every annotation file in a part of a config by the file at ``path``."""
    if isinstance(node, dict):
        if "ann_file" in node:
            node["ann_file"] = str(path.resolve())
            if "data_root" in node:
                node["data_root"] = ""
        for value in node.values():
            _name_file(value, path)
    elif isinstance(node, list):
        for value in node:
            _name_file(value, path)


def _other(path: Path) -> tuple[str, str]:
    """Return the kind and the title of a JSON file that cannot be read as annotations."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "", "a file that is not JSON"
    if isinstance(content, list) and content and isinstance(content[0], dict) and set(content[0]) >= _RESULT_KEYS:
        return "coco_results", f"results of a detector in COCO's format, {len(content):,} detections"
    if isinstance(content, dict) and "images" in content:
        return "coco", f"{_TITLE} that cannot be evaluated"
    return "", "JSON, but no COCO annotation file"
