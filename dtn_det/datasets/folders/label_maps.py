"""Which class each folder stands for: by its name, never by its place in a listing of another folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from dtn_det._optional import require
from dtn_det.corruptions.stream import WNID
from dtn_det.datasets.folders.image_files import quoted
from dtn_det.errors import InputError

CLASSES = ("imagenet", "folder", "sorted", "natural")
"""How classes are numbered: by ImageNet's list of wnids; by the names of the folders, where whole numbers without gaps
are the classes themselves, counted from 0 or from 1, and words are sorted; by the text order of any names, in which
torchvision's ImageFolder and mmpretrain number ``10`` before ``2``; or by the natural order of any names, in which
timm's training numbers ``2`` before ``10`` and does not tell capitals apart."""

IMAGENET_CLASSES = 1000
"""Of ImageNet-1k."""

SORT_IMAGENET = (
    "sort ImageNet's validation images into DIR/<wnid>/ first, with valprep.sh of "
    "https://github.com/soumith/imagenetloader.torch run in that folder, or with torchvision.datasets.ImageNet("
    "DIR, 'val') where DIR has ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz"
)
"""How ImageNet's validation images get into folders of their classes."""

_BY_ORDER = (
    "number the folders by the order of their names, 2 before 10 as timm does with --classes natural, or 10 before 2 "
    "as torchvision and mmpretrain do with --classes sorted"
)

NUMBER = re.compile(r"[0-9]+")
"""Name of a class folder that is the number of its class, such as ImageNet-V2 has them."""


@dataclass(frozen=True)
class LabelMap:
    """The classes of a set of folders.

    Attributes:
        classes: How they are numbered: one of :data:`CLASSES`.
        numbers: The class of each folder.
        names: Of all classes, in the order of their numbers: wnids for ImageNet, else the folders' names.
    """

    classes: str
    numbers: Mapping[str, int]
    names: tuple[str, ...]

    @property
    def from_one(self) -> bool:
        """Whether folders are named by numbers from 1 on, one more than those of their classes."""
        return naming(self.numbers) == "numbers" and all(int(name) == n + 1 for name, n in self.numbers.items())

    @property
    def num_classes(self) -> int:
        """Of the label set, which may be more than there are folders."""
        return len(self.names)


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The thousand classes of ImageNet-1k by their WordNet ids, in the order of their numbers."""
    names: Iterable[str] = require("timm.data", "cls").ImageNetInfo("imagenet-1k").label_names()
    return tuple(names)


@cache
def imagenet_subset(name: str) -> frozenset[str]:
    """The wnids of a robustness set of 200 classes, as timm lists them; none where timm is not installed.

    Args:
        name: ``'imagenet_r'`` or ``'imagenet_a'``.
    """
    try:
        text = (resources.files("timm.data") / "_info" / f"{name}_synsets.txt").read_text()
    except (ImportError, OSError):
        return frozenset()
    return frozenset(text.split())


def naming(names: Iterable[str]) -> str:
    """``'wnids'`` where a folder is named by one, ``'numbers'`` where all names are whole numbers, else ``'names'``."""
    names = list(names)
    if any(WNID.fullmatch(name) for name in names):
        return "wnids"
    return "numbers" if names and all(NUMBER.fullmatch(name) for name in names) else "names"


def natural_order(names: Iterable[str]) -> list[str]:
    """Names in the order in which timm numbers the folders of a training: ``class2`` before ``class10``.

    Numbers within names are compared as numbers, letters without regard to their case.
    """

    def key(name: str) -> list[int | str]:
        parts = re.split(r"(\d+)", name.lower())
        return [int(part) if place % 2 else part for place, part in enumerate(parts)]

    return sorted(sorted(names), key=key)


def guess_numbering(names: Sequence[str]) -> str:
    """How the classes of folders are numbered if nobody says so: one of :data:`CLASSES`.

    Wnids are ImageNet's, and so are a thousand folders that are named by whole numbers, as those of ImageNet-V2.
    """
    kind = naming(names)
    return "imagenet" if kind == "wnids" or (kind == "numbers" and len(names) == IMAGENET_CLASSES) else "folder"


def map_labels(names: Iterable[str], classes: str, root: Path | str) -> LabelMap:
    """Number the classes.

    Args:
        names: Of the folders, those without images too.
        classes: One of :data:`CLASSES`.
        root: What they lie in, for messages.

    Raises:
        InputError: A folder that is none of the classes, two folders of one number, numbers with gaps, or the numbers
            of ImageNet's devkit.
    """
    names = sorted(set(names))
    _check_forms(names, root)
    if classes in ("sorted", "natural") or (classes == "folder" and naming(names) != "numbers"):
        names = natural_order(names) if classes == "natural" else names
        return LabelMap(classes, {name: number for number, name in enumerate(names)}, tuple(names))
    if naming(names) == "numbers":
        _check_devkit(names, root)
    return _map_imagenet(names, root) if classes == "imagenet" else _map_numbers(names, classes, root)


def _check_devkit(names: Sequence[str], root: Path | str) -> None:
    """Refuse folders 1 to 1000, which are most likely the ids of ImageNet's devkit: its classes in another order."""
    numbers = {int(name) for name in names}
    if numbers == {*range(1, IMAGENET_CLASSES + 1)}:
        raise InputError(
            f"expected folders named by wnids, or 0 to 999, for ImageNet's classes in {root}, got 1 to 1000: the "
            "devkit of ILSVRC2012 numbers them so, but in another order than models are trained in; "
            f"{SORT_IMAGENET}; or, for classes of your own, take --classes natural, which makes folder 1 class 0"
        )


def _map_numbers(names: Sequence[str], classes: str, root: Path | str) -> LabelMap:
    """Numbers without gaps are the classes, counted from 0 or from 1."""
    numbers = _numbers(names, root)
    first = 1 if min(numbers.values()) == 1 else 0
    missing = sorted({*range(first, len(names) + first)} - {*numbers.values()})
    if missing:
        raise InputError(
            f"expected folders named {first} to {len(names) + first - 1} for {len(names):,} classes in {root}, got "
            f"none for {quoted([str(number) for number in missing])}, and {quoted(names)}: make an empty folder for "
            f"each class that has no images, or {_BY_ORDER}"
        )
    return LabelMap(classes, {name: number - first for name, number in numbers.items()}, tuple(sorted(names, key=int)))


def _check_forms(names: Sequence[str], root: Path | str) -> None:
    """Unicode writes some letters in two forms, of which file systems make two folders of one name."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise InputError(
                f"expected one folder for each class in {root}, got {other!a} and {name!a}, one name in two "
                "forms of Unicode: move the images of one into the other"
            )


def _map_imagenet(names: Sequence[str], root: Path | str) -> LabelMap:
    wnids = imagenet_wnids()
    if naming(names) == "numbers":
        numbers = _numbers(names, root)
        beyond = [name for name, number in numbers.items() if number >= len(wnids)]
        if beyond:
            raise InputError(
                f"expected folders named 0 to {len(wnids) - 1} for ImageNet's classes in {root}, got {quoted(beyond)}: "
                f"name them so, or {_BY_ORDER}"
            )
        return LabelMap("imagenet", numbers, wnids)
    known = {wnid: number for number, wnid in enumerate(wnids)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"expected class folders of ImageNet-1k such as n01440764 in {root}, got {quoted(unknown)}: move them "
            "away, or number the classes by the folders' names with --classes folder"
        )
    return LabelMap("imagenet", {name: known[name] for name in names}, wnids)


def _numbers(names: Sequence[str], root: Path | str) -> dict[str, int]:
    numbers: dict[int, str] = {}
    for name in names:
        other = numbers.setdefault(int(name), name)
        if other != name:
            raise InputError(
                f"expected one folder for class {int(name)} in {root}, got {other!r} and {name!r}: move the images of "
                "one into the other"
            )
    return {name: number for number, name in numbers.items()}
