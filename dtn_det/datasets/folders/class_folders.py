"""Read class folders: clean images with their classes, for all commands."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dtn_det.datasets.choosing import choose_paths, selection_name
from dtn_det.datasets.folders.advice import not_sorted
from dtn_det.datasets.folders.image_files import (
    SUFFIXES,
    OtherFiles,
    by_folders,
    look,
    mask_remarks,
    quoted,
    walk_images,
)
from dtn_det.datasets.folders.label_maps import IMAGENET_CLASSES, SUBSETS, LabelMap, map_labels, naming, natural_order
from dtn_det.datasets.folders.recognise import READ_BY_CLASS, Recognised, recognise
from dtn_det.datasets.labelled import LabelledImage, LabelledImages
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import InputError

_READS = "class folders of clean images, or corrupted ones in <corruption>/<severity>"


@dataclass(frozen=True)
class Listing:
    """All images of some class folders.

    Attributes:
        paths: Paths of the images by their keys, sorted by folder and then by name.
        folders: Sorted names of all class folders, including folders without images.
    """

    paths: dict[str, str]
    folders: tuple[str, ...]
    others: OtherFiles

    @property
    def filled(self) -> set[str]:
        """The names of the class folders that have images."""
        return {key.partition("/")[0] for key in self.paths}


def list_images(
    root: Path, classes: str | None = None, limit: int | None = None, limit_seed: int = 0
) -> LabelledImages:
    """List the clean images in class folders.

    Args:
        root: The folder that holds the class folders, or a folder that has them in ``val``.
        classes: One of :data:`dtn_det.datasets.folders.label_maps.CLASSES`; None to decide by the folders' names.
        limit: Largest number of images. They are chosen at random, the same ones in every run.

    Raises:
        FileNotFoundError: There is no such folder.
        InputError: The folder does not hold class folders with clean images, holds no images, or holds a class folder
            whose class is not known.
    """
    return label_images(recognise(root), classes, limit, limit_seed)


def label_images(found: Recognised, classes: str | None, limit: int | None, limit_seed: int) -> LabelledImages:
    """List the clean images of a folder that was recognised: see :func:`list_images`."""
    check_clean(found)
    listing = list_clean(found)
    classes = classes or found.classes
    listed = () if classes == "imagenet" else found.listed_classes
    labels = map_labels({*listing.folders, *listed}, classes, found.root)
    paths = {key: path for key, path in listing.paths.items() if key.partition("/")[0] in labels.numbers}
    if not paths:
        raise InputError(
            f"expected images of the 200 classes of {SUBSETS[labels.classes]} in {found.root}, got none: name the "
            "validation images of ImageNet, or leave --classes out"
        )
    if len(paths) < len(listing.paths):
        what = f"images of ImageNet's classes that {SUBSETS[labels.classes]} lacks were left out"
        told = Remark("other_classes", what, str(found.root), len(listing.paths) - len(paths))
        found, listing = replace(found, remarks=(*found.remarks, told)), replace(listing, paths=paths)
    keys = choose_paths(list(listing.paths), limit, limit_seed)
    return LabelledImages(
        tuple(LabelledImage(key, listing.paths[key], labels.numbers[key.partition("/")[0]]) for key in keys),
        labels,
        selection_name(limit, len(listing.paths), limit_seed),
        len(listing.paths),
        len(listing.filled),
        (*found.remarks, *_remarks(found, listing, labels)),
    )


def check_clean(found: Recognised) -> None:
    """Check that a folder can be evaluated as clean images in class folders.

    Raises:
        InputError: The folder holds something else. The message says what it holds and what to do.
    """
    if found.kind == "corrupted" or found.kind not in READ_BY_CLASS:
        if found.kind == "images" and (images := look(found.root).images):
            raise InputError(_loose(images, found.root))
        if found.kind == "empty" and any(name.endswith(".npz") for name in look(found.root).others):
            raise InputError(found.refusal(_READS))
        if found.kind in ("images", "empty"):
            raise InputError(no_images(found.root, OtherFiles()))
        raise InputError(found.refusal(_READS))


def list_clean(found: Recognised) -> Listing:
    """List the images of class folders, or of Tiny-ImageNet's validation set as downloaded.

    Raises:
        InputError: There are no images, some lie in no class folder, or the class of an image is not known.
    """
    if found.kind == "tiny_imagenet_val":
        return _list_tiny(found)
    contents = look(found.root)
    if contents.images:
        raise InputError(_loose(contents.images, found.root))
    return list_folders(found.root, contents.folders)


def list_folders(root: Path, folders: Sequence[str]) -> Listing:
    """List the images of class folders, and ignore what lies beside these folders.

    Raises:
        InputError: There are no images.
    """
    others = OtherFiles()
    base = str(root)
    keys = [key for name in folders for key in walk_images(base, f"{name}/", others)]
    if not keys:
        raise InputError(no_images(root, others))
    keys.sort(key=by_folders)
    return Listing({key: os.path.join(base, key) for key in keys}, tuple(folders), others)


def no_images(root: Path, others: OtherFiles) -> str:
    """Return the error message for a folder without files that have an image's extension."""
    passed = "".join(f"; {remark.what}" for remark in others.remarks(root))
    return f"expected images ({', '.join(SUFFIXES)}) in {root}, got none{passed}: name the folder that holds them"


def tiny_annotations(root: Path) -> dict[str, str]:
    """Return the wnids of Tiny-ImageNet's validation images, by their file names.

    Args:
        root: The folder with ``val_annotations.txt``.

    Raises:
        InputError: A line does not name a file and its class, or a file is named with two classes.
    """
    classes: dict[str, str] = {}
    path = root / "val_annotations.txt"
    for number, line in enumerate(path.read_text().splitlines(), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if naming([wnid]) != "wnids" or classes.get(name, wnid) != wnid:
            raise InputError(
                f"expected a file name and its wnid in line {number} of {path}, each file once, got {line!r}: fetch "
                "the file again"
            )
        classes[name] = wnid
    return classes


def _list_tiny(found: Recognised) -> Listing:
    root = found.root
    classes = tiny_annotations(root)
    strangers = sorted({*classes.values()} - {*found.listed_classes}) if found.listed_classes else []
    if strangers:
        raise InputError(
            f"expected the classes of {root / 'val_annotations.txt'} to be among those of wnids.txt, got "
            f"{quoted(strangers)} besides: fetch both files again"
        )
    others = OtherFiles()
    base = str(root)
    paths = {path.removeprefix("images/"): os.path.join(base, path) for path in walk_images(base, "images/", others)}
    unknown = sorted({*paths} - {*classes})
    if unknown or not paths:
        raise InputError(
            f"expected the images of val_annotations.txt in {root / 'images'}, got {quoted(unknown) or 'none'}: fetch "
            "the set again"
        )
    keys = {f"{classes[name]}/{name}": path for name, path in paths.items()}
    return Listing({key: keys[key] for key in sorted(keys, key=by_folders)}, tuple(sorted({*classes.values()})), others)


def _remarks(found: Recognised, listing: Listing, labels: LabelMap) -> Iterator[Remark]:
    where = str(found.root)
    yield from listing.others.remarks(where)
    yield from mask_remarks(listing.paths, where)
    empty = sorted({*labels.numbers} - listing.filled)
    if empty:
        what = agreeing(
            len(empty), "class {folder without images keeps its number|folders without images keep their numbers}"
        )
        yield Remark("empty_class_folders", what, where, len(empty), empty)
    title = {"imagenet": "ImageNet", **SUBSETS}.get(labels.classes)
    filled = len(listing.filled & labels.numbers.keys())
    if title is not None and filled < labels.num_classes:
        what = f"of {title}'s {labels.num_classes:,} classes {agreeing(filled, '{has|have}')} images"
        yield Remark("part_of_the_classes", what, where, filled, partial=True)
    yield from order_remarks(labels, where)


def order_remarks(labels: LabelMap, where: str) -> Iterator[Remark]:
    """Yield a remark on how folders were numbered, if other programs number these folders differently."""
    folders = labels.numbers
    by_text, natural = sorted(folders), natural_order(folders)
    if naming(folders) != "numbers":
        if labels.classes in ("sorted", "natural") and by_text != natural:
            what = f"folders are numbered by the {in_order(labels.classes, by_text, natural)}"
            other = "sorted" if labels.classes == "natural" else "natural"
            yield Remark("order_of_names", f"{what} (--classes {other} numbers them otherwise)", where, len(folders))
        return
    first = min(map(int, folders))
    name = next((name for place, name in enumerate(by_text) if int(name) - first != place), by_text[0])
    if by_text == natural and not labels.from_one:
        return
    how, other = "from 1 on" if labels.from_one else "as they are named", "sorted"
    if labels.classes == "sorted" and by_text != natural:
        how, other = f"by the {in_order('sorted', by_text, natural)}", "natural"
    elif labels.classes == "natural" and by_text != natural and not labels.from_one:
        how = f"by the {in_order('natural', by_text, natural)}"
    who = {"sorted": "torchvision's ImageFolder, DeiT and mmpretrain do", "natural": "timm's training does"}[other]
    turn = f" (--classes {other} numbers them otherwise, as {who})" if by_text != natural else ""
    if labels.from_one and len(folders) == IMAGENET_CLASSES:
        turn += "; ImageNet's devkit numbers its classes so, in another order than models are trained in"
    yield Remark(
        "numbered_folders",
        f"folders are numbered {how}: {name!r} is class {folders[name]}{turn}",
        where,
        len(folders),
    )


def in_order(order: str, by_text: Sequence[str], natural: Sequence[str]) -> str:
    """Describe text order or natural order, with two names that the other order would swap.

    Args:
        order: ``'sorted'`` (text order) or ``'natural'``.
        natural: The same names in natural order, which must differ from text order.
    """
    place = next(n for n, (one, other) in enumerate(zip(by_text, natural, strict=True)) if one != other)
    first, second = by_text[place], natural[place]
    if order == "sorted":
        return f"text order of their names, in which {first!r} is before {second!r}"
    return f"natural order of their names, in which {second!r} is before {first!r}"


def _loose(names: tuple[str, ...], root: Path) -> str:
    return (
        f"expected each image in a folder named by its class, got {names[0]!r} in {root} itself: "
        f"{not_sorted(names, root)}"
    )


def same_stem(keys: Sequence[str]) -> dict[str, list[str]]:
    """Group keys by their stems."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(stem(key), []).append(key)
    return found


def stem(key: str) -> str:
    """Return a key without its file extension."""
    return os.path.splitext(key)[0]
