"""Number class folders by their names, and compare these names with the names of a model's classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from dtn_det._optional import require
from dtn_det.corruptions.stream import WNID
from dtn_det.datasets.folders.image_files import quoted
from dtn_det.errors import InputError

SUBSETS = {"imagenet-r": "ImageNet-R", "imagenet-a": "ImageNet-A"}
"""Ways to number classes of which each keeps 200 of ImageNet's, and the set that has these classes."""

CLASSES = ("imagenet", "folder", "sorted", "natural", *SUBSETS)
"""How classes are numbered.

* ``imagenet``: by ImageNet's list of wnids.
* ``folder``: by the names of the folders. Whole numbers without gaps, from 0 or from 1, are the numbers of the
  classes; words are sorted.
* ``sorted``: by the text order of any names, ``10`` before ``2``, as torchvision's ImageFolder and mmpretrain do.
* ``natural``: by the natural order of any names, ``2`` before ``10`` without regard to case, as timm's training does.
* ``imagenet-r``, ``imagenet-a``: by ImageNet's list of wnids, those 200 alone that ImageNet-R or ImageNet-A has. Of a
  model's 1,000 logits those of these classes count.
"""

IMAGENET_CLASSES = 1000
"""Number of classes of ImageNet-1k."""

SORT_IMAGENET = (
    "sort ImageNet's validation images into DIR/<wnid>/ first, with valprep.sh of "
    "https://github.com/soumith/imagenetloader.torch run in that folder, or with torchvision.datasets.ImageNet("
    "DIR, 'val') where DIR has ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz"
)
"""Advice for users on sorting ImageNet's validation images into class folders, as part of a sentence."""

_BY_ORDER = (
    "number the folders by the order of their names, 2 before 10 as timm does with --classes natural, or 10 before 2 "
    "as torchvision and mmpretrain do with --classes sorted"
)

NUMBER = re.compile(r"[0-9]+")
"""Pattern of the name of a class folder that is the number of its class, as in ImageNet-V2."""


@dataclass(frozen=True)
class LabelMap:
    """The classes of a set of folders.

    Attributes:
        classes: How the classes are numbered, one of :data:`CLASSES`.
        numbers: The class number of each folder, by the folder's name.
        names: Names of all classes, in the order of their numbers: wnids for ImageNet, else the folders' names.
        places: Index of each class among ImageNet's 1,000 classes, if only the logits of these classes are used. Empty
            if all logits are used.
    """

    classes: str
    numbers: Mapping[str, int]
    names: tuple[str, ...]
    places: tuple[int, ...] = ()

    @property
    def from_one(self) -> bool:
        """True if the folders are named by numbers from 1, so that folder 1 is class 0."""
        return naming(self.numbers) == "numbers" and all(int(name) == n + 1 for name, n in self.numbers.items())

    @property
    def num_classes(self) -> int:
        """Number of classes in the label set, which may be larger than the number of folders."""
        return len(self.names)


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet-1k's thousand classes, in the order of the classes."""
    names: Iterable[str] = require("timm.data", "cls").ImageNetInfo("imagenet-1k").label_names()
    return tuple(names)


@cache
def imagenet_subset(name: str) -> frozenset[str]:
    """Return the 200 wnids of ImageNet-R or ImageNet-A, as timm lists them; an empty set if timm is not installed.

    Args:
        name: ``'imagenet_r'`` or ``'imagenet_a'``.
    """
    try:
        text = (resources.files("timm.data") / "_info" / f"{name}_synsets.txt").read_text()
    except (ImportError, OSError):
        return frozenset()
    return frozenset(text.split())


def naming(names: Iterable[str]) -> str:
    """Return ``'wnids'`` if any name is a wnid, ``'numbers'`` if all names are whole numbers, else ``'names'``."""
    names = list(names)
    if any(WNID.fullmatch(name) for name in names):
        return "wnids"
    return "numbers" if names and all(NUMBER.fullmatch(name) for name in names) else "names"


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names in the order in which timm numbers folders of classes: ``class2`` before ``class10``.

    Numbers within names are compared as numbers, and letters without regard to case.
    """

    def key(name: str) -> list[int | str]:
        parts = re.split(r"(\d+)", name.lower())
        return [int(part) if place % 2 else part for place, part in enumerate(parts)]

    return sorted(sorted(names), key=key)


def guess_numbering(names: Sequence[str]) -> str:
    """Return the numbering of classes that the folders' names suggest: one of :data:`CLASSES`.

    Folders with wnids as names are ImageNet's classes, and so are 1,000 folders named by whole numbers, as in
    ImageNet-V2.
    """
    kind = naming(names)
    return "imagenet" if kind == "wnids" or (kind == "numbers" and len(names) == IMAGENET_CLASSES) else "folder"


def map_labels(names: Iterable[str], classes: str, root: Path | str) -> LabelMap:
    """Number the classes of folders.

    Args:
        names: Names of the folders, including folders without images.
        classes: One of :data:`CLASSES`.

    Raises:
        InputError: A folder is not one of the classes, two folders have the same number, the numbers have gaps, or the
            numbers are ids of ImageNet's devkit.
    """
    names = sorted(set(names))
    _check_forms(names, root)
    if classes in SUBSETS:
        return _map_subset(names, classes, root)
    if classes in ("sorted", "natural") or (classes == "folder" and naming(names) != "numbers"):
        names = natural_order(names) if classes == "natural" else names
        return LabelMap(classes, {name: number for number, name in enumerate(names)}, tuple(names))
    if naming(names) == "numbers":
        _check_devkit(names, root)
    return _map_imagenet(names, root) if classes == "imagenet" else _map_numbers(names, classes, root)


def _check_devkit(names: Sequence[str], root: Path | str) -> None:
    """Refuse folders 1 to 1000, most likely ids of ImageNet's devkit, which numbers the classes in another order."""
    numbers = {int(name) for name in names}
    if numbers == {*range(1, IMAGENET_CLASSES + 1)}:
        raise InputError(
            f"expected folders named by wnids, or 0 to 999, for ImageNet's classes in {root}, got 1 to 1000: the "
            "devkit of ILSVRC2012 numbers them so, but in another order than models are trained in; "
            f"{SORT_IMAGENET}; or, for classes of your own, take --classes natural, which makes folder 1 class 0"
        )


def _map_numbers(names: Sequence[str], classes: str, root: Path | str) -> LabelMap:
    """Use the numbers in the folders' names as class numbers. They must start at 0 or 1 and have no gaps."""
    numbers = _numbers(names, root)
    first = 1 if min(numbers.values()) == 1 else 0
    missing = sorted({*range(first, len(names) + first)} - {*numbers.values()})
    if missing:
        raise InputError(
            f"expected folders named {first} to {len(names) + first - 1} for {len(names):,} classes in {root}, got "
            f"none for {quoted([str(number) for number in missing])}, and {quoted(names)}: make an empty folder for "
            f"each class that has no images, or {_BY_ORDER}; where they are the numbers of ImageNet's classes, take "
            "--classes imagenet"
        )
    return LabelMap(classes, {name: number - first for name, number in numbers.items()}, tuple(sorted(names, key=int)))


def _check_forms(names: Sequence[str], root: Path | str) -> None:
    """Refuse two folders whose names differ only in how Unicode encodes a letter."""
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


def _map_subset(names: Sequence[str], classes: str, root: Path | str) -> LabelMap:
    """Number the 200 classes of a set in ImageNet's order, and leave out ImageNet's other classes."""
    everything = _map_imagenet(names, root).numbers
    wnids, subset = imagenet_wnids(), imagenet_subset(classes.replace("-", "_"))
    places = tuple(place for place, wnid in enumerate(wnids) if wnid in subset)
    known = {place: number for number, place in enumerate(places)}
    numbers = {name: known[place] for name, place in everything.items() if place in known}
    return LabelMap(classes, numbers, tuple(wnids[place] for place in places), places)


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


def plain_name(name: str) -> str:
    """Return the plain form of a name.

    Capitals become small letters, dashes and underscores become blanks, and letters get one Unicode encoding. Numbers
    lose their leading zeros.

    >>> plain_name("Polar_Bear"), plain_name("007")
    ('polar bear', '7')
    """
    if NUMBER.fullmatch(name):
        return str(int(name))
    folded = unicodedata.normalize("NFC", name).casefold()
    return unicodedata.normalize("NFC", folded).replace("_", " ").replace("-", " ").strip()


def names_to_mend(extra: Sequence[str], missing: Sequence[str]) -> str:
    """Return advice on how to make the names of folders equal to the names of a model's classes.

    Args:
        extra: Folders whose names are not classes of the model.
        missing: Names of the model's classes that no folder has.
    """
    leave = f"leave out the {_folders(extra)}, which the model does not know" if extra else ""
    make = f"make {'an empty' if len(missing) == 1 else 'empty'} {_folders(missing)}" if missing else ""
    rename = f", or rename {'it' if len(extra) == 1 else 'them'} where the class is the same" if leave and make else ""
    return ", and ".join(filter(None, (leave, make))) + rename


def _folders(names: Sequence[str]) -> str:
    return f"folder{'' if len(names) == 1 else 's'} {quoted(names)}"


_FEWEST, _SHARE = 10, 0.9


@cache
def wnids_by_name() -> Mapping[str, tuple[str, ...]]:
    """Map the first English name of each ImageNet class to the wnids with this name; empty if timm is not installed.

    Only the letters of each name are kept. Two names, crane and maillot, are shared by two classes each.
    """
    try:
        info = require("timm.data", "cls").ImageNetInfo("imagenet-1k")
    except ImportError:
        return MappingProxyType({})
    found: dict[str, tuple[str, ...]] = {}
    for wnid in imagenet_wnids():
        name = _letters(info.label_name_to_description(wnid).partition(",")[0])
        found[name] = (*found.get(name, ()), wnid)
    return MappingProxyType(found)


def has_english_names(folders: Sequence[str], fewest: int = _FEWEST) -> bool:
    """Return whether folders have the English names of ImageNet's classes.

    Args:
        folders: Names of the folders, of which 9 of 10 must be names of ImageNet's classes. Only letters are compared,
            without regard to case, so ``crane_2`` equals ``Crane``.
        fewest: Smallest number of folders for which names are evidence.
    """
    known = {name.casefold() for name in wnids_by_name()}
    matches = sum(_letters(name).casefold() in known for name in folders)
    return len(folders) >= fewest and matches >= _SHARE * len(folders)


def names_of_two_classes(folders: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the possible wnids of each folder whose name is shared by several of ImageNet's classes."""
    known = wnids_by_name()
    wnids = {name: known.get(_letters(name), ()) for name in sorted(folders)}
    return {name: several for name, several in wnids.items() if len(several) > 1}


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]+", "", name)
