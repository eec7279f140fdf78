"""Detections of any program in a store: COCO result files and their annotation file become records of images.

Reports, intervals and paired differences then need no more than for a store of `dtn-det mpc`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dtn_det._optional import require
from dtn_det.corruptions.identity import IMPORTED_RESULTS
from dtn_det.datasets.coco import CocoFile, read_coco_file
from dtn_det.datasets.coco.known_sets import coco_set_title
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import InputError
from dtn_det.robustness.detection.evaluation import try_evaluation
from dtn_det.robustness.detection.records import schema
from dtn_det.robustness.detection.truth import CocoTruth, rule_remarks, truth_of
from dtn_det.robustness.importing.result_files import CellFiles, find_result_files
from dtn_det.robustness.importing.result_rows import ResultImages, ResultRows, join_masks, read_rows
from dtn_det.robustness.store import ModelStore, Store
from dtn_det.robustness.store.blocks import write_model
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest, hash_lines

if TYPE_CHECKING:
    import pyarrow

FORMAT = "coco-results"
"""Name of the format, as users and stores name it."""

_UNIT_SIZE = 64


@dataclass(frozen=True)
class ImportedDetections:
    """What was imported.

    Attributes:
        detections: Number of detections in all files.
        masks: Whether the masks of the detections were imported.
        remarks: What the readers filled in, left out or decided, about the annotation file and about the results.
    """

    model: ModelStore
    detections: int
    masks: bool
    remarks: tuple[Remark, ...]


def import_detections(
    results: Path,
    annotations: Path,
    folder: Path,
    name: str | None = None,
    on_cell: Callable[[int, int], None] = lambda done, total: None,
) -> ImportedDetections:
    """Write the detections of one detector into a store, all of them or none.

    Everything is read and checked before the first file is written. The memory holds all detections, about 30 bytes
    for each box.

    Args:
        results: Folder of result files, see :func:`dtn_det.robustness.importing.result_files.find_result_files`.
        annotations: Annotation file of the images, in COCO's format.
        folder: Folder of the store, which may be new, or have other detectors of the same images and cells.
        name: Name of the detector in reports; None for the name of the folder of results.
        on_cell: Called before the files of a cell (a corruption at a severity) are read, with the numbers of cells that
            are read and of all cells, and once at the end.

    Raises:
        AnnotationError: The annotation file or a result file cannot be evaluated, or they do not fit each other.
        InputError: The folder has no result files, unknown corruptions or severities, or several files of one cell.
        StoreError: The store is of other images or cells, or has other results under this name.
        OSError: A file cannot be read or written.
    """
    Store.check(folder)
    files = find_result_files(results)
    file = read_coco_file(annotations)
    file.check_objects()
    truth = _truth(file)
    wanted = ResultImages.of(file, truth)
    tables, digests, seen = [], [], np.zeros(len(truth.images), bool)
    remarks = [*files.remarks]
    count, with_masks = 0, _Masks(truth)
    twins: dict[str, list[str]] = {}
    for number, cell in enumerate(files.cells):
        on_cell(number, len(files.cells))
        rows = _rows(cell, wanted)
        with_masks.take(rows)
        remarks += rows.remarks
        name_of_cell = f"{cell.cell.corruption} {cell.cell.severity}"
        if len(rows):
            twins.setdefault(rows.sha256, []).append(name_of_cell)
        digests.append(f"{name_of_cell} {rows.sha256}")
        tables.append(_table(number, rows, wanted))
        seen[rows.image] = True
        count += len(rows)
    on_cell(len(files.cells), len(files.cells))
    masks = with_masks.decide(file)
    remarks += [*with_masks.remarks(annotations), *_unseen(results, truth, seen), *_twins(results, twins)]
    try_evaluation(annotations, truth, masks=masks)
    if not masks:
        tables = [_without_masks(table) for table in tables]
    title = coco_set_title(file)
    store = StoreManifest(
        task="detection",
        data=annotations.name,
        data_hash=truth.hash([0] * len(truth.images)),
        num_images=len(truth.images),
        selection="all",
        corruption=IMPORTED_RESULTS,
        cells=tuple(cell.cell for cell in files.cells),
        unit_size=_UNIT_SIZE,
        protocol=truth.protocol,
        remarks=rule_remarks(file),
        recognised={"dataset": title} if title else {},
        imported=FORMAT,
    )
    name = name or results.resolve().name.split(".")[0]
    model = ModelManifest(
        name=name,
        source=f"{FORMAT}: {results.resolve().name}",
        weights_hash=hash_lines(digests),
        num_parameters=0,
        protocol={"results": FORMAT},
        versions={"dtn-det": metadata.version("dtn-det")},
        remarks=tuple(remarks),
    )
    written = write_model(Store.create(folder, store, truth.table()), model, tables)
    return ImportedDetections(written, count, masks, (*rule_remarks(file), *remarks))


def _truth(file: CocoFile) -> CocoTruth:
    ids, categories = [row["id"] for row in file.images], [row["id"] for row in file.categories]
    truth = truth_of(file, ids, categories, federated=file.is_federated)
    truth.check_objects(file.path)
    return truth


def _rows(files: CellFiles, images: ResultImages) -> ResultRows:
    rows = read_rows(files.main, images)
    return rows if files.masks is None else join_masks(rows, read_rows(files.masks, images))


class _Masks:
    """Decides whether masks are evaluated, from all result files and the annotations."""

    def __init__(self, truth: CocoTruth) -> None:
        self.truth = truth
        self.found: dict[bool, Path] = {}

    def take(self, rows: ResultRows) -> None:
        """Take the detections of one cell into account, if there are any."""
        if len(rows):
            self.found.setdefault(rows.masks is not None, rows.path)

    def decide(self, file: CocoFile) -> bool:
        """Return whether masks are evaluated; raise an error if only some files, or some objects, have masks."""
        if len(self.found) > 1:
            raise InputError(
                f"expected masks in all result files or in none, got masks in {self.found[True]} and none in "
                f"{self.found[False]}: write all files in one way"
            )
        if True not in self.found:
            return False
        file.check_masks()
        if self.truth.has_masks:
            return True
        self.truth.check_masks(file.path)
        return False

    def remarks(self, annotations: Path) -> Iterator[Remark]:
        """Yield a remark if the detections have masks and the objects have none."""
        if True in self.found and not self.truth.has_masks:
            what = "annotation file has no segmentations, so only boxes are evaluated, not masks"
            yield Remark("masks_left_out", what, annotations.name)


def _unseen(results: Path, truth: CocoTruth, seen: Any) -> Iterator[Remark]:
    """Yield a remark on images without a detection in any file: the detector may not have seen them."""
    unseen = [truth.images[place].key for place in np.flatnonzero(~seen).tolist()]
    if unseen:
        what = (
            f"of {len(seen):,} images {{has|have}} no detection in any result file and {{counts|count}} as "
            "{one|images} in which nothing was found; if the detector did not see {it|them}, give --ann a file of the "
            "images that it saw"
        )
        told = agreeing(len(unseen), what)
        yield Remark(
            "images_without_detections", told, results.name, len(unseen), tuple(f"image {key}" for key in unseen[:3])
        )


def _twins(results: Path, cells_of: Mapping[str, list[str]]) -> Iterator[Remark]:
    """Yield a remark on conditions with equal result files."""
    equal = [" and ".join(names) for names in cells_of.values() if len(names) > 1]
    if equal:
        what = "{result file is|result files are} the same for several conditions, as if copied"
        yield Remark("equal_results", agreeing(len(equal), what), results.name, len(equal), tuple(equal[:3]))


def _table(cell: int, rows: ResultRows, images: ResultImages) -> pyarrow.Table:
    """Return the records of one cell, one row for each image."""
    arrow = require("pyarrow", "eval")
    count = len(images.sizes)
    # Detections of an image keep their order in the file, which decides between equal scores, as in pycocotools.
    order = np.argsort(rows.image, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows.image, minlength=count))]).astype(np.int32)

    def lists(values: Any, width: int = 1) -> Any:
        return arrow.ListArray.from_arrays(arrow.array(offsets * width), values)

    def nothing(kind: Any) -> Any:
        return arrow.nulls(count, kind)

    fields = {field.name: field.type for field in schema()}
    masks = nothing(fields["masks"])
    if rows.masks is not None:
        masks = lists(arrow.array([rows.masks[place] for place in order.tolist()], arrow.binary()))
    columns: Mapping[str, Any] = {
        "image": arrow.array(np.arange(count, dtype=np.int32)),
        "cell": arrow.array(np.full(count, cell, np.int16)),
        "boxes": lists(arrow.array(rows.corners(images.sizes)[order].reshape(-1)), 4),
        "scores": lists(arrow.array(rows.scores[order].astype(np.float32))),
        "labels": lists(arrow.array(rows.labels[order])),
        "masks": masks,
        "mask_scores": lists(arrow.array(rows.mask_scores[order].astype(np.float32)))
        if rows.mask_scores is not None
        else nothing(fields["mask_scores"]),
        "error": nothing(fields["error"]),
    }
    table: pyarrow.Table = arrow.Table.from_pydict(dict(columns), schema=schema())
    return table


def _without_masks(table: pyarrow.Table) -> pyarrow.Table:
    arrow = require("pyarrow", "eval")
    for name in ("masks", "mask_scores"):
        place = table.schema.get_field_index(name)
        table = table.set_column(
            place, table.schema.field(name), arrow.nulls(len(table), table.schema.field(name).type)
        )
    return table
