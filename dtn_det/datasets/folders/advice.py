"""Advice on folders from which labelled images cannot be read."""

from __future__ import annotations

from pathlib import Path

from dtn_det.datasets.folders.image_files import look, peek
from dtn_det.datasets.folders.label_maps import SORT_IMAGENET


def advice(kind: str, root: Path) -> str:
    """Return advice on a folder from which labelled images cannot be read."""
    if kind == "unknown_corruptions":
        return (
            "name a folder of ImageNet-C's corruptions, C-bar's or 3DCC's, such as gaussian_noise/1, or sparkles/1.00 "
            "by the magnitudes of C-bar's generator, or of clean images to be corrupted"
        )
    if kind == "one_corruption":
        return f"name the folder above it, {root.resolve().parent}, and choose with --corruptions"
    if kind == "one_cell":
        above = root.resolve().parent.parent
        return f"name the folder of the corruptions, {above}, and choose with --corruptions and --severities"
    if kind == "arrays":
        return (
            "name a folder with an array NAME.npy for each corruption and labels.npy, as of CIFAR-10-C, or with one "
            "array of clean images, rows x height x width x 3 of uint8, and one of their labels"
        )
    if kind in ("array_corruptions", "array_images", "batches", "parquet"):
        return (
            "`dtn-det mce` evaluates classifiers on such files; elsewhere, name a folder of class folders, as "
            "tools/prepare_small_data.py of the repository makes them of CIFAR"
        )
    if kind == "coco":
        return "evaluate detectors on it with `dtn-det mpc`, or name a folder of class folders"
    if kind == "splits":
        folders = [root / name for name in ("test", *look(root).folders) if (root / name).is_dir()]
        sorted_ones = [folder for folder in folders if peek(folder).folders and not peek(folder).images]
        if not sorted_ones:
            return "sort the images of one of them into a folder of each class, and name it"
        return f"name one of them that has class folders, such as {sorted_ones[0]}"
    if kind == "images":
        return not_sorted(look(root).images, root)
    if kind == "unsorted":
        return (
            f"{SORT_IMAGENET}; an image whose name begins with a wnid, such as n01440764_10.JPEG, goes into the folder "
            "of that wnid"
        )
    if kind == "empty" and any(name.endswith(".npz") for name in look(root).others):
        return (
            "npz archives are not read; unpack their images into class folders, or name a folder of class folders, as "
            "tools/prepare_small_data.py of the repository makes them of CIFAR's own archive"
        )
    return "name the folder that holds the class folders"


def not_sorted(names: tuple[str, ...], root: Path) -> str:
    """Return what to do with images that do not lie in class folders."""
    if any(name.startswith("ILSVRC2012_val_") for name in names):
        return SORT_IMAGENET
    if files := annotations_beside(root):
        more = f", one of {len(files)}" if len(files) > 1 else ""
        return (
            f"the annotations of these images seem to lie in {files[0]}{more}: `dtn-det check {files[0]}` says what "
            "they hold, and `dtn-det mpc` evaluates detectors on them"
        )
    return "move each into the folder of its class"


def annotations_beside(root: Path) -> list[Path]:
    """Return the annotation files in an ``annotations`` folder near a folder of images, the likeliest first."""
    here = root.resolve()
    files = [file for folder in (here.parent, here.parent.parent) for file in folder.glob("annotations/*.json")]
    return sorted(files, key=lambda file: (here.name not in file.stem, not file.name.startswith("instances"), file))
