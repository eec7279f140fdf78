"""Find the image files of a folder, count its other files, and read the sizes of images.

This module has the only list of extensions of image files. It counts the files that it skips, so that readers can
report them.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
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
"""Extensions, in lower case, of the files that are read as images: all formats that Pillow reads."""

# Names of files and folders that file browsers and archivers leave behind.
_LITTER = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found")
)
# The names, without extensions, of masks such as benign (1)_mask.png or 17-seg_2.png beside benign (1).png or 17.jpg.
_MASK = re.compile(r"(.+)[_\- ](?:masks?|seg|gt)(?:[_\- ]?\d+)?", re.IGNORECASE)
_NO_ENDING = "no ending"
_SHOWN = 5
_PASSED_OVER = "{file that does not end like an image was|files that do not end like images were} passed over"
# How many entries of a folder are enough to recognise its kind, and how many items represent a long list.
_ENOUGH, _SAMPLES = 64, 8
# Largest depth of folders that are searched. Without a limit, links in a circle would make the search endless.
_DEEPEST = 8

T = TypeVar("T")


def is_image_name(name: str) -> bool:
    """Return whether a file's name has the extension of an image."""
    return name.lower().endswith(SUFFIXES)


def is_litter(name: str) -> bool:
    """Return whether a file or folder is hidden, or was left behind by a file browser or an archiver."""
    return name.startswith(".") or name.lower() in _LITTER


@dataclass
class OtherFiles:
    """Counts files that are skipped because they do not have the extension of an image.

    Attributes:
        count: Number of files with each extension, in lower case.
        example: The alphabetically first path with each extension.
    """

    count: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    example: dict[str, str] = field(default_factory=dict)

    def add(self, path: str) -> None:
        """Count a file."""
        ending = PurePath(path).suffix.lower() or _NO_ENDING
        self.count[ending] += 1
        self.example[ending] = min(path, self.example.get(ending, path))

    def remarks(self, where: object) -> tuple[Remark, ...]:
        """Return one remark with the number of files of each extension; an empty tuple if no file was counted."""
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


def mask_remarks(paths: Iterable[str], where: object) -> tuple[Remark, ...]:
    """Return a remark on images that are named like masks of other images, such as ``1_mask.png`` beside ``1.png``.

    Only the user knows whether these images are masks, so they are not left out.
    """
    stems = {os.path.splitext(path)[0]: path for path in paths}
    masks = [path for stem, path in stems.items() if (match := _MASK.fullmatch(stem)) and match[1] in stems]
    if not masks:
        return ()
    what = agreeing(
        len(masks),
        "{image is named like the mask of the image beside it and was taken as an image: move it away if it is a mask"
        "|images are named like masks of the images beside them and were taken as images: move them away if they are "
        "masks}",
    )
    return (Remark("named_like_masks", what, str(where), len(masks), tuple(sorted(masks)[:3])),)


def walk_images(root: str, prefix: str, others: OtherFiles) -> Iterator[str]:
    """Yield the paths within ``root`` of the images below a folder, folder by folder in no particular order.

    Links are followed, except to folders that contain the link. Litter (see :func:`is_litter`) is skipped, and so are
    files that are not images.

    Args:
        prefix: Path of the folder within ``root``, with a slash at its end; an empty string for ``root`` itself.
        others: Counts the files that are not images.

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
    """Return whether an entry of a folder is a folder or a link to one; False for a link that leads to itself."""
    try:
        return entry.is_dir()
    # The entry cannot be examined. If it is named like an image, reading it will raise an error with a message.
    except OSError:
        return False


def subfolders(folder: str | os.PathLike[str]) -> list[str]:
    """Return the sorted names of the folders in a folder, without the litter that :func:`is_litter` knows.

    Raises:
        OSError: The folder cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not is_litter(entry.name) and is_folder(entry))


def by_folders(path: str) -> list[str]:
    """Return the key that sorts paths folder by folder."""
    return path.split("/")


def listed(names: Sequence[str], shown: int = _SHOWN) -> str:
    """Join the first names of a list, and append how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def quoted(names: Sequence[str], shown: int = _SHOWN) -> str:
    """Join names as :func:`listed` does, with quotes around each."""
    return listed([repr(name) for name in names], shown)


def printable(path: str) -> str:
    """Return a path as text, with escapes for bytes that are not text."""
    return path.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Contents:
    """Sorted names of what lies in a folder, without the litter that :func:`is_litter` knows.

    Attributes:
        folders: Folders, and links to folders.
        images: Files with the extension of an image.
    """

    folders: tuple[str, ...]
    images: tuple[str, ...]
    others: tuple[str, ...]


def look(folder: str | os.PathLike[str], most: int | None = None) -> Contents:
    """List one level of a folder.

    Args:
        most: Largest number of entries to look at, in the order in which the file system lists them; None for all.

    Raises:
        OSError: The folder cannot be read.
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
    """List enough entries of a folder to see whether it holds folders or images; none if it cannot be read."""
    try:
        return look(folder, _ENOUGH)
    # The error is reported later, when the whole folder is read.
    except OSError:
        return Contents((), (), ())


def spread(items: Sequence[T], count: int = _SAMPLES) -> Sequence[T]:
    """Return a few items that are spread evenly over a list, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[number * (len(items) - 1) // (count - 1)] for number in range(count)]


def sample_images(root: Path, folders: Sequence[str]) -> list[Path]:
    """Return the path of one image in each of a few folders, which are spread evenly over a list of names."""
    found = (_first_image(root / folder, depth=2) for folder in spread(folders))
    return [path for path in found if path is not None]


def _first_image(folder: Path, depth: int) -> Path | None:
    contents = peek(folder)
    if contents.images:
        return folder / contents.images[0]
    inner: Iterator[Path | None] = (_first_image(folder / name, depth - 1) for name in contents.folders if depth)
    return next((path for path in inner if path is not None), None)


def image_sizes(paths: Sequence[Path]) -> frozenset[tuple[int, int]]:
    """Read the widths and heights of images from their headers; images that cannot be read are left out."""
    from PIL import Image

    sizes = set()
    for path in paths:
        # Opening a pipe would wait for its other end, and Pillow raises many kinds of errors for bad files.
        if not path.is_file():
            continue
        try:
            with Image.open(path) as picture:
                sizes.add(picture.size)
        except Exception:
            continue
    return frozenset(sizes)


def square_side(sizes: frozenset[tuple[int, int]]) -> int | None:
    """Return the side of images, in pixels, if all are squares of the same size; else None."""
    if len(sizes) != 1:
        return None
    ((width, height),) = sizes
    return width if width == height else None


def inner_folders(root: Path, folders: Sequence[str]) -> tuple[str, ...]:
    """Find folders of images inside class folders, and class folders that hold images beside such inner folders.

    Returns:
        Sorted paths within ``root``: ``'a/airfield'`` for an inner folder, and ``'a'`` if the class folder ``a`` also
        has images of its own. The result is empty if no class has images in several folders, as in the training set of
        Tiny-ImageNet.
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
    """Return how many classes there are if every inner folder is one: inner folders, and class folders without any."""
    return len(inner) + len({*folders} - _outer(inner))


def pooled_remarks(inner: Sequence[str], where: object) -> tuple[Remark, ...]:
    """Return a remark that images in inner folders get the class of the outer folder; empty without inner folders."""
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
    """Return the folders that lie inside class folders. ``inner`` may also have class folders with images."""
    return tuple(path for path in inner if "/" in path)


def one_folder_per_class(inner: Sequence[str]) -> str:
    """Return advice on how to turn inner folders into class folders."""
    first = nested(inner)[0]
    return f"lay them out as one folder per class, {first} as {first.replace('/', '_')}"


def _outer(inner: Sequence[str]) -> set[str]:
    return {path.partition("/")[0] for path in inner}
