"""Read a result file of a detector, in COCO's result format, and check it against the images of an annotation file.

The format is a list of detections, https://cocodataset.org/#format-results: each has ``image_id``, ``category_id``,
``score``, and ``bbox`` (x, y, width, height in pixels), ``segmentation`` (run lengths) or both.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.datasets.coco import CocoFile
from dtn_det.datasets.coco.shapes import read_mask
from dtn_det.datasets.coco.values import Id, identifier, number
from dtn_det.datasets.remarks import Remark, counted_remark
from dtn_det.errors import AnnotationError
from dtn_det.metrics.coco_objects import run_lengths
from dtn_det.robustness.detection.truth import CocoTruth

# A box may reach _BEYOND pixels beyond its image. Where more than the share _MANY of all boxes reach further, the file
# may hold corners, and it is taken to if at least the share _FITTING of all boxes fits its image as corners.
_BEYOND, _MANY, _FITTING = 2.0, 0.1, 0.99


@dataclass(frozen=True)
class ResultImages:
    """What result files are checked against.

    Attributes:
        numbers: Number of each image in the store, by its id in the annotation file.
        labels: Index of each category, by its id in the annotation file.
        sizes: Height and width of each image in pixels, (images, 2).
        by_file: Id of each image whose file is named by a number, by that number.
    """

    path: Path
    numbers: Mapping[Id, int]
    labels: Mapping[Id, int]
    sizes: NDArray[np.int64]
    by_file: Mapping[int, Id] = field(default_factory=dict)

    @classmethod
    def of(cls, file: CocoFile, truth: CocoTruth) -> ResultImages:
        """Describe the images of an annotation file and of its ground truth, which has all of them in their order."""
        sizes = np.array([(image.height, image.width) for image in truth.images], np.int64).reshape(-1, 2)
        numbers = {row["id"]: place for place, row in enumerate(file.images)}
        stems = {row["id"]: PurePosixPath(row["file_name"]).stem for row in file.images}
        by_file = {int(stem): one for one, stem in stems.items() if stem.isdecimal()}
        labels = {row["id"]: label for label, row in enumerate(file.categories)}
        return cls(file.path, numbers, labels, sizes, by_file)

    def advice(self, value: object) -> str:
        """Return what to do about an image id of results that the annotation file lacks."""
        if isinstance(value, str) and not any(isinstance(one, str) for one in self.numbers):
            return "write the image's id in the annotation file, not the name of its file"
        if isinstance(value, int):
            for one in self.numbers:
                if isinstance(one, str) and one.isdecimal() and int(one) == value:
                    return f"write the id as the annotation file has it, the text {one!r}"
            if value in self.by_file:
                own = self.by_file[value]
                return f"write the ids of the annotation file, {own!r} here, not the numbers in the names of the images"
        return "name the annotation file of these images with --ann"


@dataclass(frozen=True)
class ResultRows:
    """The detections of a result file, in the order of the file.

    Attributes:
        image: Number of the image of each detection, (detections,).
        labels: Index of the category of each detection, (detections,).
        scores: Scores, (detections,).
        boxes: x, y, width and height in pixels, (detections, 4); None for a file of masks alone.
        masks: COCO's compressed run lengths of each mask; None for a file of boxes alone.
        sha256: SHA-256 of the file.
        remarks: What looks odd about the boxes.
        mask_scores: Scores of the masks, (detections,); None if they are those of the boxes.
    """

    path: Path
    image: NDArray[np.int32]
    labels: NDArray[np.int32]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64] | None
    masks: tuple[bytes, ...] | None
    sha256: str
    remarks: tuple[Remark, ...] = ()
    mask_scores: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.image)

    def corners(self, sizes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return x1, y1, x2 and y2 of each detection; without boxes, those around the masks.

        Args:
            sizes: Height and width of each image, (images, 2).
        """
        boxes = self.boxes
        if boxes is None:
            rows = zip(self.image.tolist(), self.masks or (), strict=True)
            runs = [{"size": sizes[image].tolist(), "counts": counts} for image, counts in rows]
            boxes = np.asarray(require("hotcoco", "det").mask.to_bbox(runs), np.float64).reshape(-1, 4)
        found: NDArray[np.float32] = np.concatenate(
            [boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1, dtype=np.float32
        )
        return found


def read_rows(path: Path, images: ResultImages) -> ResultRows:
    """Read and check a result file, which may be compressed with gzip.

    Raises:
        AnnotationError: The file is no list of detections, or a detection has an image or category that the annotation
            file lacks, no finite score, no sound box or mask, or a mask of another size than its image. Or the boxes
            look like corners, or like fractions of the image.
        OSError: The file cannot be read.
    """
    content = path.read_bytes()
    rows = _parsed(path, content)
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise AnnotationError(path, "a list of detections", f"{row!r:.60} as entry {place + 1}")
    image = np.array([*_known(path, rows, "image", images.numbers, images)], np.int32)
    labels = np.array([*_known(path, rows, "category", images.labels, images)], np.int32)
    found = ResultRows(
        path,
        image,
        labels,
        _scores(path, rows),
        _boxes(path, rows, image, images),
        _masks(path, rows, image, images),
        hashlib.sha256(content).hexdigest(),
    )
    if rows and found.boxes is None and found.masks is None:
        expected = "a bbox or a segmentation of each detection"
        raise AnnotationError(path, expected, f"the keys {', '.join(map(str, rows[0]))}", _place(rows, 0))
    return replace(found, remarks=_odd_boxes(found, images))


def join_masks(boxes: ResultRows, masks: ResultRows) -> ResultRows:
    """Add the masks of one file to the boxes of another, as MMDetection writes them.

    Raises:
        AnnotationError: The files do not list the same detections in the same order.
    """
    same = len(boxes) == len(masks)
    if not (same and np.array_equal(boxes.image, masks.image) and np.array_equal(boxes.labels, masks.labels)):
        got = f"{len(masks):,} detections, {len(boxes):,} there" if not same else "other images or categories"
        raise AnnotationError(
            masks.path, f"the same detections in the same order as in {boxes.path}", got, "", "write both in one run"
        )
    if masks.masks is None and len(masks):
        raise AnnotationError(masks.path, "a segmentation of each detection", "boxes alone")
    digest = hashlib.sha256(f"{boxes.sha256} {masks.sha256}".encode()).hexdigest()
    return replace(boxes, masks=masks.masks or (), sha256=digest, mask_scores=masks.scores)


def _parsed(path: Path, content: bytes) -> list[Any]:
    try:
        text = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        found = json.loads(text)
    except (ValueError, RecursionError, OSError, EOFError, zlib.error) as error:
        got = f"something else ({error})"
        raise AnnotationError(path, "JSON", got, "", "write the file again; it may be cut off") from None
    if not isinstance(found, list):
        keys = f" with the keys {', '.join(list(found)[:4])}" if isinstance(found, dict) else ""
        advice = "write detections in COCO's result format: image_id, category_id, bbox, score"
        raise AnnotationError(path, "a list of detections", f"a {type(found).__name__}{keys}", "", advice)
    return found


def _place(rows: Sequence[Mapping[str, Any]], place: int) -> str:
    return f"detection {place + 1:,} (image_id {rows[place].get('image_id')!r:.40})"


def _known(
    path: Path, rows: Sequence[Mapping[str, Any]], what: str, known: Mapping[Id, int], images: ResultImages
) -> Iterator[int]:
    """Yield the number of each detection's image, or the label of its category."""
    for place, row in enumerate(rows):
        value = row.get(f"{what}_id")
        key = value if type(value) is int else identifier(value) if not isinstance(value, bool) else None
        if key is not None and key in known:
            yield known[key]
            continue
        got = f"no {what}_id" if value is None else f"the {what}_id {value!r:.60}"
        advice = images.advice(value)
        if what == "category":
            ids = ", ".join(map(str, [*known][:3]))
            advice = f"write the ids of the file's categories ({ids}, ...), which need not be the labels of the model"
        several = "images" if what == "image" else "categories"
        raise AnnotationError(path, f"ids of {several} of {images.path}", got, f"detection {place + 1:,}", advice)


def _scores(path: Path, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    values = [row.get("score") for row in rows]
    for place, value in enumerate(values):
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            got = "no score" if value is None else f"the score {value!r:.40}"
            advice = "write a score for each detection; AP needs the order of the scores"
            raise AnnotationError(path, "a finite number as score", got, _place(rows, place), advice)
    return np.array(values, np.float64)


def _boxes(
    path: Path, rows: Sequence[Mapping[str, Any]], image: NDArray[np.int32], images: ResultImages
) -> NDArray[np.float64] | None:
    """Return the boxes of all detections, or None if none has a box."""
    given = [row.get("bbox") for row in rows]
    if given and all(one is None for one in given):
        return None
    try:
        found = np.array(given, np.float64).reshape(len(rows), 4)
        # Texts of numbers, which NumPy converts, are no numbers here.
        sound = np.isfinite(found).all(1) & np.array([type(one[0]) is not str for one in given if one], bool)
    except (TypeError, ValueError):
        bad = next(
            place
            for place, one in enumerate(given)
            if not isinstance(one, list) or len(one) != 4 or any(isinstance(v, str) or number(v) is None for v in one)
        )
        got = "no bbox" if given[bad] is None else f"bbox {given[bad]!r:.80}"
        raise AnnotationError(path, "a bbox of four numbers of each detection", got, _place(rows, bad)) from None
    if not sound.all():
        bad = int(np.flatnonzero(~sound)[0])
        raise AnnotationError(path, "a bbox of four finite numbers", f"bbox {given[bad]!r:.80}", _place(rows, bad))
    if (negative := np.flatnonzero((found[:, 2:] < 0).any(1))).size:
        bad = int(negative[0])
        got, advice = f"bbox {given[bad]!r:.80}", "write boxes as [x, y, width, height]"
        raise AnnotationError(path, "boxes of a width and a height of at least 0", got, _place(rows, bad), advice)
    _check_unit(path, rows, found, images.sizes[image])
    return found


def _check_unit(
    path: Path, rows: Sequence[Mapping[str, Any]], boxes: NDArray[np.float64], sizes: NDArray[np.int64]
) -> None:
    """Raise an AnnotationError if boxes look like corners x1, y1, x2, y2, or like fractions of the image."""
    if not len(boxes):
        return
    expected = "boxes as [x, y, width, height] in pixels"
    beyond = _reach_beyond(boxes, sizes)
    ordered = (boxes[:, 2:] >= boxes[:, :2]).all(1)
    fitting = ordered & (boxes[:, 2:] <= sizes[:, ::-1] + _BEYOND).all(1)
    if beyond.mean() > _MANY and fitting.mean() >= _FITTING:
        bad = int(np.flatnonzero(beyond)[0])
        height, width = sizes[bad].tolist()
        got = (
            f"{int(beyond.sum()):,} of {len(boxes):,} boxes that reach beyond their image but fit it as corners "
            f"[x1, y1, x2, y2], such as {rows[bad]['bbox']!r:.80} in an image of {width} x {height}"
        )
        advice = "write x2 - x1 and y2 - y1 as width and height"
        raise AnnotationError(path, expected, got, _place(rows, bad), advice)
    with_extent = (boxes[:, 2:] > 0).all(1)
    if with_extent.any() and (boxes[with_extent] <= 1).all():
        bad = int(np.flatnonzero(with_extent)[0])
        got = f"boxes within the first pixel, as fractions of the image are, such as {rows[bad]['bbox']!r:.80}"
        advice = "multiply x and width by the image's width, y and height by its height"
        raise AnnotationError(path, expected, got, _place(rows, bad), advice)


def _reach_beyond(boxes: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(np.any(boxes[:, :2] + boxes[:, 2:] > sizes[:, ::-1] + _BEYOND, axis=1))


def _odd_boxes(found: ResultRows, images: ResultImages) -> tuple[Remark, ...]:
    """Return a remark if many boxes reach beyond their images, as those of images of another size do."""
    if found.boxes is None or not len(found):
        return ()
    beyond = np.flatnonzero(_reach_beyond(found.boxes, images.sizes[found.image]))
    if len(beyond) <= _MANY * len(found):
        return ()
    what = (
        "{box reaches beyond its image|boxes reach beyond their images}, as boxes in pixels of a resized image do; "
        "boxes are evaluated as they are written"
    )
    examples = [f"{found.boxes[place].round(1).tolist()} as detection {place + 1:,}" for place in beyond]
    return (counted_remark(found.path, "boxes_beyond_image", what, examples),)


def _masks(
    path: Path, rows: Sequence[Mapping[str, Any]], image: NDArray[np.int32], images: ResultImages
) -> tuple[bytes, ...] | None:
    """Return the compressed run lengths of all detections, or None if none has a mask."""
    given = [row.get("segmentation") for row in rows]
    if all(one is None for one in given):
        return None
    sizes = images.sizes[image].tolist()
    found = []
    for place, one in enumerate(given):
        size = sizes[place]
        mask = read_mask(one)
        if not isinstance(mask.value, dict):
            got = "none" if one is None else mask.fault or "polygons"
            expected, advice = "run lengths as segmentation of each detection", "encode masks with pycocotools"
            raise AnnotationError(path, expected, got, _place(rows, place), advice)
        if mask.value["size"] != size:
            got = f"the size {mask.value['size']}"
            expected = f"masks of the size of their images, here [height, width] {size}"
            advice = "resize masks to the images, or name the annotation file of these images with --ann"
            raise AnnotationError(path, expected, got, _place(rows, place), advice)
        counts = run_lengths(mask.value, *size)["counts"]
        found.append(counts.encode() if isinstance(counts, str) else counts)
    return tuple(found)
