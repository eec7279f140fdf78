"""Which files of a folder are images: the one list of endings, and what is passed over and counted."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

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
