"""COCO's matching of detections with objects, for each cell (corruption and severity) of a store."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.errors import AnnotationError, InputError, StoreError
from dtn_det.metrics.coco_matches import CocoMatches
from dtn_det.metrics.coco_objects import CocoObjects, run_lengths
from dtn_det.metrics.error_types import OUTCOMES, DetectionErrors, detection_errors
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
    """COCO's evaluation of the cells of one data set. The arrays of the objects are built once for all cells.

    Args:
        bad: Numbers of images to leave out.
    """

    def __init__(self, truth: CocoTruth, bad: Collection[int] = ()) -> None:
        self.truth = truth
        self.bad = frozenset(bad)
        self._objects = truth.objects(self.bad)
        ids = np.array([image.id for image in truth.images], np.int64)
        # The index of each image among the sorted images of the evaluation, -1 for bad images.
        self._places = np.searchsorted(np.array(self._objects.images, np.int64), ids).astype(np.int32)
        self._places[list(self.bad)] = -1
        # The index of each label's category among the sorted categories.
        self._ranks = np.argsort(np.argsort([number for number, _ in truth.categories])).astype(np.int32)

    @cached_property
    def _with_masks(self) -> CocoObjects:
        return self.truth.objects(self.bad, masks=True)

    def matches(self, found: CellDetections, kind: str) -> CocoMatches:
        """Match the detections of one cell with the objects.

        Raises:
            InputError: A score is NaN, or masks are evaluated and an object or the model has none.
            StoreError: A detection has a label or image that is not in the data set.
        """
        _, *detections = self._detections(found, kind)
        if kind == "segm":
            return self._with_masks.match_masks(*detections)
        return self._objects.match(*detections)

    def errors(self, found: CellDetections, kind: str) -> DetectionErrors:
        """Find the errors of the detections of one cell; see :meth:`matches`. Detections of bad images are ignored."""
        if self.truth.frequencies:
            raise InputError(
                "expected COCO's rule to find the types of errors, got LVIS's, by which most categories of an image "
                "are not annotated: leave the types of errors out"
            )
        rows, *detections = self._detections(found, kind)
        errors = detection_errors(self._with_masks if kind == "segm" else self._objects, *detections)
        outcomes = np.full(len(found.image), OUTCOMES.index("ignored"), np.uint8)
        outcomes[rows] = errors.outcomes
        return replace(errors, outcomes=outcomes)

    def _detections(self, found: CellDetections, kind: str) -> tuple[Any, ...]:
        """Return the rows of detections in good images; their categories, images, boxes or masks, and scores."""
        for what, values, count in (
            ("image", found.image, len(self._places)),
            ("label", found.labels, len(self._ranks)),
        ):
            if len(values) and not 0 <= values.min() <= values.max() < count:
                raise StoreError(
                    f"expected each {what} of the detections from 0 to {count - 1}, got {values.min()} to "
                    f"{values.max()}: the store is damaged; delete the model's folder and evaluate it again"
                )
        image = self._places[found.image]
        rows = np.flatnonzero(image >= 0)
        where = (rows, self._ranks[found.labels[rows]], image[rows])
        if kind == "segm":
            if found.masks is None:
                raise InputError("expected masks of the detections to evaluate masks, got boxes alone: evaluate boxes")
            sizes = [[one.height, one.width] for one in self.truth.images]
            numbers = found.image[rows].tolist()
            masks = [
                {"size": sizes[number], "counts": counts}
                for number, counts in zip(numbers, found.masks[rows].tolist(), strict=True)
            ]
            return *where, masks, found.mask_scores[rows].astype(np.float64)
        boxes = found.boxes[rows].astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return *where, boxes, found.scores[rows].astype(np.float64)


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
        CocoScorer(truth).matches(_found(truth, kind), kind)
    except Exception as error:  # errors of compiled code have many types
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return None


def _found(truth: CocoTruth, kind: str) -> CellDetections:
    """Return the objects of a ground truth as detections with score 1."""
    labels = {number: label for label, (number, _) in enumerate(truth.categories)}
    rows = [(number, row) for number, image in enumerate(truth.images) for row in json.loads(image.annotations)]
    boxes = np.array([row["bbox"] for _, row in rows], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.ones(len(rows), np.float32)
    masks = []
    if kind == "segm":
        for number, row in rows:
            image = truth.images[number]
            counts = run_lengths(row["segmentation"], image.height, image.width)["counts"]
            masks.append(counts if isinstance(counts, bytes) else counts.encode())
    return CellDetections(
        0,
        np.array([number for number, _ in rows], np.int32),
        boxes,
        scores,
        np.array([labels[row["category_id"]] for _, row in rows], np.int32),
        np.array(masks, object) if kind == "segm" else None,
        scores,
    )
