"""The images of a folder, and where each goes in a corrupted tree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dtn_det.corruptions.stream import WNID, Key
from dtn_det.datasets.choosing import choose_paths
from dtn_det.datasets.folders.class_folders import list_clean, no_images
from dtn_det.datasets.folders.image_files import OtherFiles, mask_remarks, quoted, walk_images
from dtn_det.datasets.folders.recognise import Recognised, recognise
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError

LAYOUTS = ("imagenet", "coco", "plain")


@dataclass(frozen=True)
class SourceImage:
    """An image to be corrupted.

    Attributes:
        key: Identity of the image, from which its randomness follows.
        target: Path of its corrupted copy within the folder of each corruption and severity.
    """

    path: Path
    key: Key
    target: PurePosixPath

    @property
    def name(self) -> str:
        """The path as printable text, with escapes for bytes that are not text."""
        return str(self.path).encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Source:
    """A folder of images.

    Attributes:
        images: All its images, sorted by target.
        annotations: COCO's annotation files, by their paths within the tree, which are also their paths within each
            corruption and severity. A value is the path of a file to be copied, or the new content of a changed file.
        classes: All class folders, including folders without images; empty if there are no class folders.
    """

    layout: str
    images: tuple[SourceImage, ...]
    annotations: dict[PurePosixPath, Path | bytes] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """A hash of the keys and targets of the images. It identifies a set of images wherever the set lies."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(f"{image.key}\0{image.target}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def list_folder(root: Path, layout: str) -> Source:
    """List a folder in ImageNet's layout, with class folders named by WordNet ids, or in the plain layout.

    Links are followed. Hidden files, and files without the extension of an image, are skipped.

    Args:
        root: The folder; in ImageNet's layout, the class folders may lie in its folder ``val``.
        layout: ``'imagenet'`` or ``'plain'``.

    Raises:
        InputError: The folder holds no images, or, in ImageNet's layout, no class folders, or other folders beside
            them.
        OSError: A folder cannot be read.
    """
    found = recognise(root)
    return list_classes(found) if layout == "imagenet" else list_plain(root, found)


def list_plain(root: Path, found: Recognised) -> Source:
    """List all images below a folder, whatever it was recognised as.

    Raises:
        InputError: The folder holds no images.
    """
    others = OtherFiles()
    paths = list(walk_images(str(root), "", others))
    if not paths:
        raise InputError(no_images(root, others))
    images = sort_images([_source_image(root / path, path) for path in paths])
    same = found.root == root
    classes = found.folders if found.kind == "class_folders" and same else ()
    remarks = (*(found.remarks if same else ()), *others.remarks(root), *mask_remarks(paths, root))
    return Source("plain", images, remarks=remarks, classes=classes)


def list_classes(found: Recognised) -> Source:
    """List the images of a recognised folder in ImageNet's layout.

    Raises:
        InputError: See :func:`list_folder`.
    """
    strangers = [name for name in found.folders if not WNID.fullmatch(name)]
    if found.kind != "tiny_imagenet_val" and (found.classes != "imagenet" and len(strangers) == len(found.folders)):
        raise InputError(
            f"expected class folders such as n01440764 in {found.root} for --layout imagenet, got none: "
            "name the folder that holds them, or take --layout plain"
        )
    if strangers and len(strangers) < len(found.folders):
        raise InputError(
            f"expected class folders such as n01440764 in {found.root}, got {quoted(strangers)} beside them: move them "
            "away, or take --layout plain"
        )
    listing = list_clean(found)
    images = sort_images([_source_image(Path(path), key) for key, path in listing.paths.items()])
    where = found.root
    remarks = (*found.remarks, *listing.others.remarks(where), *mask_remarks(listing.paths, where))
    return Source("imagenet", images, remarks=remarks, classes=tuple(sorted({*listing.folders, *found.listed_classes})))


def sort_images(images: Sequence[SourceImage]) -> tuple[SourceImage, ...]:
    """Sort images by target."""
    return tuple(sorted(images, key=lambda image: image.target))


def choose(source: Source, limit: int | None, seed: int) -> tuple[SourceImage, ...]:
    """Choose images of a source by their targets: see :func:`dtn_det.datasets.choosing.choose_paths`.

    Raises:
        InputError: The limit is below 1.
    """
    if limit is None:
        return source.images
    by_target = {str(image.target): image for image in source.images}
    return tuple(by_target[target] for target in choose_paths(list(by_target), limit, seed))


def _source_image(path: Path, key: str) -> SourceImage:
    return SourceImage(path, key, PurePosixPath(key))
