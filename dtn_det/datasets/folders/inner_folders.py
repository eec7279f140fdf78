"""Folders of images inside class folders, as in Places365. Their images all count as the class of the outer folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dtn_det.datasets.folders.image_files import peek, subfolders
from dtn_det.datasets.remarks import Remark, agreeing

# A limit on the depth, because links may lead in circles.
_DEEPEST = 8


def inner_folders(root: Path, folders: Sequence[str]) -> tuple[str, ...]:
    """Find folders of images inside class folders, and the class folders that hold images beside such folders.

    Returns:
        Sorted paths within ``root``, such as ``'a/airfield'``, or ``'a'`` if the class folder ``a`` has images of its
        own beside those of inner folders. The result is empty if the images of each class folder lie in one folder, as
        in the training set of Tiny-ImageNet, because then no class is made of several folders.
    """
    found: list[str] = []
    num_classes = 0
    for name in folders:
        contents = peek(root / name)
        inside = [*_with_images(root, name, _DEEPEST)] if contents.folders else []
        if inside:
            num_classes += 1
            found += [name, *inside] if contents.images else inside
    return tuple(sorted(found)) if len(found) > num_classes else ()


def _with_images(root: Path, folder: str, depth: int) -> Iterator[str]:
    try:
        names = subfolders(os.path.join(root, folder)) if depth else []
    # The error is reported later, when the whole folder is read.
    except OSError:
        return
    for name in names:
        path = f"{folder}/{name}"
        if peek(root / path).images:
            yield path
        else:
            yield from _with_images(root, path, depth - 1)


def num_inner_classes(inner: Sequence[str], folders: Sequence[str]) -> int:
    """Count the classes if each inner folder were a class: the inner folders, and the class folders without any."""
    return len(inner) + len({*folders} - _outer(inner))


def pooled_remarks(inner: Sequence[str], where: object) -> tuple[Remark, ...]:
    """Return a remark that images in inner folders count as the class of the outer folder; none without any."""
    if not inner:
        return ()
    classes = agreeing(len(_outer(inner)), f"{len(_outer(inner)):,} {{class|classes}}")
    what = (
        f"inner folders of images were pooled into {classes}, those of the class folders around them; if each is a "
        f"class of its own, {one_folder_per_class(inner)}"
    )
    within = nested(inner)
    return (Remark("pooled_folders", what, str(where), len(within), within[:3]),)


def nested(inner: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that lie inside class folders, without the class folders that hold images too."""
    return tuple(path for path in inner if "/" in path)


def one_folder_per_class(inner: Sequence[str]) -> str:
    """Return advice on how to make class folders of inner folders."""
    first = nested(inner)[0]
    return f"lay them out as one folder per class, {first} as {first.replace('/', '_')}"


def _outer(inner: Sequence[str]) -> set[str]:
    return {path.partition("/")[0] for path in inner}
