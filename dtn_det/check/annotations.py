"""What a COCO annotation file holds, and whether it can be evaluated and fits a detector."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det.check.result import CheckResult
from dtn_det.corruptions.coco_layout import image_folder
from dtn_det.datasets.class_names import ClassNameError
from dtn_det.datasets.coco_file import AnnotationError, CocoFile, read_coco_file
from dtn_det.datasets.remarks import Remark

if TYPE_CHECKING:
    from dtn_det.check.model import Target

_RESULT_KEYS = {"image_id", "category_id", "score"}


def check_annotations(path: Path, target: Target | None = None, root: Path | None = None) -> CheckResult:
    """Read an annotation file as every command does.

    Args:
        path: The file.
        target: Detector that its categories are held against.
        root: Folder of the data set; None to look around the file.
    """
    try:
        file = read_coco_file(path)
    except AnnotationError as error:
        return CheckResult(str(path), *_other(path), problems=(str(error),))
    file, problems = _with_images(file, root)
    if not file.annotations:
        problems.append(f"expected objects in {path}, got none: such a file serves `corrupt` alone")
    else:
        problems += _trial(file)
    facts = dict(_facts(file))
    if target is None or not target.is_detector:
        return CheckResult(str(path), "coco", _TITLE, facts, file.remarks, problems)
    fault, told = _against(path, target)
    problems += [fault] if fault else []
    return CheckResult(str(path), "coco", _TITLE, facts, (*file.remarks, *told), problems, fits=not fault)


_TITLE = "COCO annotation file"


def _facts(file: CocoFile) -> Iterator[tuple[str, Any]]:
    objects = Counter(row["image_id"] for row in file.annotations)
    yield "images", len(file.images)
    yield "images without objects", len(file.images) - len(objects)
    yield "objects", len(file.annotations)
    yield "crowds", sum(row["iscrowd"] for row in file.annotations)
    yield "masks", sum(bool(row.get("segmentation")) for row in file.annotations)
    yield "categories", [row["name"] for row in file.categories]
    found = {row["category_id"] for row in file.annotations}
    yield "categories without objects", [row["name"] for row in file.categories if row["id"] not in found]


def _with_images(file: CocoFile, root: Path | None) -> tuple[CocoFile, list[str]]:
    """The file with the names that its images have on this machine, and what is missing."""
    for place in (root,) if root is not None else (file.path.parent.parent, file.path.parent):
        try:
            folder = image_folder(place, file)
        except (FileNotFoundError, ValueError) as error:
            problem = str(error)
            continue
        file = file.with_folder(folder)
        missing = [row["file_name"] for row in file.images if not (folder / row["file_name"]).is_file()]
        if not missing:
            return file, []
        return file, [
            f"expected all images of {file.path} in {folder}, got {len(missing):,} of {len(file.images):,} missing, "
            f"such as {missing[0]}: fetch them"
        ]
    return file, [problem]


def _trial(file: CocoFile) -> list[str]:
    """Why the evaluation would fail, or nothing."""
    from dtn_det.robustness.coco_trial import try_evaluation
    from dtn_det.robustness.coco_truth import truth_of

    try:
        truth = truth_of(file, [row["id"] for row in file.images], [row["id"] for row in file.categories])
        try_evaluation(file.path, truth, masks=any(row.get("segmentation") for row in file.annotations))
    except ValueError as error:
        return [str(error)]
    return []


def _against(path: Path, target: Target) -> tuple[str, tuple[Remark, ...]]:
    """Why a file does not fit a detector's config, if so, and what `mpc` would do about the order of its classes."""
    from dtn_det.datasets.config_classes import classes_in_evaluation

    assert target.config is not None
    config = copy.deepcopy(target.config)
    for key in ("test_dataloader", "test_evaluator"):
        _name_file(config.get(key), path)
    try:
        found = classes_in_evaluation(config, "test")
    except ClassNameError as error:
        return str(error), ()
    if found is None or not found.differing:
        return "", ()
    what = (
        f"categories stand in another order than in {found.source}: dtn-det mpc goes by their names, and "
        "tools/test.py refuses the file"
    )
    return "", (Remark("class_order", what, str(path), len(found.names)),)


def _name_file(node: Any, path: Path) -> None:
    """Put the file in the place of every annotation file of a config's part."""
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
    """Kind and title of a file that cannot be read as annotations."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "", "a file that is not JSON"
    if isinstance(content, list) and content and isinstance(content[0], dict) and set(content[0]) >= _RESULT_KEYS:
        return "coco_results", f"results of a detector in COCO's format, {len(content):,} detections"
    if isinstance(content, dict) and "images" in content:
        return "coco", f"{_TITLE} that cannot be evaluated"
    return "", "JSON, but no COCO annotation file"
