"""Clean images with their classes: ImageNet's folders, or class folders of any names."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dtn_det._optional import require
from dtn_det.corruptions.keys import WNID
from dtn_det.corruptions.layouts import Source, SourceImage, choose, class_folders, list_folder
from dtn_det.robustness.manifest import hash_lines

CLASSES = ("imagenet", "folder")
"""How classes are numbered: by ImageNet's list of wnids, or by the sorted names of the folders."""


@dataclass(frozen=True)
class LabelledImage:
    """An image with its class.

    Attributes:
        key: Its identity, ``<folder>/<file>``.
        path: Where it is.
        label: Number of its class.
    """

    key: str
    path: str
    label: int


@dataclass(frozen=True)
class LabelledImages:
    """The images of an evaluation.

    Attributes:
        images: In the order of their keys.
        num_classes: Of the label set, which may be more than there are folders.
        selection: Which of the folder's images these are: ``'all'`` or ``'limit=500 of 50000 seed=0'``.
    """

    images: tuple[LabelledImage, ...]
    num_classes: int
    selection: str

    @property
    def digest(self) -> str:
        """Tells sets of images apart by names, sizes and labels."""
        return hash_lines(f"{image.key} {file_size(image.path)} {image.label}" for image in self.images)


def file_size(path: str | Path) -> int:
    """Bytes of a file; -1 for a link that leads nowhere, which is told when its turn comes."""
    try:
        return os.stat(path).st_size
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return -1
        raise


def printable(path: str) -> str:
    """A path as text, with escapes for bytes that are none."""
    return path.encode("utf-8", "backslashreplace").decode()


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The thousand classes of ImageNet-1k by their WordNet ids, in the order of their numbers."""
    names: Iterable[str] = require("timm.data", "cls").ImageNetInfo("imagenet-1k").label_names()
    return tuple(names)


def guess_classes(root: Path) -> str:
    """``'imagenet'`` where folders are named by wnids, else ``'folder'``."""
    return "imagenet" if class_folders(root) or _inner(root) is not None else "folder"


def list_images(root: Path, classes: str, limit: int | None = None, limit_seed: int = 0) -> LabelledImages:
    """List a folder of class folders.

    Args:
        root: The folder, or for ImageNet one with ``val`` in it.
        classes: One of :data:`CLASSES`.
        limit: Take so many images, chosen at random, always the same ones.
        limit_seed: Of that choice.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no images, or a class folder whose class is not known.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of images, got {root}: there is no such folder")
    if classes == "imagenet":
        root = root if class_folders(root) else _inner(root) or root
        _check_wnids(root)
    by_wnid = classes == "imagenet" and class_folders(root)
    source = list_folder(root, "imagenet" if by_wnid else "plain")
    loose = [image for image in source.images if not _folder(image)]
    if loose:
        raise ValueError(_not_sorted(loose[0].target.name, root))
    numbers = class_numbers((_folder(image) for image in source.images), classes, root)
    images = select(source, limit, limit_seed)
    return LabelledImages(
        tuple(LabelledImage(str(image.key), str(image.path), numbers[_folder(image)]) for image in images),
        len(imagenet_wnids()) if classes == "imagenet" else len(numbers),
        selection_name(limit, len(source.images), limit_seed),
    )


def class_numbers(folders: Iterable[str], classes: str, root: Path) -> dict[str, int]:
    """The class of each folder.

    Args:
        folders: Their names.
        classes: One of :data:`CLASSES`.
        root: What they lie in, for messages.

    Raises:
        ValueError: A folder that is none of the classes.
    """
    names = sorted(set(folders))
    if classes == "folder":
        return {name: number for number, name in enumerate(names)}
    known = {wnid: number for number, wnid in enumerate(imagenet_wnids())}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(_not_a_class(unknown, root))
    return {name: known[name] for name in names}


def select(source: Source, limit: int | None, seed: int) -> Sequence[SourceImage]:
    """A fixed part of the images, as ``dtn-det corrupt --limit`` takes it."""
    return source.images if limit is None else choose(source, limit, seed)


def selection_name(limit: int | None, total: int, seed: int) -> str:
    """How a selection is called in a store."""
    return "all" if limit is None or limit >= total else f"limit={limit} of {total} seed={seed}"


def _inner(root: Path) -> Path | None:
    """The ``val`` folder in a folder, if class folders are in there."""
    inner = root / "val"
    return inner if inner.is_dir() and class_folders(inner) else None


def _check_wnids(root: Path) -> None:
    others = sorted(
        entry.name
        for entry in root.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and not WNID.fullmatch(entry.name)
    )
    if others:
        raise ValueError(_not_a_class(others, root))


def _not_a_class(names: Sequence[str], root: Path) -> str:
    listed = ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"expected class folders of ImageNet-1k such as n01440764 in {root}, got {listed}: move them away, or number "
        "the classes by the folders' names with --classes folder"
    )


def _not_sorted(name: str, root: Path) -> str:
    advice = "move each into the folder of its class"
    if name.startswith("ILSVRC2012_val_"):
        advice = (
            "sort ImageNet's validation images into DIR/<wnid>/ first, with valprep.sh of "
            "https://github.com/soumith/imagenetloader.torch run in that folder, or with torchvision.datasets.ImageNet("
            "DIR, 'val') where DIR has ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz"
        )
    return f"expected each image in a folder named by its class, got {name!r} in {root} itself: {advice}"


def _folder(image: SourceImage) -> str:
    return image.target.parts[0] if len(image.target.parts) > 1 else ""
