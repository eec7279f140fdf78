"""A first look at a folder: what lies in it and how large its images are, without listing all of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dtn_det.datasets.folders.image_files import is_folder, is_image_name, is_litter

_ENOUGH = 64
_SAMPLES = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Contents:
    """Names of what lies in a folder, litter aside, each list sorted.

    Attributes:
        folders: Folders, and links to them.
        images: Files that end like images.
        others: Other files.
    """

    folders: tuple[str, ...]
    images: tuple[str, ...]
    others: tuple[str, ...]


def look(folder: str | os.PathLike[str], most: int | None = None) -> Contents:
    """List one level of a folder.

    Args:
        folder: The folder.
        most: Look at no more than so many entries, in the order in which the file system names them; None for all.

    Raises:
        OSError: It cannot be read.
    """
    folders: list[str] = []
    images: list[str] = []
    others: list[str] = []
    with os.scandir(folder) as entries:
        for entry in itertools.islice((one for one in entries if not is_litter(one.name)), most):
            if is_folder(entry):
                folders.append(entry.name)
            else:
                (images if is_image_name(entry.name) else others).append(entry.name)
    return Contents(tuple(sorted(folders)), tuple(sorted(images)), tuple(sorted(others)))


def peek(folder: str | os.PathLike[str]) -> Contents:
    """Look at a few entries of a folder, enough to tell folders of folders from folders of images."""
    try:
        return look(folder, _ENOUGH)
    # What cannot be read is told when its turn comes.
    except OSError:
        return Contents((), (), ())


def spread(items: Sequence[T], count: int = _SAMPLES) -> Sequence[T]:
    """A few items from the whole of a list, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[number * (len(items) - 1) // (count - 1)] for number in range(count)]


def sample_images(root: Path, folders: Sequence[str]) -> list[Path]:
    """An image of each of a few folders, the first by its name among a few."""
    found = (_first_image(root / folder, depth=2) for folder in spread(folders))
    return [path for path in found if path is not None]


def _first_image(folder: Path, depth: int) -> Path | None:
    contents = peek(folder)
    if contents.images:
        return folder / contents.images[0]
    inner: Iterator[Path | None] = (_first_image(folder / name, depth - 1) for name in contents.folders if depth)
    return next((path for path in inner if path is not None), None)


def image_sizes(paths: Sequence[Path]) -> frozenset[tuple[int, int]]:
    """Width and height of images, from their headers; those that cannot be read are told when their turn comes."""
    from PIL import Image

    sizes = set()
    for path in paths:
        # Whoever opens a pipe waits for the other end, and Pillow meets bad files with many kinds of errors.
        if not path.is_file():
            continue
        try:
            with Image.open(path) as picture:
                sizes.add(picture.size)
        except Exception:
            continue
    return frozenset(sizes)


def square_side(sizes: frozenset[tuple[int, int]]) -> int | None:
    """The side of images that are squares of one size, else None."""
    if len(sizes) != 1:
        return None
    ((width, height),) = sizes
    return width if width == height else None
