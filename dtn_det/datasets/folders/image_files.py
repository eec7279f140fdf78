"""Which files of a folder are images, what else lies in it, and how large the images are, without listing all of it."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TypeVar

from dtn_det.datasets.remarks import Remark, agreeing

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
SUFFIXES = (
    *JPEG_SUFFIXES,
    *(".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".tga", ".avif"),
)
"""Endings, in lower case, of the files that are read as images: those of pictures that Pillow reads."""

# Made by file browsers and archivers on the way of the data: nothing that a data set consists of.
_LITTER = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found")
)
_NO_ENDING = "no ending"
_SHOWN = 5
_PASSED_OVER = "{file that does not end like an image was|files that do not end like images were} passed over"


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like that of an image."""
    return name.lower().endswith(SUFFIXES)


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or was left by a file browser or an archiver."""
    return name.startswith(".") or name.lower() in _LITTER


@dataclass
class OtherFiles:
    """Files that are passed over because they do not end like images, by their endings.

    Attributes:
        count: Of each ending, in lower case.
        example: The first one of each by its path.
    """

    count: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    example: dict[str, str] = field(default_factory=dict)

    def add(self, path: str) -> None:
        """Count a file."""
        ending = PurePath(path).suffix.lower() or _NO_ENDING
        self.count[ending] += 1
        self.example[ending] = min(path, self.example.get(ending, path))

    def remarks(self, where: object) -> tuple[Remark, ...]:
        """One remark that says how many files of which endings there are, or none."""
        if not self.count:
            return ()
        count = sum(self.count.values())
        endings = sorted(self.count, key=lambda ending: (-self.count[ending], ending))
        listed = ", ".join(f"{self.count[ending]:,} {ending}" for ending in endings[:_SHOWN])
        more = f" and {len(endings) - _SHOWN} more endings" if len(endings) > _SHOWN else ""
        return (
            Remark(
                "other_files",
                f"{agreeing(count, _PASSED_OVER)}: {listed}{more}",
                str(where),
                count,
                tuple(self.example[ending] for ending in endings),
            ),
        )


def walk_images(root: str, prefix: str, others: OtherFiles) -> Iterator[str]:
    """The images below a folder, by their paths within ``root``, folder by folder in no order.

    Links are followed, and one that leads to a folder on the way to itself ends there. Litter and other files are
    passed over.

    Args:
        root: The folder of the data set.
        prefix: Path of the folder within it, with a slash at its end, or nothing for ``root`` itself.
        others: Counts the files that are no images.

    Raises:
        OSError: A folder cannot be read.
    """
    yield from _walk(os.path.join(root, prefix), prefix, others, frozenset())


def _walk(folder: str, prefix: str, others: OtherFiles, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if is_litter(name):
                continue
            if is_folder(entry):
                folders.append((entry.path, f"{prefix}{name}/"))
            elif is_image_name(name):
                yield prefix + name
            else:
                others.add(prefix + name)
    for path, inner in folders:
        yield from _walk(path, inner, others, above | {identity})


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    # Named like an image, it is told when its turn comes.
    except OSError:
        return False


def subfolders(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the folders in a folder, litter aside, sorted.

    Raises:
        OSError: It cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not is_litter(entry.name) and is_folder(entry))


def by_folders(path: str) -> list[str]:
    """The key that sorts paths folder by folder."""
    return path.split("/")


def listed(names: Sequence[str], shown: int = _SHOWN) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def quoted(names: Sequence[str], shown: int = _SHOWN) -> str:
    """:func:`listed` with quotes around each."""
    return listed([repr(name) for name in names], shown)


def printable(path: str) -> str:
    """A path as text, with escapes for bytes that are none."""
    return path.encode("utf-8", "backslashreplace").decode()


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
