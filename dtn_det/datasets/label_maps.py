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
from dtn_det.datasets.image_files import quoted

CLASSES = ("imagenet", "folder", "sorted")
"""How classes are numbered: by ImageNet's list of wnids; by the names of the folders, where whole numbers are the
classes themselves and words are sorted; or by the text order of any names, in which torchvision's ImageFolder and
mmpretrain number ``10`` before ``2``."""

WNID = re.compile(r"n\d{8}")
"""Name of a class folder of ImageNet."""

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


def guess_numbering(names: Sequence[str]) -> str:
    """How the classes of folders are numbered if nobody says so: one of :data:`CLASSES`.

    Wnids are ImageNet's, and so are a thousand folders that are named by whole numbers, as those of ImageNet-V2.
    """
    kind = naming(names)
    return "imagenet" if kind == "wnids" or (kind == "numbers" and len(names) == 1000) else "folder"


def map_labels(names: Iterable[str], classes: str, root: Path | str) -> LabelMap:
    """Number the classes.

    Args:
        names: Of the folders, those without images too.
        classes: One of :data:`CLASSES`.
        root: What they lie in, for messages.

    Raises:
        ValueError: A folder that is none of the classes, two folders of one number, or numbers with gaps.
    """
    names = sorted(set(names))
    _check_forms(names, root)
    if classes == "sorted" or (classes == "folder" and naming(names) != "numbers"):
        return LabelMap(classes, {name: number for number, name in enumerate(names)}, tuple(names))
    if classes == "imagenet":
        return _map_imagenet(names, root)
    numbers = _numbers(names, root)
    missing = sorted({*range(len(names))} - {*numbers.values()})
    if missing:
        raise ValueError(
            f"expected folders named 0 to {len(names) - 1} for {len(names):,} classes in {root}, got none for "
            f"{quoted([str(number) for number in missing])}, and {quoted(names)}: rename them to the numbers of their "
            "classes, or number them by the text order of their names with --classes sorted"
        )
    return LabelMap(classes, numbers, tuple(sorted(names, key=int)))


def _check_forms(names: Sequence[str], root: Path | str) -> None:
    """Unicode writes some letters in two forms, of which file systems make two folders of one name."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise ValueError(
                f"expected one folder for each class in {root}, got {other!a} and {name!a}, one name in two "
                "forms of Unicode: move the images of one into the other"
            )


def _map_imagenet(names: Sequence[str], root: Path | str) -> LabelMap:
    wnids = imagenet_wnids()
    if naming(names) == "numbers":
        numbers = _numbers(names, root)
        beyond = [name for name, number in numbers.items() if number >= len(wnids)]
        if beyond:
            raise ValueError(
                f"expected folders named 0 to {len(wnids) - 1} for ImageNet's classes in {root}, got {quoted(beyond)}: "
                "number the classes by the folders' names with --classes folder"
            )
        return LabelMap("imagenet", numbers, wnids)
    known = {wnid: number for number, wnid in enumerate(wnids)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"expected class folders of ImageNet-1k such as n01440764 in {root}, got {quoted(unknown)}: move them "
            "away, or number the classes by the folders' names with --classes folder"
        )
    return LabelMap("imagenet", {name: known[name] for name in names}, wnids)


def _numbers(names: Sequence[str], root: Path | str) -> dict[str, int]:
    numbers: dict[int, str] = {}
    for name in names:
        other = numbers.setdefault(int(name), name)
        if other != name:
            raise ValueError(
                f"expected one folder for class {int(name)} in {root}, got {other!r} and {name!r}: move the images of "
                "one into the other"
            )
    return {name: number for number, name in numbers.items()}
