"""List the images of a folder, with the path of each in the corrupted tree."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NoReturn

from dtn_det.corruptions.stream import WNID, Key
from dtn_det.datasets.choosing import choose_paths
from dtn_det.datasets.coco import CocoFile, read_coco_file
from dtn_det.datasets.coco.names import folder_into_name, is_elsewhere, is_there, twin_of, unquoted_advice
from dtn_det.datasets.coco.orientation import find_orientations
from dtn_det.datasets.coco.values import Id
from dtn_det.datasets.folders.class_folders import list_clean, no_images
from dtn_det.datasets.folders.image_files import OtherFiles, mask_remarks, quoted, walk_images
from dtn_det.datasets.folders.recognise import Recognised, recognise
from dtn_det.datasets.remarks import Remark, counted_remark
from dtn_det.errors import InputError

LAYOUTS = ("imagenet", "coco", "plain")
ANNOTATION_FOLDER = "annotations"
_SAMPLE = 50


@dataclass(frozen=True)
class SourceImage:
    """An image to be corrupted.

    Attributes:
        key: Identity of the image: the seed of its random numbers depends on it.
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
        annotations: COCO's annotation files by their paths in the folder of each corruption and severity. A value is
            the path of a file to copy, or the new content of a changed file.
        classes: All class folders, including folders without images; empty if there are no class folders.
    """

    layout: str
    images: tuple[SourceImage, ...]
    annotations: dict[PurePosixPath, Path | bytes] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """A hash of the keys and targets of the images, independent of the folder in which they lie."""
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
        InputError: The folder holds no images. Or, in ImageNet's layout, it holds no class folders, or it also holds
            other folders.
        OSError: A folder cannot be read.
    """
    found = recognise(root)
    return list_classes(found) if layout == "imagenet" else list_plain(root, found)


def list_plain(root: Path, found: Recognised) -> Source:
    """List all images below a folder in the plain layout.

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
    """Choose images of a source at random with :func:`dtn_det.datasets.choosing.choose_paths`.

    The targets identify the images. Without a limit, all images are returned.

    Raises:
        InputError: The limit is below 1.
    """
    if limit is None:
        return source.images
    by_target = {str(image.target): image for image in source.images}
    return tuple(by_target[target] for target in choose_paths(list(by_target), limit, seed))


def _source_image(path: Path, key: str) -> SourceImage:
    return SourceImage(path, key, PurePosixPath(key))


def find_annotations(root: Path) -> list[Path]:
    """Return the JSON files in the folder ``annotations`` of a data set."""
    return sorted((root / ANNOTATION_FOLDER).glob("*.json"))


def list_coco(root: Path, annotations: Sequence[Path], images: Path | None = None) -> Source:
    """List the images that annotation files name.

    Args:
        annotations: The annotation files, relative to the current folder or else to ``root``; if empty, the only file
            in ``root/annotations``.
        images: Folder of the images, relative to ``root``; None to search for it below ``root``.

    Raises:
        AnnotationError: A file is not a COCO annotation file, or COCO's evaluation would fail on it. Or the size of an
            image is not the annotated size, for example because of its EXIF orientation.
        InputError: Several files or several image folders could be meant, or two files have different ids for an image.
        FileNotFoundError: A file or folder is missing.
    """
    paths = [_resolve(root, path) for path in annotations] or _only(root)
    found: dict[PurePosixPath, SourceImage] = {}
    files: dict[PurePosixPath, Path | bytes] = {}
    remarks = []
    for path in paths:
        file = read_coco_file(path)
        folder = image_folder(root, file) if images is None else _given_folder(root, images)
        file = file.with_folder(folder)
        orientations = find_orientations(path, file.images, folder)
        orientations.check()
        remarks += [*file.remarks, *orientations.remarks()]
        own: dict[PurePosixPath, Key] = {}
        shared = set()
        for image in file.images:
            key = _key(image["id"])
            target = PurePosixPath(folder.relative_to(root).as_posix()) / _name(file, image["file_name"])
            if target in own:
                # List an image file once even if it has several ids, because there is only one corrupted copy.
                shared.add(target)
                key = own[target]
            own[target] = key
            known = found.setdefault(target, SourceImage(folder / image["file_name"], key, target))
            if known.key != key:
                raise InputError(
                    f"expected one id for the image {target}, got {known.key!r} and {key!r} in two annotation files: "
                    "corrupt each file's images into a folder of their own, with one --annotations at a time"
                )
        if shared:
            what = (
                "{image file of several ids is|image files of several ids are} corrupted once, with the randomness of "
                "the first id; dtn-det mpc on the clean images gives each id its own"
            )
            remarks.append(counted_remark(path, "files_corrupted_once", what, sorted(map(str, shared))))
        # Write the corrected content of changed files, because other readers would misread or refuse the original.
        files[_target(root, path)] = json.dumps(file.content()).encode() if file.changed else path
    return Source("coco", sort_images(list(found.values())), files, tuple(remarks))


def rename_images(annotations: bytes, suffix: str) -> bytes:
    """Return an annotation file in which the file names of all images have the extension ``suffix``."""
    content = json.loads(annotations)
    for image in content["images"]:
        image["file_name"] = str(PurePosixPath(image["file_name"]).with_suffix(suffix))
    return json.dumps(content).encode()


def _only(root: Path) -> list[Path]:
    found = find_annotations(root)
    if not found:
        raise FileNotFoundError(
            f"expected annotation files in {root / ANNOTATION_FOLDER}, got none: name them with --annotations"
        )
    if len(found) > 1:
        names = ", ".join(f"{ANNOTATION_FOLDER}/{path.name}" for path in found)
        raise InputError(f"expected --annotations to choose out of {names}, got none: name those you want corrupted")
    return found


def _resolve(root: Path, path: Path) -> Path:
    for candidate in (path, root / path):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"expected --annotations to name a file, got {path}: neither it nor {root / path} is one")


def _name(file: CocoFile, text: str) -> PurePosixPath:
    name = PurePosixPath(text)
    if name.is_absolute() or ".." in name.parts:
        raise InputError(
            f"expected file names below the image folder, got {text!r} in {file.path}: put the images into one folder, "
            "each once, under the last parts of their paths, or write file_name relative to the folder of the images"
        )
    return name


def _key(number: Id) -> Key:
    """Return an id as a key. Floats become text, because keys are integers or texts."""
    return str(number) if isinstance(number, float) else number


def _target(root: Path, path: Path) -> PurePosixPath:
    """Return an annotation file's path in a tree: relative to ``root``, or ``annotations/NAME`` if it is elsewhere."""
    path, root = path.resolve(), root.resolve()
    inside = path.is_relative_to(root)
    return PurePosixPath(path.relative_to(root).as_posix() if inside else f"{ANNOTATION_FOLDER}/{path.name}")


def _given_folder(root: Path, images: Path) -> Path:
    folder = root / images
    if not folder.is_dir() or not folder.resolve().is_relative_to(root.resolve()):
        raise FileNotFoundError(f"expected --images to name a folder in {root}, got {images}")
    return folder


def image_folder(root: Path, file: CocoFile, advice: str = "") -> Path:
    """Find the folder, at most two levels down, that holds most of the images of a COCO file.

    Args:
        advice: What the user can do, for the error message; empty for advice on `dtn-det corrupt`.

    Raises:
        FileNotFoundError: No folder holds any of the images.
        InputError: Several folders hold equally many images, images of the same name lie in several folders, or a name
            leads out of the folder.
    """
    names = [image["file_name"] for image in file.images]
    sample = names[:: max(1, len(names) // _SAMPLE)]
    below = [path for pattern in ("*", "*/*") for path in sorted(root.glob(pattern)) if path.is_dir()]
    folders = [root, *below]
    hits = {folder: sum(is_there(folder, name) for name in sample) for folder in folders}
    best = max(hits.values())
    if best == 0:
        _name(file, sample[0])
        first = file.images[0]["file_name"]
        twin = next((twin for folder in folders if (twin := twin_of(folder / first)) is not None), None)
        why = advice or "name their folder with --images"
        if is_elsewhere(first):
            why = "these are URLs; fetch the images and write the names of their files as file_name"
        elif decoded := next((one for folder in folders if (one := unquoted_advice(folder, first))), ""):
            why = decoded
        elif twin is not None:
            why = f"there is {twin.name}, so write the names as the files have them, as file_name"
        raise FileNotFoundError(
            f"expected the images of {file.path} in {root} or a folder in it, got none, such as {first!r}: {why}"
        )
    candidates = [folder for folder in folders if hits[folder] == best]
    # Prefer the folder of the split in the file's name, such as val/ for instances_val.json: other splits may contain
    # images with the same names.
    named = [folder for folder in candidates if folder != root and folder.name in file.path.stem]
    chosen = named if len(named) == 1 else _of_split(candidates, root, file)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if len(chosen) > 1:
        name = next((name for name in [*twice, *sample] if _having(folders, name)), "")
        having = _of_split(_having(folders, name), root, file) if name else []
        # Without folders, the error advises --images; with folders, it advises to move images. The option helps if the
        # command has it (no `advice` is given), no image is listed twice, and not exactly one folder has the image.
        _refuse(root, file, chosen, name, having if advice or twice or len(having) == 1 else [])
    # Refuse if the folder lacks images that another folder has, or if two images of one name lie in two folders.
    for name in [*(name for name in sample if not is_there(chosen[0], name)), *(twice if not named else ())]:
        having = _of_split(_having(folders, name), root, file)
        if {*having} - {chosen[0]}:
            _refuse(root, file, sorted({chosen[0], *having}), name, having)
    return chosen[0]


def _refuse(root: Path, file: CocoFile, folders: Sequence[Path], name: str, having: Sequence[Path]) -> NoReturn:
    """Raise the error that several folders could be meant; ``having`` are those that contain the image ``name``."""
    why = folder_into_name(name, having, Path(os.path.commonpath(folders))) if having else "choose with --images"
    places = ", ".join(str(folder.relative_to(root)) for folder in folders)
    raise InputError(f"expected one folder with the images of {file.path}, got {places}: {why}")


def _having(folders: Sequence[Path], name: str) -> list[Path]:
    return [folder for folder in folders if (folder / name).is_file()]


def _of_split(folders: Sequence[Path], root: Path, file: CocoFile) -> list[Path]:
    """Return the folders with a path part, such as ``val``, that is in the file's name; all folders if none has."""
    inside = [one for one in folders if any(part in file.path.stem for part in one.relative_to(root).parts)]
    return inside or list(folders)
