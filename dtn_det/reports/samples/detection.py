"""Sample images of detectors, corrupted again as in the evaluation, with their detections."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.corruptions.cells import CLEAN, Cell
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.image import ByteImage
from dtn_det.errors import ReportError
from dtn_det.metrics.error_types import OUTCOMES, image_outcomes
from dtn_det.reports.samples import Answer, Box, Disagreement, Gallery, Picture, SampleImage, pick, thumbnail
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store import ModelStore

LONGEST = 320
"""Pictures are shrunk until their longer side has at most this many pixels."""
LEAST_SCORE = 0.3
"""Smallest score of a detection that is shown."""
_SHOWN_EACH = 3
_SEARCHED = 100
_LEVELS = ("*", "*/*", "*/*/*")


@dataclass(frozen=True)
class Objects:
    """The annotated objects of an image.

    Attributes:
        boxes: Corners x1, y1, x2, y2 in pixels, (objects, 4).
        crowd: Whether the object is a crowd, (objects,). Detections inside a crowd are neither right nor false.
    """

    boxes: NDArray[Any]
    labels: NDArray[Any]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True)
class Matched:
    """Which detections of an image are right, after matching them to its objects.

    Attributes:
        outcomes: Outcome of each detection, an index into :data:`~dtn_det.metrics.error_types.OUTCOMES`, (detections,).
        objects: Number of objects that are not crowds.
    """

    outcomes: NDArray[np.uint8]
    objects: int

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether a detection was matched to an object of its class, (detections,)."""
        return self.outcomes == OUTCOMES.index("correct")

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """Whether an unmatched detection is in a crowd of its class, (detections,)."""
        return self.outcomes == OUTCOMES.index("ignored")

    @property
    def found(self) -> int:
        """Number of objects that were found."""
        return int(self.right.sum())

    @property
    def false(self) -> int:
        """Number of detections that are neither right nor ignored, such as a second detection of the same object."""
        return int((~self.right & ~self.ignored).sum())

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, from 0 to 1; 1 if there are neither objects nor false detections."""
        total = self.objects + self.found + self.false
        return 2 * self.found / total if total else 1.0


def match(objects: Objects, boxes: NDArray[Any], labels: NDArray[Any]) -> Matched:
    """Match detections to objects of their class with an IoU of at least 0.5 as COCO does, the best detections first.

    Args:
        boxes: Corners x1, y1, x2, y2 of the detections by falling score, (detections, 4).
    """
    outcomes = image_outcomes(_overlaps(boxes, objects), labels, objects.labels, objects.crowd)
    return Matched(outcomes, int((~objects.crowd).sum()))


def _overlaps(boxes: NDArray[Any], objects: Objects) -> NDArray[Any]:
    """Return COCO's IoU of each detection and object; for a crowd, the fraction of the detection's area inside it."""
    iou = require("hotcoco", "det").primitives.bbox_iou
    found: NDArray[Any] = iou(_with_sizes(boxes), _with_sizes(objects.boxes), objects.crowd)
    return found


def _with_sizes(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """Convert boxes from corners x1, y1, x2, y2 to x, y, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1, dtype=np.float64)


def detection_gallery(
    models: Mapping[str, ModelStore],
    data: Path,
    pair: tuple[str, str] | None = None,
    *,
    frost: Path | None = None,
    count: int = 2,
    seed: int = 0,
) -> Gallery:
    """Make the sample images of detectors from the images that were evaluated.

    Args:
        models: The models by name, all of the same images and corruptions.
        data: The folder of the images, or a folder up to three levels above it, such as the data root.
        pair: Two models; images on which they differ most are added. None to add none.

    Raises:
        ReportError: The images are not the evaluated images.
        InputError: This version cannot make the corruptions.
    """
    first = next(iter(models.values())).store
    truth = CocoTruth.of(first)
    paths = _paths(first.manifest.data_hash, truth, data)
    corruptor = Corruptor.from_identity(first.manifest.corruption, frost)
    labels = [name for _, name in truth.categories]
    of = {name: _Detections(model, labels) for name, model in models.items()}
    scene = _Scene(truth, paths, corruptor, of, labels)

    def fits(number: int) -> bool:
        return bool(scene.objects(number).boxes.size) and all(one.has(number) for one in of.values())

    cells = tuple(dict.fromkeys(cell for model in models.values() for cell in model.store.manifest.cells))
    images = [scene.sample(number, cells) for number in pick(models, count, seed, fits)]
    found, searched = ((), 0) if pair is None else _disagreements(scene, pair, models, seed)
    remarks = [
        "Images were drawn at random among those with objects that all models evaluated. Detections with a score of at "
        f"least {LEAST_SCORE:g} are shown; one is right if its IoU with an object of its class is at least 0.5.",
    ]
    if pair is not None and found:
        remarks.append(
            f"Of {searched:,} images drawn at random, under all conditions, those were taken on which the F1 scores of "
            f"{pair[0]} and {pair[1]} differ most, each image once for either."
        )
    return Gallery(tuple(models), tuple(images), found, tuple(remarks))


def _paths(data_hash: str, truth: CocoTruth, data: Path) -> list[Path]:
    """Find the files of all images, and check that they are the files that were evaluated."""
    if not data.is_dir():
        raise FileNotFoundError(f"expected --data to be a folder of images, got {data}: there is no such folder")
    # The images lie in the folder itself, in a subfolder such as val2017, or deeper, as in images/val2017.
    folders = itertools.chain.from_iterable(sorted(filter(Path.is_dir, data.glob(level))) for level in _LEVELS)
    folder = next((one for one in (data, *folders) if (one / truth.images[0].file).is_file()), None)
    if folder is None:
        raise ReportError(
            f"expected the images that were evaluated, such as {truth.images[0].file}, got none of that name in "
            f"{data}: name their folder with --data"
        )
    paths = [folder / image.file for image in truth.images]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ReportError(
            f"expected all {len(paths):,} images that were evaluated in {folder}, got {len(missing):,} missing, such "
            f"as {missing[0].name}: name their folder with --data"
        )
    found = truth.hash([path.stat().st_size for path in paths])
    if found != data_hash:
        raise ReportError(
            f"expected the images that were evaluated (hash {data_hash[:12]}), got others of the same names in "
            f"{folder} (hash {found[:12]}): name the same folder with --data"
        )
    return paths


class _Detections:
    """The detections of one detector, read from its store when they are needed."""

    def __init__(self, model: ModelStore, labels: Sequence[str]) -> None:
        self.model, self.labels = model, labels
        self._unit = lru_cache(maxsize=4)(self._read)

    def has(self, number: int) -> bool:
        """Return whether the image was evaluated; False for an image that could not be read."""
        return any(key[0] == number for key in self._of(number))

    def get(self, number: int, cell: Cell) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
        """Return boxes, scores and labels of the detections to show, best first; None if the cell was not evaluated."""
        cells = self.model.store.manifest.cells
        found = self._of(number).get((number, cells.index(cell))) if cell in cells else None
        if found is None:
            return None
        boxes, scores, labels = (np.asarray(values) for values in found)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= LEAST_SCORE]
        return boxes.reshape(-1, 4)[order], scores[order], labels[order].astype(np.int64)

    def _of(self, number: int) -> dict[tuple[int, int], tuple[Any, Any, Any]]:
        return self._unit(number // self.model.store.manifest.unit_size)

    def _read(self, unit: int) -> dict[tuple[int, int], tuple[Any, Any, Any]]:
        names = ("image", "cell", "boxes", "scores", "labels", "error")
        table = self.model.read(unit, list(names))
        columns = [table[name].to_numpy() for name in names]
        return {
            (int(image), int(cell)): (boxes, scores, labels)
            for image, cell, boxes, scores, labels, error in zip(*columns, strict=True)
            if error is None
        }


class _Scene:
    """All images with their objects, and the detections of each model."""

    def __init__(
        self,
        truth: CocoTruth,
        paths: Sequence[Path],
        corruptor: Corruptor,
        of: Mapping[str, _Detections],
        labels: Sequence[str],
    ) -> None:
        self.truth, self.paths, self.corruptor, self.of, self.labels = truth, paths, corruptor, of, labels
        self._places = {category: place for place, (category, _) in enumerate(truth.categories)}

    def objects(self, number: int) -> Objects:
        """Return the objects of an image from the annotations."""
        rows = [row for row in json.loads(self.truth.images[number].annotations) if "bbox" in row]
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([self._places[row["category_id"]] for row in rows], np.int64)
        return Objects(boxes, labels, np.array([bool(row.get("iscrowd", 0)) for row in rows], np.bool_))

    def sample(self, number: int, cells: Iterable[Cell]) -> SampleImage:
        """Make the pictures of an image under some cells, with its objects and the detections of each model."""
        image, objects = self.truth.images[number], self.objects(number)
        clean = _read(self.paths[number])
        pictures, size = [], (0, 0)
        for cell in cells:
            pixels = clean if cell == CLEAN else self.corruptor(clean, *cell, str(image.id))
            webp, size = thumbnail(pixels, LONGEST)
            scale = size[0] / clean.shape[1]
            answers = {name: self._answer(name, number, cell, objects, scale) for name in self.of}
            pictures.append(Picture(cell, webp, {name: one for name, one in answers.items() if one is not None}))
        boxes = tuple(
            Box(_scaled(box, scale), self.labels[label])
            for box, label, crowd in zip(objects.boxes, objects.labels, objects.crowd, strict=True)
            if not crowd
        )
        return SampleImage(image.file, self._in_words(objects), size, tuple(pictures), boxes)

    def score(self, name: str, number: int, cell: Cell, objects: Objects) -> float | None:
        """Return the F1 score of a model on an image under a cell; None if the model was not evaluated there."""
        found = self.of[name].get(number, cell)
        return None if found is None else match(objects, found[0], found[2]).f1

    def _answer(self, name: str, number: int, cell: Cell, objects: Objects, scale: float) -> Answer | None:
        found = self.of[name].get(number, cell)
        if found is None:
            return None
        boxes, scores, labels = found
        matched = match(objects, boxes, labels)
        shown = []
        for box, score, label, outcome in zip(boxes, scores, labels, matched.outcomes, strict=True):
            name = OUTCOMES[outcome]
            if name != "ignored":
                error = "" if name == "correct" else name
                shown.append(Box(_scaled(box, scale), self.labels[label], float(score), not error, error))
        return Answer(f"{matched.found}/{matched.objects} found, {matched.false} false", None, tuple(shown))

    def _in_words(self, objects: Objects) -> str:
        counts = [
            (int((objects.labels[~objects.crowd] == place).sum()), name) for place, name in enumerate(self.labels)
        ]
        return ", ".join(f"{count} {name}" for count, name in counts if count)


def _disagreements(
    scene: _Scene, pair: tuple[str, str], models: Mapping[str, ModelStore], seed: int
) -> tuple[tuple[Disagreement, ...], int]:
    """Find the images on which the F1 scores of two models differ most; also return how many images were searched."""
    stores = {name: models[name] for name in pair}
    cells = [cell for cell in stores[pair[0]].store.manifest.cells if cell in stores[pair[1]].store.manifest.cells]
    numbers = pick(stores, _SEARCHED, seed, lambda number: all(scene.of[name].has(number) for name in pair))
    most: dict[tuple[int, int], tuple[float, Cell]] = {}
    for number in numbers:
        objects = scene.objects(number)
        if not len(objects.labels):
            continue
        for cell in cells:
            first, second = (scene.score(name, number, cell, objects) for name in pair)
            if first is None or second is None:
                continue
            better = int(second > first)
            gain = abs(second - first)
            if gain > most.get((better, number), (0.0, cell))[0]:
                most[better, number] = (gain, cell)
    found = []
    for better in (1, 0):
        ranked = sorted((-gain, number, cell) for (side, number), (gain, cell) in most.items() if side == better)
        for _, number, cell in ranked[:_SHOWN_EACH]:
            found.append(Disagreement(pair[better], pair[1 - better], scene.sample(number, [cell])))
    return tuple(found), len(numbers)


def _read(path: Path) -> ByteImage:
    """Read an image file as MMDetection does, but with channels in the order RGB."""
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ReportError(f"expected an image in {path}, got a file that cannot be read: fetch it again")
    rgb: ByteImage = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return rgb


def _scaled(box: NDArray[Any], scale: float) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (round(float(end) * scale, 1) for end in box)
    return x1, y1, x2, y2
