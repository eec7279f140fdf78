"""Recognise a folder of images by the evidence in it: names, structure, file types and sizes of images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dtn_det.corruptions.catalog import CIFAR_C_BAR_CATALOG, IMAGENET_C_CATALOG, SEVERITIES, catalog_for
from dtn_det.corruptions.stream import WNID
from dtn_det.datasets.arrays.found import find_rows
from dtn_det.datasets.folders.advice import advice
from dtn_det.datasets.folders.corruption_folders import (
    CorruptionFolders,
    benchmark_of,
    find_corruptions,
    holds_classes,
    is_corruption,
)
from dtn_det.datasets.folders.image_files import (
    Contents,
    image_sizes,
    inner_folders,
    listed,
    look,
    peek,
    pooled_remarks,
    quoted,
    sample_images,
    spread,
    square_side,
    subfolders,
)
from dtn_det.datasets.folders.label_maps import SUBSETS, guess_numbering, has_english_names, imagenet_subset, naming
from dtn_det.datasets.folders.magnitudes import is_severity
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import InputError

Kind = Literal[
    "class_folders",
    "tiny_imagenet_val",
    "corrupted",
    "unknown_corruptions",
    "one_corruption",
    "one_cell",
    "arrays",
    "array_corruptions",
    "array_images",
    "batches",
    "parquet",
    "coco",
    "splits",
    "images",
    "unsorted",
    "empty",
]

READ_BY_CLASS = ("class_folders", "tiny_imagenet_val", "corrupted")
"""The kinds of folders from which the class of each image file is known."""

_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
_SPLIT_LIKE = re.compile(
    r"(ILSVRC\d*_img_)?(train|training|val|valid|validation|test|testing)([-_.\d].*)?", re.IGNORECASE
)
_ILSVRC = "ILSVRC2012_val_"
_TRAINING = re.compile(r"n\d{8}(?=_)")
_RENDITION = re.compile(
    r"(art|cartoon|deviantart|embroidery|graffiti|graphic|misc|origami|painting|sculpture|sketch|sticker|tattoo|toy"
    r"|videogame)_\d+\."
)
_NATURAL_ADVERSARIAL = re.compile(r"0\.\d+_.+_0\.\d+\.")
_VALIDATION = re.compile(_ILSVRC)
_SKETCH = re.compile(r"sketch_\d+\.")
_TINY_SIDE, _TINY_CLASSES = 64, 200
_ALL_CLASSES = 1000

PROFILES_BY_SIDE = {32: "cifar-c", 64: "tiny-imagenet-c", 224: "imagenet-c"}
"""The profile of the benchmark with square images, by the side of the images in pixels."""


@dataclass(frozen=True)
class Recognised:
    """What a folder was recognised as.

    Attributes:
        kind: Its structure, one of :data:`Kind`.
        root: The folder with the class folders: the folder that the user named, or ``val`` in it.
        title: Description for users.
        dataset: Name of the data set, such as ``'ImageNet'``, ``'ImageNet-V2'`` or ``'Tiny-ImageNet-C'``. Empty if it
            cannot be recognised from names of folders and files and sizes of images.
        folders: Names of the class folders; in a corrupted tree, of the class folders of one cell.
        classes: How the classes are numbered if the user does not choose, one of
            :data:`dtn_det.datasets.folders.label_maps.CLASSES`; an empty string if there are no classes.
        listed_classes: All classes of Tiny-ImageNet, sorted, if its ``wnids.txt`` lies in the folder or beside it.
        sizes: Widths and heights of a few images.
        corruptions: The folders of corrupted images; None if corruptions were not looked for or not found.
        remarks: What was decided or skipped.
        inner: Paths within ``root`` of the folders inside class folders whose images count as the class of the outer
            folder; see :func:`dtn_det.datasets.folders.image_files.inner_folders`.
    """

    kind: Kind
    root: Path
    title: str
    dataset: str = ""
    folders: tuple[str, ...] = ()
    classes: str = ""
    listed_classes: tuple[str, ...] = ()
    sizes: frozenset[tuple[int, int]] = frozenset()
    corruptions: CorruptionFolders | None = None
    remarks: tuple[Remark, ...] = ()
    inner: tuple[str, ...] = ()

    @property
    def profile(self) -> str | None:
        """The profile of the benchmark whose images have the size of the folder's images; None if there is none."""
        side = square_side(self.sizes)
        return None if side is None else PROFILES_BY_SIDE.get(side)

    def advice(self) -> str:
        """Return advice on how to get labelled images from the folder."""
        return advice(self.kind, self.root)

    def refusal(self, reader: str) -> str:
        """Return one sentence on why a command cannot read labelled images from the folder, and what to do.

        Args:
            reader: What the command reads, such as ``'clean or corrupted images in class folders'``.
        """
        return f"expected {reader}, got {self.title} in {self.root}: {self.advice()}"


def recognise(root: Path) -> Recognised:
    """Recognise a folder from names, a few entries of each folder in it, and the headers of a few images.

    Raises:
        FileNotFoundError: There is no such folder.
        InputError: Two folders are for the same corruption and severity.
        OSError: The folder cannot be read.
    """
    if root.is_file() and root.suffix == ".parquet" and (rows := _rows(root, [root.name])) is not None:
        return rows
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of images, got {root}: there is no such folder")
    contents = look(root)
    if not (contents.folders or contents.images or contents.others):
        return Recognised("empty", root, "an empty folder")
    found = _structure(root, contents)
    return found if found is not None else _folders(root, contents)


def _structure(root: Path, contents: Contents) -> Recognised | None:
    """Recognise a folder from structure and file types; None if these do not suffice, as for class folders."""
    if (tiny := _tiny_imagenet(root, contents)) is not None:
        return tiny
    if not contents.folders and (rows := _rows(root, contents.others)) is not None:
        return rows
    if "annotations" in contents.folders and any(n.endswith(".json") for n in peek(root / "annotations").others):
        return Recognised("coco", root, "a COCO data set (annotations/*.json)")
    found = find_corruptions(root, contents)
    if found.cells:
        return _corrupted(root, found)
    if found.unknown:
        benchmark = benchmark_of(found.unknown)
        named = f" of {benchmark}" if benchmark else ""
        title = (
            f"images corrupted already, by corruptions{named} that dtn-det does not evaluate ({listed(found.unknown)})"
        )
        return Recognised("unknown_corruptions", root, title, benchmark, corruptions=found)
    return _part_of_a_tree(root, contents)


def _rows(root: Path, names: Sequence[str]) -> Recognised | None:
    """Recognise files whose rows are images; None if there are none."""
    found = find_rows(root, names)
    if found is None:
        return None
    return Recognised(found.kind, root, found.title, found.dataset, (), "labels", sizes=found.sizes)


def _folders(root: Path, contents: Contents) -> Recognised:
    """Recognise class folders, or images outside of class folders."""
    kind = naming(contents.folders)
    if kind == "wnids":
        return _class_folders(root, contents.folders)
    inner = root / "val"
    if "val" in contents.folders and naming(inside := tuple(subfolders(inner))) == "wnids":
        found = _class_folders(inner, inside)
        return replace(found, remarks=(*found.remarks, *_other_splits(root, contents)))
    if contents.folders and {name.lower() for name in contents.folders} <= _SPLITS:
        return _splits(root, contents)
    if contents.folders and not contents.images:
        return _unsorted(root, contents.folders) or _class_folders(root, contents.folders)
    if contents.images or contents.folders:
        unsorted = any(name.startswith(_ILSVRC) for name in contents.images)
        what = "images that are in no class folder" if contents.images else "folders without images"
        return Recognised("images", root, what, "ImageNet" if unsorted else "", contents.folders)
    return Recognised("empty", root, f"a folder without images ({listed(contents.others)})")


def _unsorted(root: Path, folders: tuple[str, ...]) -> Recognised | None:
    """Recognise unsorted parts of ImageNet by the names of files: in one folder, or in folders named like splits."""
    splits = all(map(_SPLIT_LIKE.fullmatch, folders))
    alone = len(folders) == 1 and naming(folders) == "names" and not has_english_names(folders, fewest=1)
    if not splits and not alone:
        return None
    names = [peek(root / folder).images for folder in folders]
    if not any(names) or not all(map(_of_several_classes, filter(None, names))):
        return None
    where = "folders named like splits" if splits else "one folder"
    title = f"images of ImageNet that are not sorted into classes, in {where} ({listed(folders)})"
    return Recognised("unsorted", root, title, "ImageNet", folders)


def _of_several_classes(names: Sequence[str]) -> bool:
    """Return whether all files are named like ImageNet's and their names do not all have the same wnid."""
    if all(name.startswith(_ILSVRC) for name in names):
        return True
    wnids = [match[0] if (match := _TRAINING.match(name)) else "" for name in names]
    return all(wnids) and len(set(wnids)) > 1


def _mixed_folders(root: Path, folders: Sequence[str]) -> tuple[Remark, ...]:
    """Return a remark on folders that are named by words but hold training images of several of ImageNet's classes."""
    mixed = []
    for folder in spread(folders):
        names = peek(root / folder).images
        if names and not names[0].startswith(_ILSVRC) and _of_several_classes(names):
            mixed.append(folder)
    if not mixed:
        return ()
    what = (
        "of the folders that were looked at have images of several of ImageNet's classes, by the wnids in the files' "
        "names; each folder is taken as one class"
    )
    return (Remark("several_wnids", what, str(root), len(mixed), mixed),)


def _class_folders(root: Path, folders: tuple[str, ...]) -> Recognised:
    paths = sample_images(root, folders)
    sizes, names = image_sizes(paths), [path.name for path in paths]
    classes = guess_numbering(folders)
    _check_one_set(root, folders, names)
    dataset = _dataset(root, folders, names)
    if dataset in SUBSETS.values():
        classes = dataset.lower()
    if dataset == "ImageNet":
        classes = "imagenet"  # also of folders named by numbers, which are checked against the files when listed
    if not dataset and _is_tiny(folders, sizes):
        dataset, classes = "Tiny-ImageNet", "folder"
    wnids = _listed_classes(root)
    wnids = wnids if len(wnids) == _TINY_CLASSES and {*folders} <= {*wnids} else ()
    if not dataset and wnids:
        dataset, classes = "Tiny-ImageNet", "folder"
    kind = naming(folders)
    count = f"{len(folders):,} class folder{'' if len(folders) == 1 else 's'}"
    how = {"wnids": "named by wnids", "numbers": "named by whole numbers", "names": "named by words"}[kind]
    title = f"{dataset}, {count} {how}" if dataset else f"{count} {how} ({listed(folders, 3)})"
    inner = inner_folders(root, folders)
    remarks = (*(_mixed_folders(root, folders) if kind == "names" else ()), *pooled_remarks(inner, root))
    return Recognised("class_folders", root, title, dataset, folders, classes, wnids, sizes, None, remarks, inner)


def _check_one_set(root: Path, folders: Sequence[str], names: Sequence[str]) -> None:
    """Check that class folders belong to a single set, and that ImageNet-R and ImageNet-A have only their 200 folders.

    Raises:
        InputError: The files are named as in two sets, or other folders lie beside the 200 of ImageNet-R or ImageNet-A.
    """
    if naming(folders) != "wnids" or len(names) < 2:
        return
    patterns = {"ImageNet-R": _RENDITION, "ImageNet-A": _NATURAL_ADVERSARIAL, "ImageNet's validation set": _VALIDATION}
    fitting = [{title for title, pattern in patterns.items() if pattern.match(name)} for name in names]
    if all(fitting) and not set.intersection(*fitting):
        first, other = fitting[0], next(one for one in fitting if not one & fitting[0])
        examples = (names[fitting.index(first)], names[fitting.index(other)])
        raise InputError(
            f"expected class folders of one set in {root}, got files named as those of {first.pop()} ({examples[0]}) "
            f"and of {other.pop()} ({examples[1]}): keep each set in a folder of its own"
        )
    for dataset in SUBSETS.values():
        known = imagenet_subset(dataset.lower().replace("-", "_"))
        strangers = [name for name in folders if name not in known]
        named = root.name.lower() == dataset.lower() or all(dataset in each for each in fitting)
        sketches = len(folders) > len(known) + 1 and all(map(_SKETCH.match, names))
        if known and named and strangers and not sketches and len(strangers) < len(folders) / 2:
            raise InputError(
                f"expected the {len(known)} class folders of {dataset} in {root}, got {quoted(strangers)} besides: "
                "move what is of another set away, or rename the folder if it is another set"
            )


def _version(root: Path) -> str:
    """Return the version of ImageNet-V2 in a folder's name, with a blank before it; empty if there is none."""
    found = [name for name in ("matched-frequency", "threshold0.7", "threshold-0.7", "top-images") if name in root.name]
    return f" {found[0].replace('threshold-0', 'threshold0')}" if found else ""


def _dataset(root: Path, folders: Sequence[str], names: Sequence[str]) -> str:
    """Return the name of the ImageNet variant to which names of folders and files belong; empty if they match none."""
    kind = naming(folders)
    if names and all(name.startswith(_ILSVRC) for name in names):
        return "ImageNet"
    if kind == "numbers":
        return f"ImageNet-V2{_version(root)}" if len(folders) == _ALL_CLASSES else ""
    if kind != "wnids":
        return ""
    if names and len(folders) > _TINY_CLASSES and all(_SKETCH.match(name) for name in names):
        return "ImageNet-Sketch"
    for dataset, pattern in (("ImageNet-R", _RENDITION), ("ImageNet-A", _NATURAL_ADVERSARIAL)):
        known = imagenet_subset(dataset.lower().replace("-", "_"))
        named = root.name.lower() == dataset.lower() or bool(names and all(pattern.match(name) for name in names))
        if known and (set(folders) == known or (named and set(folders) <= known)):
            return dataset
    return ""


def _is_tiny(folders: Sequence[str], sizes: frozenset[tuple[int, int]]) -> bool:
    wnids = sum(WNID.fullmatch(name) is not None for name in folders)
    return wnids == len(folders) == _TINY_CLASSES and square_side(sizes) == _TINY_SIDE


def _tiny_imagenet(root: Path, contents: Contents) -> Recognised | None:
    """Recognise Tiny-ImageNet's validation images as downloaded, with a file that names their classes."""
    for folder, names in ((root, contents), (root / "val", None)):
        if names is None:
            if "val" not in contents.folders:
                continue
            names = peek(folder)
        if "val_annotations.txt" in names.others and "images" in names.folders:
            sizes = image_sizes(sample_images(folder, ("images",)))
            title = "Tiny-ImageNet's validation images as downloaded (val_annotations.txt names their classes)"
            remarks = () if folder == root else _other_splits(root, contents)
            wnids = _listed_classes(folder)
            return Recognised(
                "tiny_imagenet_val", folder, title, "Tiny-ImageNet", (), "folder", wnids, sizes, None, remarks
            )
    return None


def _listed_classes(root: Path) -> tuple[str, ...]:
    """Read the classes in Tiny-ImageNet's ``wnids.txt``, a file that lies beside the folders of the splits."""
    for folder in (root, root.resolve().parent):
        path = folder / "wnids.txt"
        names = path.read_text(errors="replace").split() if path.is_file() else []
        if names and all(map(WNID.fullmatch, names)):
            return tuple(sorted(set(names)))
    return ()


def _corrupted(root: Path, found: CorruptionFolders) -> Recognised:
    first = found.cells[min(found.cells)]
    folders = tuple(subfolders(first))
    inside = _class_folders(first, folders)
    tiny = inside.dataset == "Tiny-ImageNet"
    catalog = catalog_for(found.names)
    dataset = catalog.title if inside.classes == "imagenet" and catalog is not CIFAR_C_BAR_CATALOG else ""
    if tiny:
        dataset = "Tiny-ImageNet-C" if catalog is IMAGENET_C_CATALOG else ""
    corruptions = len({name for name, _ in found.cells})
    title = (
        f"{dataset or 'images'} corrupted already ({corruptions} corruption{'' if corruptions == 1 else 's'}; "
        f"{inside.title})"
    )
    passed_over = (
        (
            "unknown_corruptions",
            "{folder of a corruption|folders of corruptions} that dtn-det does not evaluate {was|were} passed over",
            found.unknown,
        ),
        (
            "other_severities",
            "{folder beside those of severities 1 to 5 was|folders beside those of severities 1 to 5 were} passed over",
            found.beside,
        ),
    )
    remarks = tuple(
        Remark(kind, agreeing(len(names), what), str(root), len(names), names)
        for kind, what, names in passed_over
        if names
    )
    remarks += pooled_remarks(inside.inner, root)
    return replace(
        inside, kind="corrupted", root=root, title=title, dataset=dataset, corruptions=found, remarks=remarks
    )


def _part_of_a_tree(root: Path, contents: Contents) -> Recognised | None:
    """Recognise the folder of one corruption or one severity in a corrupted tree. Its images are not clean."""
    folders = contents.folders
    if not folders or contents.images:
        return None
    severities = len(folders) <= len(SEVERITIES) and all(is_severity(name) for name in folders)
    if severities and all(holds_classes(root / name) for name in folders):
        title = f"the severities of one corruption ({listed(folders)})"
        return Recognised("one_corruption", root, title)
    here = root.resolve()
    if is_severity(here.name) and is_corruption(here.parent.name):
        title = f"images corrupted already, those of {here.parent.name} at severity {here.name}"
        return Recognised("one_cell", root, title)
    return None


def _splits(root: Path, contents: Contents) -> Recognised:
    """Recognise the splits of a data set: ``val`` is used, as for ImageNet. Users must name other splits themselves."""
    inner = root / "val"
    if "val" in contents.folders and holds_classes(inner):
        found = recognise(inner)
        return replace(found, remarks=(*found.remarks, *_other_splits(root, contents)))
    return Recognised(
        "splits", root, f"the splits of a data set ({listed(contents.folders)})", folders=contents.folders
    )


def _other_splits(root: Path, contents: Contents) -> tuple[Remark, ...]:
    """Return a remark on the folders beside ``val``."""
    others = tuple(name for name in contents.folders if name != "val")
    if not others:
        return ()
    what = agreeing(
        len(others),
        "{folder beside val was passed over: name it|folders beside val were passed over: name one of them} to take it",
    )
    return (Remark("split", what, str(root), len(others), others),)
