"""Plan what a corrupted tree will hold, before it is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from PIL import Image

from dtn_det.corrupted_folders.layouts import LAYOUTS, Source, list_classes, list_coco, list_plain
from dtn_det.corrupted_folders.manifest import Manifest
from dtn_det.corrupted_folders.worker import WRITABLE, Job
from dtn_det.corruptions.catalog import check_name
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.profiles import get_profile
from dtn_det.datasets.folders.recognise import READ_BY_CLASS, Recognised, recognise
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import InputError

FORMATS = ("source", "jpeg", "png")
PROFILES_BY_LAYOUT = {"imagenet": "imagenet-c", "coco": "coco-c", "plain": "coco-c"}
"""The profile of the benchmark that a layout suggests, by the layout."""

_NOT_CLEAN = ("corrupted", "unknown_corruptions", "one_corruption", "one_cell")


@dataclass(frozen=True)
class TreePlan:
    """A corrupted tree to be written.

    Attributes:
        source: The clean images. The target path of each already has the extension of `file_format`.
        cropped: True to resize and crop the clean images as for ImageNet-C.
        file_format: ``'source'`` for files of the same kind as the clean files, ``'jpeg'`` or ``'png'``.
        limit: Largest number of images to corrupt. They are chosen at random, the same ones in every run. None for all.
    """

    destination: Path
    source: Source
    corruptor: Corruptor
    cells: tuple[tuple[str, int], ...]
    cropped: bool
    file_format: str
    limit: int | None = None

    @property
    def manifest(self) -> Manifest:
        """The manifest of the tree: what all its images have in common."""
        source = self.source
        return Manifest(
            self.corruptor.identity,
            source.layout,
            self.cropped,
            self.file_format,
            len(source.images),
            source.digest,
            source.classes,
            self.limit if self.limit is not None and self.limit < len(source.images) else None,
        )

    @property
    def summary(self) -> str:
        """A one-line description of the files to be written, for the terminal."""
        images = "resized to 256 and cropped to 224" if self.cropped else "of their own size"
        files = "files as the source" if self.file_format == "source" else f"{self.file_format} files"
        return f"{self.source.layout} layout, images {images}, {files}; {self.corruptor.identity}"

    @property
    def job(self) -> Job:
        """The settings with which the worker processes corrupt each image."""
        # MMDetection rotates images by their EXIF orientation. ImageNet-C was made from the pixels as stored.
        upright = self.source.layout != "imagenet" and not self.cropped
        return Job(self.destination, self.corruptor, self.cells, self.cropped, upright)


def find_layout(found: Recognised) -> str:
    """Return the layout of a folder: ``coco`` with annotation files, ``imagenet`` with wnid folders, else ``plain``.

    Raises:
        InputError: The images are corrupted already, or are NumPy arrays.
    """
    if found.kind in _NOT_CLEAN:
        raise InputError(
            f"expected clean images, got {found.title} in {found.root}: name a folder of clean ones, or corrupt these "
            "as they are with --layout plain"
        )
    if found.kind in ("arrays", "array_corruptions", "array_images", "batches", "parquet"):
        raise InputError(found.refusal("a folder of images"))
    if found.kind == "coco":
        return "coco"
    return "imagenet" if found.classes.startswith("imagenet") or found.kind == "tiny_imagenet_val" else "plain"


def plan_tree(
    root: Path,
    destination: Path,
    corruptions: Sequence[str],
    severities: Sequence[int],
    *,
    layout: str = "auto",
    annotations: Sequence[Path] = (),
    images: Path | None = None,
    corruptor: Callable[[str], Corruptor] = Corruptor,
    crop: bool | None = None,
    file_format: str | None = None,
    limit: int | None = None,
) -> TreePlan:
    """Look at a folder of images and decide what will be written.

    Args:
        layout: ``'auto'`` or one of :data:`LAYOUTS`.
        corruptor: Function that makes the corruptor, given the name of the benchmark that the layout suggests.
        crop: Whether to resize and crop as for ImageNet-C; None to do so in ImageNet's layout with the profiles
            ``imagenet-c`` and ``imagenet-c-bar``, as the authors of these benchmarks did.
        file_format: One of :data:`FORMATS`; None for JPEG in ImageNet's layout and for the format of the source
            otherwise.

    Raises:
        InputError: An argument is invalid, or the folder cannot be corrupted with these arguments.
        FileNotFoundError: There is no such folder, or an annotation file or image folder is missing.
    """
    check_folders(root, destination)
    found = recognise(root)
    as_it_is = layout == "plain"
    if layout == "auto":
        layout = "coco" if annotations else find_layout(found)
    if layout not in LAYOUTS:
        raise InputError(f"expected a layout out of auto, {', '.join(LAYOUTS)}, got {layout!r}")
    if layout != "coco" and (annotations or images is not None):
        raise InputError(f"expected --layout coco with --annotations or --images, got {layout!r}: leave them out")
    if layout == "coco":
        source = list_coco(root, annotations, images)
    elif layout == "imagenet":
        source = list_classes(found)
    else:
        source = list_plain(root if as_it_is else found.root, found)
    chosen = corruptor(_suggested_profile(found, layout))
    file_format = file_format or ("jpeg" if layout == "imagenet" else "source")
    if crop is None:
        crop = layout == "imagenet" and chosen.rules.cropped
    for name in corruptions:
        check_name(name, chosen.rules.catalog)
    if not crop:
        _check_first_size(source, chosen)
    cells = tuple((name, severity) for name in corruptions for severity in severities)
    return TreePlan(destination, _with_suffixes(source, file_format), chosen, cells, crop, file_format, limit)


def _suggested_profile(found: Recognised, layout: str) -> str:
    """Return the profile of small images if class folders hold such images, else the profile of the layout."""
    of_size = found.profile if found.kind in READ_BY_CLASS else None
    return of_size if of_size is not None and get_profile(of_size).is_small else PROFILES_BY_LAYOUT[layout]


def _check_first_size(source: Source, corruptor: Corruptor) -> None:
    """Refuse a folder whose first image has a size for which the corruptions of the profile are not defined."""
    try:
        with Image.open(source.images[0].path) as image:
            width, height = image.size
    # Unreadable images, and later images of other sizes, are reported when they are to be corrupted.
    except Exception:
        return
    corruptor.rules.check_size(width, height)


def check_folders(root: Path, destination: Path) -> None:
    """Check that the images of one folder can be corrupted into another folder.

    Raises:
        FileNotFoundError: ``root`` does not exist.
        InputError: ``root`` is empty, or ``destination`` is ``root``, lies within it, or is a broken link.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"expected SRC to be a folder of images, got {root}: there is no such folder")
    if not any(root.iterdir()):
        raise InputError(f"expected SRC to hold images, got the empty folder {root}")
    if destination.is_symlink() and not os.path.exists(destination):
        raise InputError(f"expected DST to be a folder, got {destination}, a link that leads nowhere: name another")
    # os.path.realpath is used, because Path.resolve raises an error for a link that leads to itself.
    if Path(os.path.realpath(destination)).is_relative_to(os.path.realpath(root)):
        raise InputError(f"expected DST to lie outside SRC, got {destination} for SRC {root}: name another")


def _with_suffixes(source: Source, file_format: str) -> Source:
    """Return the source with the suffix of each target path changed to that of a file format.

    Raises:
        InputError: The format is unknown, or two images would get the same target path.
    """
    if file_format not in FORMATS:
        raise InputError(f"expected a file format out of {', '.join(FORMATS)}, got {file_format!r}")
    if file_format != "source":
        # The files of ImageNet-C have the extension .JPEG.
        suffix = ".png" if file_format == "png" else ".JPEG" if source.layout == "imagenet" else ".jpg"
        return _renamed_images(source, {image.target: suffix for image in source.images}, "take --format source")
    # COCO's annotation files name the images, so the names keep their extensions.
    if source.layout == "coco":
        return source
    others = [image for image in source.images if image.target.suffix.lower() not in WRITABLE]
    if not others:
        return source
    endings = sorted({image.target.suffix.lower() for image in others})
    remark = Remark(
        "written_as_png",
        f"{agreeing(len(others), '{image is|images are}')} written as .png, for {', '.join(endings)} is read and not "
        "written",
        str(others[0].path.parent),
        len(others),
        tuple(str(image.target) for image in others[:3]),
    )
    renamed = _renamed_images(source, {image.target: ".png" for image in others}, "convert them")
    return replace(renamed, remarks=(*renamed.remarks, remark))


def _renamed_images(source: Source, suffixes: Mapping[PurePosixPath, str], advice: str) -> Source:
    """Return the source with some target paths changed; ``suffixes`` maps these paths to their new suffixes."""
    images = tuple(
        replace(image, target=image.target.with_suffix(suffixes[image.target])) if image.target in suffixes else image
        for image in source.images
    )
    (target, count), *_ = Counter(image.target for image in images).most_common(1)
    if count > 1:
        raise InputError(
            f"expected images whose names differ in more than their suffix, got {count} that would become {target}: "
            f"rename them, or {advice}"
        )
    return replace(source, images=images)
