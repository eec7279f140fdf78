"""COCO's matching of detections with objects, for each cell (corruption and severity) of a store."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.errors import AnnotationError, StoreError
from dtn_det.metrics.coco_matches import CocoMatches, join_categories, matches_from_evaluator
from dtn_det.robustness.detection.records import schema
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store import ModelStore
from dtn_det.system.processes import end_with_parent, interrupts_blocked, worker_environment

if TYPE_CHECKING:
    import pyarrow


KINDS = ("bbox", "segm")
"""The kinds of results that COCO evaluates: boxes and masks."""

# Largest size on disk, in bytes, of the records of cells that are read together. As Python objects, records take about
# twenty times as much memory.
_GROUP_BYTES = 8e6
# Upper bound for a group of categories: the number of categories times the number of their objects and detections.
# COCO's evaluation keeps an entry for each image and category, so larger groups take more memory and hardly less time.
_GROUP_PAIRS = 40_000

W = TypeVar("W")
R = TypeVar("R")


@dataclass(frozen=True)
class CellDetections:
    """All detections of one cell. Detections of the same image are adjacent in the arrays.

    Attributes:
        image: Number of the image of each detection, (detections,).
        boxes: x1, y1, x2, y2 in pixels, (detections, 4).
        scores: Scores of the boxes, (detections,).
        labels: Index of the category of each detection, (detections,).
        masks: COCO's compressed run lengths of each mask; None for a model without masks.
        mask_scores: Scores of the masks, (detections,). They are the scores of the boxes if the model does not score
            masks.
    """

    cell: int
    image: NDArray[np.int32]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    masks: NDArray[np.object_] | None
    mask_scores: NDArray[np.float32]

    def of_labels(self, labels: Sequence[int]) -> CellDetections:
        """Return the detections with the given labels."""
        rows = np.isin(self.labels, labels)
        arrays: dict[str, Any] = {
            name: values[rows] for name, values in vars(self).items() if isinstance(values, np.ndarray)
        }
        return replace(self, **arrays)


def bad_images(model: ModelStore) -> dict[int, str]:
    """Return the reason why each bad image could not be evaluated, by the number of the image."""
    found = {}
    for table in model.batches(["image", "error"]):
        errors = table["error"]
        if errors.null_count < len(errors):
            rows = table.to_pylist()
            found.update({row["image"]: row["error"] for row in rows if row["error"] is not None})
    return found


class CocoScorer:
    """COCO's evaluation of the cells of one data set, which needs little memory besides the detections and objects.

    Args:
        bad: Numbers of images to leave out.
    """

    def __init__(self, truth: CocoTruth, bad: Sequence[int] | dict[int, str] = ()) -> None:
        self.truth = truth
        self.coco = truth.coco()
        self.ids = [image.id for number, image in enumerate(truth.images) if number not in bad]
        self.categories = [number for number, _ in truth.categories]
        objects: dict[int, list[int]] = {number: [] for number in self.categories}
        for annotation in self.coco.anns.values():
            objects[annotation["category_id"]].append(annotation["image_id"])
        self._images_of = [np.array(objects[number], np.int64) for number in self.categories]

    def matches(self, found: CellDetections, kind: str) -> CocoMatches:
        """Match the detections of one cell with the objects, a few categories at a time to save memory."""
        parts = [self._matches_of(found, kind, labels) for labels in self._label_groups(found)]
        return join_categories(parts, sorted(self.ids))

    def _matches_of(self, found: CellDetections, kind: str, labels: Sequence[int]) -> CocoMatches:
        part = found.of_labels(labels)
        ids = np.array([self.truth.images[number].id for number in np.unique(part.image).tolist()], np.int64)
        # Images with neither objects nor detections of these categories do not change the matches.
        ids = np.intersect1d(np.concatenate([ids, *(self._images_of[label] for label in labels)]), self.ids)
        categories = [self.categories[label] for label in labels]
        return matches_from_evaluator(self.evaluator(part, kind, ids.tolist() or self.ids[:1], categories))

    def _label_groups(self, found: CellDetections) -> list[list[int]]:
        """Split the labels into groups, in the order of their categories' ids, as COCO's evaluation sorts them."""
        detections = np.bincount(found.labels, minlength=len(self.categories))
        groups: list[list[int]] = [[]]
        inside = 0
        for label in np.argsort(self.categories).tolist():
            inside += len(self._images_of[label]) + int(detections[label])
            if groups[-1] and (len(groups[-1]) + 1) * inside > _GROUP_PAIRS:
                groups.append([])
                inside = len(self._images_of[label]) + int(detections[label])
            groups[-1].append(label)
        return groups

    def evaluator(
        self,
        found: CellDetections,
        kind: str,
        images: Sequence[int] | None = None,
        categories: Sequence[int] | None = None,
    ) -> Any:
        """Run `evaluate()` of faster-coco-eval on one cell with COCO's settings, and return the evaluator.

        Args:
            images: Ids of the images to evaluate; None for all.
            categories: Ids of the categories to evaluate; None for all.
        """
        results = self.results(found, kind)
        detections = self.coco.loadRes(results) if results else self._nothing()
        evaluator = require("faster_coco_eval", "det").COCOeval_faster(
            self.coco, detections, kind, print_function=_say_nothing, separate_eval=True
        )
        evaluator.params.imgIds = self.ids if images is None else images
        evaluator.params.catIds = self.categories if categories is None else categories
        evaluator.evaluate()
        return evaluator

    def _nothing(self) -> Any:
        """Make the `COCO` object of a cell without detections: `loadRes` fails for this before faster-coco-eval 1.8."""
        empty = require("faster_coco_eval", "det").COCO()
        empty.dataset = {**self.coco.dataset, "annotations": []}
        empty.createIndex()
        return empty

    def results(self, found: CellDetections, kind: str) -> list[dict[str, Any]]:
        """Return the detections of one cell in COCO's result format."""
        images = [self.truth.images[number] for number in found.image.tolist()]
        labels = [self.categories[label] for label in found.labels.tolist()]
        if kind == "segm":
            assert found.masks is not None
            return [
                {
                    "image_id": image.id,
                    "category_id": category,
                    "score": score,
                    "segmentation": {"size": [image.height, image.width], "counts": counts},
                }
                for image, category, score, counts in zip(
                    images, labels, found.mask_scores.tolist(), found.masks, strict=True
                )
            ]
        return [
            {"image_id": image.id, "category_id": category, "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for image, category, score, (x1, y1, x2, y2) in zip(
                images, labels, found.scores.tolist(), found.boxes.tolist(), strict=True
            )
        ]


def read_cells(model: ModelStore, cells: Sequence[int]) -> Iterator[CellDetections]:
    """Yield the detections of each of the given cells, after one pass over the records."""
    parts: dict[int, list[CellDetections]] = {cell: [] for cell in cells}
    for table in model.batches():
        absent = set(schema().names) - set(table.column_names)
        if absent:
            raise StoreError(
                f"expected detections in {model.folder}, got records without {', '.join(sorted(absent))}: delete the "
                "folder and evaluate the model again"
            )
        numbers = table["cell"].to_numpy()
        for cell in cells:
            parts[cell].append(_detections(cell, table.take(np.flatnonzero(numbers == cell))))
    for cell in cells:
        yield _joined(parts.pop(cell))


def _detections(cell: int, rows: pyarrow.Table) -> CellDetections:
    compute = require("pyarrow.compute", "eval")
    counts = compute.list_value_length(rows["scores"]).to_numpy()
    image = np.repeat(rows["image"].to_numpy(), counts)
    scores = _flat(rows["scores"], np.float32)
    masks, mask_scores = rows["masks"], rows["mask_scores"]
    # If the model predicts masks, at least one row has masks. Rows of bad images and of images without detections may
    # have none.
    with_masks = bool(masks.null_count < len(masks))
    own_scores = len(mask_scores) > mask_scores.null_count
    return CellDetections(
        cell,
        image,
        _flat(rows["boxes"], np.float32).reshape(-1, 4),
        scores,
        _flat(rows["labels"], np.int32),
        np.array(compute.list_flatten(masks).to_pylist(), object) if with_masks else None,
        _flat(mask_scores, np.float32) if own_scores else scores,
    )


def _flat(column: Any, kind: Any) -> NDArray[Any]:
    values: NDArray[Any] = require("pyarrow.compute", "eval").list_flatten(column).to_numpy()
    return values.astype(kind, copy=False)


def _joined(parts: list[CellDetections]) -> CellDetections:
    # Units without detections have no masks.
    masks = [part.masks for part in parts if part.masks is not None]
    names = ("image", "boxes", "scores", "labels", "mask_scores")
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return replace(parts[0], **arrays, masks=np.concatenate(masks) if masks else None)


def cell_groups(model: ModelStore) -> list[list[int]]:
    """Split the cells into groups as large as memory allows, because reading a group takes a pass over all files."""
    count = len(model.store.manifest.cells)
    size = sum(path.stat().st_size for path in model.folder.glob("unit-*.parquet"))
    together = max(1, min(count, int(_GROUP_BYTES / max(1.0, size / count))))
    return [list(range(start, min(start + together, count))) for start in range(0, count, together)]


def in_processes(
    function: Callable[[W], R], work: Sequence[W], processes: int, advice: str = "start again with fewer --workers"
) -> Iterator[R]:
    """Apply a function to pieces of work in several processes of one thread each, and yield the results in order.

    Args:
        function: A function at the top level of a module, from which the processes import it.
        advice: What the error message advises if a process dies. The usual cause is that memory runs out.

    Raises:
        ChildProcessError: A process died.
    """
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        with worker_environment(), interrupts_blocked():  # the processes start here and inherit both
            found = pool.map(function, work)
        try:
            yield from found
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"expected processes that evaluate to live, got one that died ({error}): memory is short, perhaps. The "
                f"detections are kept: {advice}"
            ) from error
        finally:
            # After an error or an interrupt, cancel the work that has not begun.
            pool.shutdown(wait=False, cancel_futures=True)


def _say_nothing(*args: object) -> None:
    """Do nothing; replaces the function with which faster-coco-eval prints its progress."""


_TRIED = 200
"""The evaluation is tried on at least this many images, or on all if there are fewer. Trying all images would take
long, and every annotation was checked when it was read."""


_FORMS = ('"counts": [', '"counts": "', '"iscrowd": 1', '"segmentation"', "bbox")


def try_evaluation(path: Path, truth: CocoTruth, *, masks: bool) -> None:
    """Try COCO's evaluation before a sweep, with the objects of some images as detections.

    Args:
        truth: Images and objects. If there are many images, only every n-th is tried, and the first image with each
            form of annotations (polygons, run lengths, crowds).

    Raises:
        AnnotationError: The evaluation fails; the message names the first image or object on which it fails.
    """
    part = truth.select(_varied(truth))
    for kind in KINDS if masks else KINDS[:1]:
        if _failure(part, kind) is None:
            continue
        for number in range(len(part.images)):
            one = part.select([number])
            error = _failure(one, kind)
            if error is not None:
                place = f"image {one.images[0].key}"
                objects = json.loads(one.images[0].annotations)
                for index in range(len(objects)):
                    if _failure(_single(one, objects[index]), kind) is not None:
                        place = f"object {index + 1} of {place}"
                        break
                raise AnnotationError(path, f"objects that COCO's evaluation of {kind} takes", error, place)


def _varied(truth: CocoTruth) -> list[int]:
    """Return the indices of every n-th image, and of the first image with each form of annotations."""
    count = len(truth.images)
    chosen = set(range(0, count, max(1, count // _TRIED)))
    forms: set[str] = set()
    for number, image in enumerate(truth.images):
        # The forms are searched for in the text, because parsing the JSON of all objects again would take long.
        form = " ".join(str(text in image.annotations) for text in _FORMS)
        if form not in forms:
            forms.add(form)
            chosen.add(number)
    return sorted(chosen)


def _single(truth: CocoTruth, annotation: dict[str, Any]) -> CocoTruth:
    return CocoTruth((replace(truth.images[0], annotations=json.dumps([annotation])),), truth.categories)


def _failure(truth: CocoTruth, kind: str) -> str | None:
    """Evaluate the objects of a ground truth as detections; return the error as text, or None if there is no error."""
    try:
        scorer = CocoScorer(truth)
        scorer.matches(_found(truth, scorer.coco, kind), kind)
    except Exception as error:  # errors of the libraries' C++ code have many types
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return None


def _found(truth: CocoTruth, coco: Any, kind: str) -> CellDetections:
    """Return the objects of a ground truth as detections with score 1."""
    places = {image.id: number for number, image in enumerate(truth.images)}
    labels = {number: label for label, (number, _) in enumerate(truth.categories)}
    rows = [row for image in truth.images for row in coco.imgToAnns.get(image.id, ())]
    boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.ones(len(rows), np.float32)
    return CellDetections(
        0,
        np.array([places[row["image_id"]] for row in rows], np.int32),
        boxes,
        scores,
        np.array([labels[row["category_id"]] for row in rows], np.int32),
        _masks(rows, coco) if kind == "segm" else None,
        scores,
    )


def _masks(rows: Sequence[dict[str, Any]], coco: Any) -> NDArray[np.object_]:
    to_runs = require("faster_coco_eval.core.mask", "det").segmToRle
    found = []
    for row in rows:
        image = coco.imgs[row["image_id"]]
        counts = to_runs(row["segmentation"], image["width"], image["height"])["counts"]
        found.append(counts if isinstance(counts, bytes) else counts.encode())
    return np.array(found, object)
