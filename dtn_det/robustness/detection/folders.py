"""Read a COCO data set without a config: find the annotation file and the images in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dtn_det.datasets.choosing import choose_ids
from dtn_det.datasets.coco import CocoFile, read_coco_file
from dtn_det.datasets.coco.names import find_holders, is_elsewhere
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError
from dtn_det.robustness.detection.data import DetectionData
from dtn_det.robustness.detection.truth import rule_remarks, truth_of

_BENCHMARK = "instances_val2017.json"
"""The annotation file of COCO-C's images, which is taken where a folder has others too."""
_LOOKED_AT = 20


def read_folder(
    root: Path | None,
    annotations: Path | None = None,
    images: Path | None = None,
    limit: int | None = None,
    limit_seed: int = 0,
) -> DetectionData:
    """Read all images and categories of a COCO set.

    Images are turned by their EXIF orientation, as MMDetection reads them, unless the annotated sizes are those of the
    images as they are stored.

    Args:
        root: Folder of the data set, in which what is not given is searched for; None if both files are given.
        annotations: The annotation file, also relative to ``root``.
        images: Folder of the images, also relative to ``root``.
        limit: Largest number of images to evaluate. They are chosen at random, the same ones in every run. None for
            all.

    Raises:
        InputError: There is no annotation file or image folder, or there are several.
        AnnotationError: The annotation file is damaged, or has no images or objects.
    """
    if root is not None and not root.is_dir():
        raise InputError(f"expected a folder as --data-root, got {root}: name the folder of a COCO data set")
    remarks: list[Remark] = []
    if annotations is None:
        if root is None:
            raise InputError("expected --data-root DIR or --ann FILE, got neither: name the COCO set to evaluate")
        annotations, told = _find_annotations(root)
        remarks += told
    else:
        annotations = _within(root, annotations, "--ann")
    folder = None if images is None else _within(root, images, "--images")
    if folder is not None and not folder.is_dir():
        raise InputError(f"expected a folder as --images, got {folder}: name the folder of the images")
    file = read_coco_file(annotations)
    if folder is None:
        folder = _find_images(file, root or annotations.parent)
    file = file.with_folder(folder)
    file.check_objects()
    file.check_sizes()
    ids = [row["id"] for row in file.images]
    indices = choose_ids(ids, limit, limit_seed)
    categories = [row["id"] for row in file.categories]
    truth = truth_of(file, [ids[index] for index in indices], categories, federated=file.is_federated)
    truth.check_objects(annotations)
    paths = tuple(one.file if is_elsewhere(one.file) else os.path.join(folder, one.file) for one in truth.images)
    limited = len(indices) < len(ids)
    data = DetectionData(
        str(os.path.relpath(annotations, root) if root is not None else annotations.name),
        file,
        truth,
        f"limit={len(indices)} of {len(ids)} seed={limit_seed}" if limited else "all",
        paths,
        as_stored=False,
        remarks=(*remarks, *rule_remarks(file)),
    )
    return _oriented(data)


def _oriented(data: DetectionData) -> DetectionData:
    """Choose by the annotated sizes whether images are turned by EXIF."""
    turned = data.orientations()
    if turned.swapped and not turned.agreeing:
        stored = replace(data, as_stored=True)
        if not stored.orientations().swapped:
            what = "{image|images} with an EXIF orientation read as stored, because the annotated sizes are so"
            words = what.replace("{image|images}", "image" if len(turned.swapped) == 1 else "images")
            remark = Remark("read_as_stored", words, str(data.file.path), len(turned.swapped), turned.swapped[:3])
            return replace(stored, remarks=(*data.remarks, remark))
    return replace(data, remarks=(*data.remarks, *turned.remarks()))


def _within(root: Path | None, path: Path, option: str) -> Path:
    """Return a path that is given as it is or relative to the root."""
    found = path if path.exists() or root is None else root / path
    if not found.exists():
        raise FileNotFoundError(f"expected a file or folder as {option}, got {path}: there is none")
    return found


def _find_annotations(root: Path) -> tuple[Path, list[Remark]]:
    found = [
        path for folder in (root / "annotations", root) for path in sorted(folder.glob("*.json")) if _is_coco(path)
    ]
    if not found:
        raise InputError(
            f"expected a COCO annotation file in {root} or {root / 'annotations'}, got none: name it with --ann"
        )
    if len(found) == 1:
        return found[0], []
    chosen = [path for path in found if path.name == _BENCHMARK]
    if len(chosen) != 1:
        names = ", ".join(str(path.relative_to(root)) for path in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise InputError(
            f"expected one annotation file in {root}, got {len(found)}: {names}{more}: name one with --ann"
        )
    what = f"annotation file taken of {len(found)}, because its images are those of COCO-C"
    return chosen[0], [Remark("annotation_file", what, str(chosen[0]))]


def _is_coco(path: Path) -> bool:
    """Return whether a file seems to be an annotation file with objects, by its beginning, or by all of a small one."""
    # Captions and keypoints of COCO itself lie beside its boxes.
    if path.name.startswith(("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")):
        return False
    if path.stat().st_size > 1 << 22:
        return True
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return path.name.startswith("instances_")
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def _find_images(file: CocoFile, root: Path) -> Path:
    """Return the folder that has the images of an annotation file.

    Raises:
        InputError: No folder has them, or several do.
    """
    names = [row["file_name"] for row in file.images]
    looked_at = names[:: max(1, len(names) // _LOOKED_AT)]
    if all(map(is_elsewhere, looked_at)):
        return root
    whole: dict[str, Path] = {}
    for folder in _candidates(file.path, root):
        if folder.is_dir() and all((folder / name.replace("\\", "/")).is_file() for name in looked_at):
            whole.setdefault(os.path.realpath(folder), folder)
    found = list(whole.values())
    if len(found) > 1:
        found = [folder for folder in found if folder.name in file.path.stem] or found
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        listed = ", ".join(map(str, found[:5]))
        raise InputError(f"expected one folder with the images of {file.path}, got {listed}: name one with --images")
    holders = find_holders(root, names)
    if holders.only is not None:
        return holders.only
    near = next((f", but {folders[0] / name}" for name, folders in holders.places.items()), "")
    raise InputError(
        f"expected the images of {file.path} in a folder of {root}, got none that has them all, such as "
        f"{looked_at[0]!r}{near}: name their folder with --images, or fetch them"
    )


def _candidates(annotations: Path, root: Path) -> Iterator[Path]:
    """Yield the folders in which the images of a COCO set usually lie."""
    split = annotations.stem.rpartition("_")[2]
    for base in dict.fromkeys((root, annotations.parent, annotations.parent.parent)):
        yield from (base / split, base / "images" / split, base / "images", base)
