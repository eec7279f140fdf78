"""The check of a folder of images: what it is, and whether its classes fit a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det.check import CheckResult
from dtn_det.check.annotations import LOOKED_AT, check_annotations, unreadable
from dtn_det.corrupted_folders.layouts import find_annotations
from dtn_det.corrupted_folders.reading import list_tree, open_tree
from dtn_det.corruptions.catalog import SEVERITIES, catalog_for
from dtn_det.corruptions.image import read_image
from dtn_det.datasets.arrays.corrupted import open_arrays
from dtn_det.datasets.arrays.rows import open_rows
from dtn_det.datasets.configs.folders import folder_fault
from dtn_det.datasets.folders.image_files import spread
from dtn_det.datasets.folders.recognise import Recognised, recognise
from dtn_det.datasets.labelled import LabelledImages
from dtn_det.datasets.remarks import Remark
from dtn_det.datasets.sets import label_set
from dtn_det.errors import BadImageError, CheckpointError, ClassCountError, InputError

if TYPE_CHECKING:
    from dtn_det.check.model import Target
    from dtn_det.robustness.classification.class_agreement import ClassSet


def check_folder(root: Path, classes: str | None = None, target: Target | None = None) -> list[CheckResult]:
    """Recognise a folder of images and list them as every command does, and compare their classes with a model.

    Args:
        classes: How classes are numbered: one of :data:`dtn_det.datasets.folders.label_maps.CLASSES`, or None to decide
            by the folders' names.

    Returns:
        One result for the folder, and one more for each annotation file of a COCO data set. A folder with annotation
        files and no class folders has only the results of these files.
    """
    try:
        found = recognise(root)
    except ValueError as error:
        return [CheckResult(str(root), "", "a folder that is in doubt", problems=(str(error),))]
    facts = dict(_facts(found))
    if found.kind == "coco":
        files = [check_annotations(path, target, root) for path in find_annotations(root)]
        return [CheckResult(str(root), found.kind, found.title, facts, found.remarks), *files]
    if not found.folders and (annotations := sorted(root.glob("*.json"))):
        return [check_annotations(path, target) for path in annotations]
    try:
        images = _listed(found, classes)
    except ValueError as error:
        return [CheckResult(str(root), found.kind, found.title, facts, found.remarks, (str(error),))]
    facts |= _class_facts(found, images)
    fault, told = _against(found, images, target)
    told = () if fault else (*told, *_told(found, images, target))
    fits = None if target is None or fault is None else not fault
    problems = [fault] if fault else []
    problems += [*_one_class(found, images), *_unreadable(images)]
    return [CheckResult(str(root), found.kind, found.title, facts, (*images.remarks, *told), problems, fits)]


def _facts(found: Recognised) -> Iterator[tuple[str, Any]]:
    if found.dataset:
        yield "data set", found.dataset
    if found.sizes:
        yield "sizes of some images", sorted(f"{width} x {height}" for width, height in found.sizes)
    if found.kind == "corrupted" and (origin := open_tree(found).origin).made_by is not None:
        yield "corruption", str(origin)
    if found.corruptions is not None and (cells := found.corruptions.cells):
        names = sorted({name for name, _ in cells})
        yield "corruptions", names
        yield "severities", sorted({severity for _, severity in cells})
        wanted = [f"{name} {severity}" for name in catalog_for(names).benchmark for severity in SEVERITIES]
        yield "missing for mCE", [one for one in wanted if (one.split()[0], int(one.split()[1])) not in cells]
    if found.corruptions is not None and found.corruptions.unknown:
        yield "unknown corruptions", list(found.corruptions.unknown)


def _listed(found: Recognised, classes: str | None) -> LabelledImages:
    if found.kind == "corrupted":
        tree = open_tree(found)
        return list_tree(tree, sorted(tree.folders), classes)[0]
    if found.kind == "array_corruptions":
        return open_arrays(found.root).list_images((), None, 0)
    return label_set(found, classes, None, 0)


def _class_facts(found: Recognised, images: LabelledImages) -> dict[str, Any]:
    return {
        "images": images.num_found,
        "classes with images": images.num_folders,
        "classes": images.num_classes,
        "numbered by": images.labels.classes,
    }


def _one_class(found: Recognised, images: LabelledImages) -> list[str]:
    """Return a problem if all images are of one class."""
    try:
        images.check_classes(found.root)
    except InputError as error:
        return [f"{error} (`corrupt` takes it)"]
    return []


def _unreadable(images: LabelledImages) -> list[str]:
    """Read a sample of the images, and return a problem if any of them cannot be read."""
    bad = []
    looked_at = spread(images.images, LOOKED_AT)
    for image in looked_at:
        try:
            if image.row < 0:
                read_image(Path(image.path), upright=False)
            else:
                open_rows(image.path).row(image.row)
        except BadImageError as error:
            bad.append(f"{image.path}: {error}")
    return unreadable(bad, len(looked_at))


def _against(found: Recognised, images: LabelledImages, target: Target | None) -> tuple[str | None, tuple[Remark, ...]]:
    """Return why a model does not fit (empty if it fits, None if unknown), and remarks on how the classes match."""
    from dtn_det.robustness.classification.class_agreement import ClassSet

    if target is None:
        return None, ()
    if target.is_detector:
        return (
            f"expected the config of a classifier for {found.title}, got the detector {target.source}: name another, "
            "or a COCO data set"
        ), ()
    classes = ClassSet(found, images)
    if target.config is None:
        return _against_timm(classes, target)
    number = target.num_classes()
    own = "" if number in (None, images.num_classes) else classes.fault(number, target.source)
    if found.kind == "class_folders" and images.labels.classes != "imagenet":
        own = folder_fault(target.config, str(found.root)) or own
    return (own if own or number is not None else None), ()


def _against_timm(classes: ClassSet, target: Target) -> tuple[str | None, tuple[Remark, ...]]:
    """Do the comparison of :func:`_against` for a timm model, with the checkpoint that `dtn-det mce` would load."""
    if target.checkpoint or target.is_folder:
        source = f"{target.source}@{target.checkpoint}" if target.checkpoint else target.source
        try:
            fault, own, told = _as_mce(source, classes)
            return fault, (*own, *told)
        except InputError as error:
            return str(error), ()
    of_classes: list[Remark] = []
    compared = False
    for checkpoint in target.beside:
        try:
            fault, _, told = _as_mce(f"{target.source}@{checkpoint}", classes)
        # A checkpoint that cannot be loaded is reported by its own check.
        except CheckpointError:
            continue
        if fault:
            return fault, ()
        compared = True
        of_classes += told
    number = target.num_classes()
    if not compared and number == 0:
        return (
            f"expected a classifier, got {target.source}, which has no classifier: it gives features; name the "
            f"checkpoint of one, {target.source}@FILE"
        ), ()
    if not compared and number is not None and (fault := classes.english_names(number, target.source)):
        return fault, ()
    if compared or number in (None, classes.number):
        return (None if number is None and not compared else ""), tuple(of_classes)
    fault = classes.fault(number, target.source)
    return f"{fault}; with a checkpoint, {target.source}@FILE, dtn-det mce builds it for the classes of the data", ()


def _as_mce(source: str, classes: ClassSet) -> tuple[str, tuple[Remark, ...], tuple[Remark, ...]]:
    """Load a model as `dtn-det mce` does, and compare its classes with the classes of the data.

    Returns:
        The reason why the classes differ (empty if they agree), remarks on the model, and remarks on its classes.

    Raises:
        InputError: The model cannot be loaded.
    """
    from dtn_det.robustness.classification.class_agreement import align
    from dtn_det.robustness.classification.models.timm import load_timm

    try:
        model = load_timm(source, classes.number)
    except ClassCountError as error:
        return classes.fault(error.number, error.name), (), ()
    if model.num_classes not in (None, classes.number):
        return classes.fault(model.num_classes, model.name), (), ()
    try:
        return "", tuple(model.remarks), align(model, classes)[1]
    except InputError as error:
        return str(error), (), ()


def _told(found: Recognised, images: LabelledImages, target: Target | None) -> tuple[Remark, ...]:
    """Return a remark if `dtn-det mce` evaluates a folder of some ImageNet classes, but tools/train.py refuses it."""
    if target is None or target.config is None or target.is_detector or images.labels.classes != "imagenet":
        return ()
    fault = folder_fault(target.config, str(found.root)) if found.kind == "class_folders" else ""
    what = f"folder that dtn-det mce evaluates, and that tools/train.py and tools/test.py refuse: {fault}"
    return (Remark("refused_by_tools", what, str(found.root)),) if fault else ()
