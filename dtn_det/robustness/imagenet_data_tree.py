"""Corrupted images on disk: ImageNet-C as published, its variants, and what ``dtn-det corrupt`` writes."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dtn_det.corruptions.catalog import ALL
from dtn_det.corruptions.image import ByteImage
from dtn_det.corruptions.keys import WNID
from dtn_det.corruptions.layouts import Source, SourceImage
from dtn_det.corruptions.manifest import read_manifest
from dtn_det.corruptions.reading import is_image_name
from dtn_det.robustness.cells import CLEAN, Cell
from dtn_det.robustness.classification_images import read_clean, read_square
from dtn_det.robustness.imagenet_data import (
    LabelledImage,
    LabelledImages,
    class_numbers,
    file_size,
    imagenet_wnids,
    list_images,
    select,
    selection_name,
)
from dtn_det.robustness.manifest import hash_lines
from dtn_det.robustness.wording import counted

_SEVERITY = re.compile(r"(?:severity|sev|s|level)?[_\- ]?([1-5])", re.IGNORECASE)
# Images whose files' sizes go into the identity of the tree; those of all would take minutes.
_SIZED = 100
_SHOWN = 5


@dataclass(frozen=True)
class CorruptedTree:
    """A folder with the images of each cell.

    Attributes:
        folders: Of each cell.
        identity: What the images were made with, where the tree tells.
        profile: Benchmark of that identity, or None.
    """

    folders: Mapping[Cell, Path]
    identity: str
    profile: str | None


@dataclass(frozen=True)
class CorruptedOnDisk:
    """Cells that are read.

    Attributes:
        folders: Of the corrupted cells.
        cells: Which.
        clean: Paths of the clean images by their keys without suffix.
        side: Of the square images.
    """

    folders: Mapping[Cell, Path]
    cells: tuple[Cell, ...]
    clean: Mapping[str, str]
    side: int

    def __len__(self) -> int:
        return len(self.cells)

    def images(self, image: LabelledImage) -> Iterator[ByteImage]:
        """See :class:`dtn_det.robustness.classification_images.Cells`."""
        for cell in self.cells:
            if cell.corruption == CLEAN:
                yield read_clean(self.clean[_stem(image.key)], self.side)
            else:
                yield read_square(str(self.folders[cell] / image.key), self.side)


def find_tree(root: Path) -> CorruptedTree | None:
    """The corrupted images in a folder, or None if it holds none.

    Folders are found as ``<corruption>/<severity>``, within group folders such as ``noise`` too, in any case, with
    dashes or blanks for underscores, and with ``severity_1`` for ``1``.

    Raises:
        ValueError: Two folders are for one cell.
    """
    folders: dict[Cell, Path] = {}
    for name, folder in _corruption_folders(root):
        for inner in _folders(folder):
            match = _SEVERITY.fullmatch(inner.name)
            if match is None:
                continue
            cell = Cell(name, int(match[1]))
            if cell in folders:
                raise ValueError(
                    f"expected one folder for {name} at severity {cell.severity} in {root}, got {folders[cell]} and "
                    f"{inner}: move one away"
                )
            folders[cell] = inner
    if not folders:
        return None
    identity = (read_manifest(root) or {}).get("identity")
    made = isinstance(identity, str)
    return CorruptedTree(
        folders, f"files made with {identity}" if made else "files", str(identity).split()[0] if made else None
    )


def list_tree(
    tree: CorruptedTree, root: Path, cells: Sequence[Cell], classes: str, limit: int | None, limit_seed: int
) -> tuple[LabelledImages, str]:
    """The images that all cells of a tree hold.

    Args:
        tree: The tree.
        root: Its folder, for messages.
        cells: Corrupted cells that are wanted.
        classes: See :data:`dtn_det.robustness.imagenet_data.CLASSES`.
        limit: Take so many images.
        limit_seed: Of that choice.

    Returns:
        The images, and a hash of names, labels and the sizes of some files.

    Raises:
        ValueError: A cell is missing, cells hold different images, or a class is not known.
    """
    absent = [f"{name} {severity}" for name, severity in cells if (name, severity) not in tree.folders]
    if absent:
        raise ValueError(
            f"expected a folder for each corruption and severity in {root}, got none for {', '.join(absent)}: fetch "
            "what is missing, or choose with --corruptions and --severities"
        )
    keys = _common_keys(tree, cells)
    numbers = class_numbers({key.partition("/")[0] for key in keys}, classes, tree.folders[cells[0]])
    source = Source("imagenet", tuple(SourceImage(Path(key), key, PurePosixPath(key)) for key in keys))
    first = tree.folders[cells[0]]
    images = tuple(
        LabelledImage(str(image.key), str(first / image.path), numbers[image.target.parts[0]])
        for image in select(source, limit, limit_seed)
    )
    num_classes = len(imagenet_wnids()) if classes == "imagenet" else len(numbers)
    lines = [f"{image.key} {image.label}" for image in images]
    lines += [f"{cell} {file_size(tree.folders[cell] / image.key)}" for cell in cells for image in images[:_SIZED]]
    return LabelledImages(images, num_classes, selection_name(limit, len(keys), limit_seed)), hash_lines(lines)


def match_clean(images: LabelledImages, clean: Path, classes: str) -> dict[str, str]:
    """The clean image of each corrupted one: that of the same class folder and name, whatever its suffix.

    Returns:
        Paths by key without suffix.

    Raises:
        ValueError: One is missing.
    """
    found = {_stem(image.key): image.path for image in list_images(clean, classes).images}
    wanted = [_stem(image.key) for image in images.images]
    missing = [key for key in wanted if key not in found]
    if missing:
        raise ValueError(
            f"expected the clean images in {clean}, got {len(missing)} of {len(wanted)} missing "
            f"({_listed(missing)}): name their folder with --clean, or leave --clean out"
        )
    return {key: found[key] for key in wanted}


def _common_keys(tree: CorruptedTree, cells: Sequence[Cell]) -> list[str]:
    keys = _keys(tree.folders[cells[0]])
    if not keys:
        raise ValueError(f"expected images in class folders in {tree.folders[cells[0]]}, got none: check the tree")
    reference = set(keys)
    faults = []
    for cell in cells[1:]:
        others = set(_keys(tree.folders[cell]))
        for what, names in (("lacks", reference - others), ("has besides", others - reference)):
            if names:
                faults.append(f"\n  {tree.folders[cell]} {what} {len(names)}: {_listed(sorted(names))}")
    if faults:
        raise ValueError(
            f"expected the same {counted(len(keys), 'image')} for each corruption and severity as in "
            f"{tree.folders[cells[0]]}, got:{''.join(faults)}\nfetch the tree again, or choose whole parts with "
            "--corruptions and --severities"
        )
    return keys


def _keys(folder: Path) -> list[str]:
    """Class folder and name of each image, sorted."""
    return sorted(
        f"{inner.name}/{entry.name}"
        for inner in _folders(folder)
        for entry in os.scandir(inner)
        if is_image_name(entry.name) and not entry.name.startswith(".")
    )


def _corruption_folders(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in _folders(root):
        name = _normalized(folder.name)
        if name in ALL:
            yield name, folder
        elif not WNID.fullmatch(folder.name):
            yield from ((_normalized(i.name), i) for i in _folders(folder) if _normalized(i.name) in ALL)


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if _is_folder(entry) and not entry.name.startswith("."))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        # A link that leads to itself; as an image it is told when its turn comes.
        if error.errno == errno.ELOOP:
            return False
        raise


def _normalized(name: str) -> str:
    return re.sub(r"[\- ]+", "_", name.strip()).lower()


def _stem(key: str) -> str:
    return str(PurePosixPath(key).with_suffix(""))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
