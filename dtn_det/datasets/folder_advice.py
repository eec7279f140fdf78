"""What to do with a folder whose images cannot be read with their classes."""

from __future__ import annotations

from pathlib import Path

from dtn_det.datasets.folder_contents import look

SORT_IMAGENET = (
    "sort ImageNet's validation images into DIR/<wnid>/ first, with valprep.sh of "
    "https://github.com/soumith/imagenetloader.torch run in that folder, or with torchvision.datasets.ImageNet("
    "DIR, 'val') where DIR has ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz"
)
"""How ImageNet's validation images get into folders of their classes."""


def advice(kind: str, root: Path) -> str:
    """What to do with a folder of a kind that has no classes to be read.

    Args:
        kind: One of :data:`dtn_det.datasets.recognise.Kind`.
        root: The folder.
    """
    if kind == "unknown_corruptions":
        return (
            "name a folder of ImageNet-C's corruptions, such as gaussian_noise/1, or of clean images to be corrupted "
            "by them; other corruptions are not evaluated yet"
        )
    if kind == "one_corruption":
        return f"name the folder above it, {root.resolve().parent}, and choose with --corruptions"
    if kind == "one_cell":
        above = root.resolve().parent.parent
        return f"name the folder of the corruptions, {above}, and choose with --corruptions and --severities"
    if kind == "arrays":
        return (
            "arrays are not read yet; name CIFAR's clean test images in class folders with --profile cifar-c, which "
            "tools/prepare_small_data.py of the repository unpacks"
        )
    if kind == "coco":
        return "evaluate detectors on it with `dtn-det mpc`, or name a folder of class folders"
    if kind == "splits":
        inner = next((name for name in ("test", *look(root).folders) if (root / name).is_dir()), "test")
        return f"name one of them, such as {root / inner}"
    if kind == "images":
        return not_sorted(look(root).images)
    return "name the folder that holds the class folders"


def not_sorted(names: tuple[str, ...]) -> str:
    """What to do with images that lie in no class folder."""
    if any(name.startswith("ILSVRC2012_val_") for name in names):
        return SORT_IMAGENET
    return "move each into the folder of its class"
