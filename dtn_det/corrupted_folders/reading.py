"""Read corrupted images from disk: ImageNet-C as published, its variants, and what ``dtn-det corrupt`` writes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtn_det.corrupted_folders.manifest import read_manifest
from dtn_det.corruptions.catalog import SEVERITIES
from dtn_det.corruptions.identity import CorruptionOrigin
from dtn_det.datasets.choosing import choose_paths, selection_name
from dtn_det.datasets.folders.class_folders import order_remarks, same_stem, stem
from dtn_det.datasets.folders.image_files import OtherFiles, listed, mask_remarks, quoted, subfolders, walk_images
from dtn_det.datasets.folders.label_maps import map_labels
from dtn_det.datasets.folders.recognise import Recognised
from dtn_det.datasets.labelled import LabelledImage, LabelledImages, file_size
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError

# Number of images whose file sizes help to identify a tree. Reading the sizes of all files would take minutes.
_SIZED = 100
_TINY = "Tiny-ImageNet-C"

Cells = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class CorruptedTree:
    """A folder of corrupted images, with the content of its manifest.

    Attributes:
        origin: How the images were corrupted, as far as the manifest records it.
        classes: All class folders of the clean images, of which the tree may contain only some; empty if unknown.
        num_images: Number of clean images in the folder that was corrupted; None if unknown.
        limit: The value of ``dtn-det corrupt --limit``; None for all images or if unknown.
    """

    found: Recognised
    origin: CorruptionOrigin
    classes: tuple[str, ...] = ()
    num_images: int | None = None
    limit: int | None = None

    @property
    def identity(self) -> str:
        """The line in a store that records how the images were corrupted."""
        return str(self.origin)

    @property
    def profile(self) -> str | None:
        """Name of the profile that the images were corrupted with; None if unknown."""
        return None if self.origin.made_by is None else self.origin.made_by.profile

    @property
    def seed(self) -> int:
        """Seed of the corruptions and of the random choice of images; 0 if unknown."""
        return 0 if self.origin.made_by is None else self.origin.made_by.seed

    @property
    def folders(self) -> Mapping[tuple[str, int], Path]:
        """The folder of each corruption and severity."""
        return {} if self.found.corruptions is None else self.found.corruptions.cells


def open_tree(found: Recognised) -> CorruptedTree:
    """Read the manifest of a corrupted tree, if it has one.

    Args:
        found: What the folder was recognised as; its kind is ``'corrupted'``.
    """
    manifest = read_manifest(found.root) or {}
    identity, classes = manifest.get("identity"), manifest.get("classes")
    known = tuple(map(str, classes)) if isinstance(classes, list) else ()
    if not isinstance(identity, str):
        return CorruptedTree(found, CorruptionOrigin.of_files(None), known)
    number, limit = (value if isinstance(value := manifest.get(key), int) else None for key in ("num_images", "limit"))
    return CorruptedTree(found, CorruptionOrigin.of_files(identity), known, number, limit)


def list_tree(
    tree: CorruptedTree,
    cells: Cells,
    classes: str | None = None,
    limit: int | None = None,
    limit_seed: int = 0,
    clean: LabelledImages | None = None,
) -> tuple[LabelledImages, list[str]]:
    """List the images of a tree; all wanted cells must have the same images.

    Args:
        classes: How classes are numbered, one of :data:`dtn_det.datasets.folders.label_maps.CLASSES`; None to decide by
            the folders' names.
        clean: The clean images, if they are known. The tree may hold only a part of their classes.

    Returns:
        The images; and lines of text that identify the set of images by names, labels and the sizes of some files.

    Raises:
        InputError: A cell is missing, cells hold different images, or a class is not known.
    """
    root, folders = tree.found.root, tree.folders
    absent = [cell for cell in cells if cell not in folders]
    if absent:
        raise InputError(_missing(root, absent, _choice(cells, folders)))
    first = folders[cells[0]]
    others = OtherFiles()
    keys = _common_keys(tree, cells, others)
    present = {key.partition("/")[0] for key in keys}
    classes = classes or tree.found.classes
    known = {*tree.classes}
    # Use the classes of the clean images only if they include all classes of the tree. If they lack one, match_clean
    # reports the missing images.
    if not known and clean is not None and present <= clean.labels.numbers.keys():
        known = {*clean.labels.numbers}
    if not known and classes != "imagenet" and (tree.num_images or 0) > len(keys):
        raise InputError(
            f"expected all images of {root}, among whose class folders the classes are numbered, got {len(keys)} of "
            f"{tree.num_images}: write it again with the same `dtn-det corrupt` command, which adds the classes to "
            "corruptions.json and keeps the images, or name the clean images with --clean"
        )
    # Number the folders of all cells together, so that the order of the cells does not change the labels.
    labels = map_labels(known or {name for cell in cells for name in subfolders(folders[cell])}, classes, root)
    unknown = sorted(present - {*labels.numbers})
    if unknown:
        raise InputError(
            f"expected class folders in {root} that the clean images have too ({listed(sorted(known))}), got "
            f"{quoted(unknown)} besides: move them away, or name the clean images of these classes with --clean"
        )
    base = str(first)
    images = tuple(
        LabelledImage(key, os.path.join(base, key), labels.numbers[key.partition("/")[0]])
        for key in choose_paths(keys, limit, limit_seed)
    )
    lines = [f"{image.key} {image.label}" for image in images]
    lines += [f"{cell} {file_size(folders[cell] / image.key)}" for cell in cells for image in images[:_SIZED]]
    remarks = (
        *tree.found.remarks,
        *others.remarks(first),
        *mask_remarks(keys, first),
        *order_remarks(labels, base),
        *_remarks(tree),
    )
    selection = _selection(tree, len(keys), limit, limit_seed)
    return LabelledImages(images, labels, selection, len(keys), len(present), remarks), lines


def _selection(tree: CorruptedTree, present: int, limit: int | None, limit_seed: int) -> str:
    """Return how images were selected, as text for a store. The text also records if the tree lacks clean images."""
    if (taken := selection_name(limit, present, limit_seed)) != "all":
        return taken if present >= (tree.num_images or 0) else f"{taken} in the tree, of {tree.num_images} clean images"
    if tree.num_images is None or present >= tree.num_images:
        return "all"
    if tree.limit == present:
        return selection_name(present, tree.num_images, tree.seed)
    return f"{present} of {tree.num_images} in the tree"


def unused_clean(images: LabelledImages, clean: LabelledImages, folder: Path) -> tuple[Remark, ...]:
    """Return a remark with the number of clean images without a corrupted image in the tree; empty if there are none.

    Args:
        clean: The clean images. Each of them belongs to at most one image of the tree.
    """
    unused = clean.num_found - images.num_found
    if unused <= 0:
        return ()
    what = f"clean images out of {clean.num_found:,} have no corrupted ones in the tree and were left out"
    return (Remark("unused_clean", what, str(folder), unused),)


_LONGEST = 300


def _missing(root: Path, absent: Cells, choice: str) -> str:
    """Return a message on the folders that a tree lacks, shortened to at most 300 characters where possible."""
    parts, whole = _by_corruption(absent)
    text = ""
    for shown in range(len(whole), -1, -1):
        more = f" and {len(whole) - shown} more" if shown < len(whole) else ""
        names = "; ".join([*parts, *([", ".join(whole[:shown]) + more] if whole[:shown] else [])])
        names += "" if whole[:shown] else more
        for end in (f"choose with {choice}", "choose with --corruptions"):
            text = (
                f"expected a folder for each corruption and severity in {root}, got none for {names}: fetch what is "
                f"missing, take --partial, or {end}"
            )
            if len(text) <= _LONGEST:
                return text
    return text


def _by_corruption(cells: Iterable[tuple[str, int]]) -> tuple[list[str], list[str]]:
    """Return texts such as ``fog 1, 2`` for missing cells, and the names of corruptions that lack all severities."""
    by_name: dict[str, list[int]] = {}
    for name, severity in cells:
        by_name.setdefault(name, []).append(severity)
    whole = [name for name, severities in by_name.items() if len(severities) == len(SEVERITIES)]
    parts = [f"{name} {', '.join(map(str, sorted(by_name[name])))}" for name in by_name if name not in whole]
    return parts, whole


def _choice(wanted: Cells, folders: Collection[tuple[str, int]]) -> str:
    """Return the options that choose the present corruptions out of the wanted ones, at their common severities."""
    there: dict[str, set[int]] = {}
    for name, severity in wanted:
        if (name, severity) in folders:
            there.setdefault(name, set()).add(severity)
    common = set.intersection(*there.values()) if there else set()
    if not common:
        return "--corruptions and --severities"
    return f"--corruptions {' '.join(there)} --severities {' '.join(map(str, sorted(common)))}"


def match_clean(images: LabelledImages, listed_clean: LabelledImages, clean: Path) -> dict[str, str]:
    """Find the clean image of each corrupted image by class folder and name.

    A clean image may have another file extension if it is the only clean image with that name and belongs to no other
    corrupted image.

    Args:
        clean: Folder of the clean images, for messages.

    Returns:
        For the key of each corrupted image, the path of its clean image.

    Raises:
        InputError: A clean image is missing, or several could be meant.
    """
    found = {image.key: image.path for image in listed_clean.images}
    wanted = [image.key for image in images.images]
    by_stem = same_stem(list(found))
    partners: dict[str, str] = {}
    missing = []
    for key in wanted:
        if key in found:
            partners[key] = key
            continue
        near = by_stem.get(stem(key), [])
        if len(near) > 1:
            raise InputError(
                f"expected one clean image for {key} in {clean}, got {quoted(near)}: give the corrupted and the clean "
                "images the same endings"
            )
        if near:
            partners[key] = near[0]
        else:
            missing.append(stem(key))
    twice = _taken_twice(partners)
    if twice:
        raise InputError(
            f"expected a clean image in {clean} for each of {quoted(twice)}, got one for all: give the corrupted and "
            "the clean images the same endings"
        )
    if missing:
        raise InputError(
            f"expected the clean images in {clean}, got {len(missing)} of {len(wanted)} missing "
            f"({listed(missing)}): name their folder with --clean, or leave --clean out"
        )
    return {key: found[partner] for key, partner in partners.items()}


def clean_lines(clean: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each clean image with its name and file size. Together the lines identify the set of images."""
    return (f"{stem(key)} {file_size(path)}" for key, path in clean.items())


def _taken_twice(partners: Mapping[str, str]) -> list[str]:
    """Return the first group of corrupted images with the same clean image; empty if there is no such group."""
    takers: dict[str, list[str]] = {}
    for key, partner in partners.items():
        takers.setdefault(partner, []).append(key)
    return next((keys for keys in takers.values() if len(keys) > 1), [])


def _common_keys(tree: CorruptedTree, cells: Cells, others: OtherFiles) -> list[str]:
    first = tree.folders[cells[0]]
    keys = sorted(_keys(first, others))
    if not keys:
        raise InputError(f"expected images in class folders in {first}, got none: check the tree")
    reference = set(keys)
    faults = []
    for cell in cells[1:]:
        found = set(_keys(tree.folders[cell], OtherFiles()))
        for what, names in (("lacks", reference - found), ("has besides", found - reference)):
            if names:
                faults.append(f"\n  {tree.folders[cell]} {what} {len(names)}: {listed(sorted(names))}")
    if faults:
        hint = ""
        if tree.found.dataset == _TINY and any(cell[0] == "frost" for cell in cells):
            hint = (
                "; frost in the first archive of Tiny-ImageNet-C has ImageNet's 1,000 classes (hendrycks/robustness#60)"
            )
        raise InputError(
            f"expected the same {len(keys):,} image{'' if len(keys) == 1 else 's'} for each corruption and severity as "
            f"in {first}, got:{''.join(faults)}\nfetch the tree again, or choose whole parts with --corruptions and "
            f"--severities{hint}"
        )
    return keys


def _keys(folder: Path, others: OtherFiles) -> Iterator[str]:
    """Yield the key of each image: its path, class folder and file name, below ``folder``."""
    base = str(folder)
    for inner in subfolders(folder):
        yield from walk_images(base, f"{inner}/", others)


def _remarks(tree: CorruptedTree) -> Iterator[Remark]:
    if tree.found.dataset == _TINY and tree.profile is None:
        yield Remark(
            "no_clean_twin",
            f"clean twin is missing: {_TINY} was not made of Tiny-ImageNet's validation images "
            "(hendrycks/robustness#39), so a clean error of those is of other pictures",
            str(tree.found.root),
        )
