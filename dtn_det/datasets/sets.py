"""Read clean images with their classes from any layout."""

from __future__ import annotations

from pathlib import Path

from dtn_det.datasets.arrays.clean import list_rows
from dtn_det.datasets.folders.class_folders import check_clean, label_images
from dtn_det.datasets.folders.label_maps import IMAGENET_CLASSES, imagenet_subset, naming
from dtn_det.datasets.folders.recognise import Recognised, recognise
from dtn_det.datasets.labelled import LabelledImages
from dtn_det.datasets.real_labels import check_numbered_folders
from dtn_det.errors import InputError

ROWS = ("array_images", "batches", "parquet")
"""The kinds of sets whose images are rows of a file: see :func:`dtn_det.datasets.arrays.clean.list_rows`."""


def list_set(root: Path, classes: str | None = None, limit: int | None = None, limit_seed: int = 0) -> LabelledImages:
    """List the images of a clean set: class folders, a pair of arrays, CIFAR's own batches, or a Parquet file.

    Args:
        root: A folder, or a Parquet file.
        classes: How class folders are numbered; None to decide by their names.
        limit: Largest number of images. They are chosen at random, the same ones in every run.

    Raises:
        FileNotFoundError: There is no such folder or file.
        InputError: The path is not a clean set, holds no images, or holds an image whose class is not known.
    """
    return label_set(recognise(root), classes, limit, limit_seed)


def label_set(found: Recognised, classes: str | None, limit: int | None, limit_seed: int) -> LabelledImages:
    """List the images of a clean set that was recognised: see :func:`list_set`."""
    check_set(found, classes)
    if found.kind not in ROWS:
        images = label_images(found, classes, limit, limit_seed)
        if found.dataset == "ImageNet" and images.labels.classes == "imagenet" and naming(found.folders) == "numbers":
            check_numbered_folders(images, found.root)
        return images
    return list_rows(found.kind, found.root, limit, limit_seed)


NATURAL = ("ImageNet-R", "ImageNet-A", "ImageNet-V2", "ImageNet-Sketch")
"""Sets of natural shifts, whose images are evaluated as they are if the user names no corruptions."""


def check_set(found: Recognised, classes: str | None = None) -> None:
    """Check that a set holds clean images and that its classes can be numbered as the user wants.

    Raises:
        InputError: The set is not clean, or ``classes`` is given although the set itself numbers its classes.
    """
    if found.kind not in ROWS:
        check_clean(found)
    elif classes is not None:
        raise InputError(
            f"expected --classes with class folders only, got {found.title} in {found.root}, whose labels are the "
            "numbers of the classes: leave --classes out"
        )


def set_title(dataset: str, profile: str, *, corrupted: bool, real: bool = False) -> str:
    """Return the name of a set for readers, such as ``ImageNet-C`` or ``ImageNet-R``.

    Args:
        dataset: Name of the data set as it was recognised, such as ``ImageNet-R``; empty if it is not known.
        profile: Profile of the corruptions; it counts only where clean images are corrupted.
        corrupted: Whether the set has corrupted images.
        real: Whether the images have Real labels.

    Returns:
        The name; empty if the data set is not known.
    """
    if not dataset:
        return ""
    known = not corrupted or dataset.endswith(("-C", "-C-bar", "-3DCC"))
    made = "" if known else "-C-bar" if profile.endswith("-bar") else "-C"
    return f"{dataset}{made}{' Real' if real else ''}"


def set_name(title: str) -> str:
    """Return the name of a set in commands and folders, such as ``imagenet-c``, from that for readers."""
    return title.lower().replace(" ", "-")


def candidates(found: Recognised) -> list[str]:
    """Return what class folders that were not recognised could be, the likeliest first."""
    own = "a set of your own"
    folders = set(found.folders)
    if found.kind != "class_folders" or naming(found.folders) != "wnids":
        return [own]
    parts = [title for title in NATURAL[:2] if folders <= imagenet_subset(title.lower().replace("-", "_"))]
    whole = ["ImageNet's validation set", "ImageNet-Sketch"] if len(folders) <= IMAGENET_CLASSES else []
    return [*parts, *whole, own]
