"""Image folders as they come: which images they hold, and where each goes in a corrupted tree."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dtn_det.corruptions.keys import WNID
from dtn_det.corruptions.reading import SUFFIXES, is_image_name
from dtn_det.corruptions.stream import Key

LAYOUTS = ("imagenet", "coco", "plain")


@dataclass(frozen=True)
class SourceImage:
    """An image to be corrupted.

    Attributes:
        path: Where it is.
        key: Its identity.
        target: Its path within the folder of one corruption and severity.
    """

    path: Path
    key: Key
    target: PurePosixPath

    @property
    def name(self) -> str:
        """Its path as text that can be printed, whatever bytes it holds."""
        return str(self.path).encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Source:
    """A folder of images.

    Attributes:
        layout: One of :data:`LAYOUTS`.
        images: All of them, sorted by target.
        annotations: COCO's annotation files, by their paths within the folder of one corruption and severity.
    """

    layout: str
    images: tuple[SourceImage, ...]
    annotations: dict[PurePosixPath, Path] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Tells sets of images apart by their keys and targets, wherever they lie."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(f"{image.key}\0{image.target}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def list_folder(root: Path, layout: str) -> Source:
    """List a folder in ImageNet's layout, class folders that are named by WordNet ids, or a plain one.

    Links are followed; hidden files, and files that do not end like an image, are passed over.

    Args:
        root: The folder.
        layout: ``'imagenet'`` or ``'plain'``.

    Raises:
        ValueError: It holds no images, or for ImageNet's layout no class folders.
        OSError: A folder cannot be read.
    """
    if layout == "imagenet":
        folders = class_folders(root)
        if not folders:
            raise ValueError(
                f"expected class folders such as n01440764 in {root} for --layout imagenet, got none: "
                "name the folder that holds them, or take --layout plain"
            )
    else:
        folders = [root]
    paths = [path for folder in folders for path in _files(folder) if is_image_name(path.name)]
    if not paths:
        raise ValueError(
            f"expected images ({', '.join(SUFFIXES)}) in {root}, got none: name the folder that holds them"
        )
    return Source(layout, sort_images([_source_image(path, root) for path in paths]))


def class_folders(root: Path) -> list[Path]:
    """The class folders of ImageNet in a folder."""
    return sorted(path for path in root.iterdir() if WNID.fullmatch(path.name) and path.is_dir())


def sort_images(images: Sequence[SourceImage]) -> tuple[SourceImage, ...]:
    """Sort images by target."""
    return tuple(sorted(images, key=lambda image: image.target))


def choose(source: Source, limit: int | None, seed: int) -> tuple[SourceImage, ...]:
    """The images of a source, or a fixed, random part of them; a smaller part is contained in any larger one.

    Raises:
        ValueError: A limit below 1.
    """
    if limit is None:
        return source.images
    if limit < 1:
        raise ValueError(f"expected a limit of at least 1 image, got {limit}")

    def rank(image: SourceImage) -> bytes:
        return hashlib.blake2b(f"{seed}\0{image.target}".encode("utf-8", "surrogatepass"), digest_size=16).digest()

    return sort_images(sorted(source.images, key=rank)[:limit])


def _source_image(path: Path, root: Path) -> SourceImage:
    target = PurePosixPath(path.relative_to(root).as_posix())
    return SourceImage(path, str(target), target)


def _files(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """All files below a folder; ``above`` holds the folders on the way, so that a link to one of them ends there."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            yield from _files(Path(entry.path), above | {identity})
        else:
            yield Path(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    # A link that leads to itself: named like an image, it is reported when its turn comes.
    except OSError:
        return False
