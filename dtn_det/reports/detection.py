"""Computes the numbers of a report from the records of detectors, several cells at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtn_det.corruptions.cells import Cell
from dtn_det.datasets.remarks import agreeing
from dtn_det.errors import StoreError
from dtn_det.metrics import (
    CLEAN,
    LVIS_METRICS,
    METRICS,
    CocoMatches,
    Difference,
    Interval,
    Intervals,
    Samples,
    average_precision,
    classification_differences,
    classification_intervals,
    detection_differences,
    detection_intervals,
)
from dtn_det.metrics.ap_samples import category_average_precision, cell_samples
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.metrics.error_costs import ERROR_METRICS, error_costs
from dtn_det.metrics.resampling import LEVEL, REPLICATES, interval
from dtn_det.reports.classes import class_metric, is_class_metric
from dtn_det.reports.contents import Evaluator, Kind, Section
from dtn_det.reports.numbers import (
    SETS,
    Row,
    difference_rows,
    make_section,
    number_rows,
    point_samples,
    sets_of,
    unpaired,
)
from dtn_det.robustness.detection.evaluation import (
    CellDetections,
    CocoScorer,
    bad_images,
    cell_groups,
    in_processes,
    read_cells,
)
from dtn_det.robustness.detection.second_opinion import SecondOpinion
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.store import ModelStore, Store

DetectorNumbers = Mapping[str, Samples]
"""The average precisions of one detector, of boxes or of masks, by metric; metrics without ground truth are absent.

The costs of the error types are there if they were computed.
"""

_KINDS: tuple[Kind, ...] = ("bbox", "segm")
# Starting processes pays off above this many bytes of records, or above this product of bytes and bootstrap replicates.
# Below both, the evaluation takes less time than the start.
_PROCESS_BYTES = 20e6
_PROCESS_WORK = 4e6 * 1000


_Match = Callable[[CellDetections, Kind], CocoMatches]
_Compute = Callable[..., NDArray[np.float64]]


class _Work(NamedTuple):
    """A task for another process: some cells of a model to evaluate, described by values that can be pickled."""

    folder: str
    model: str
    cells: tuple[int, ...]
    left_out: tuple[int, ...]
    replicates: int
    seed: int
    evaluator: Evaluator
    errors: bool
    classwise: bool


def numbers_of_stores(
    models: Mapping[str, ModelStore],
    replicates: int = REPLICATES,
    seed: int = 0,
    processes: int = 1,
    on_model: Callable[[str], None] = lambda name: None,
    on_cells: Callable[[int], None] = lambda count: None,
    evaluator: Evaluator = "hotcoco",
    *,
    errors: bool = False,
    classwise: bool = False,
) -> dict[str, dict[Kind, DetectorNumbers]]:
    """Evaluate detectors under every cell, on the images whose records are in finished units of the store.

    Args:
        replicates: Number of bootstrap replicates; 0 for no intervals.
        processes: Number of processes that evaluate at the same time if there is enough to do. Each process imports the
            main module.
        evaluator: With ``faster-coco-eval``, its own matching, curves and summary give all numbers, as a second
            opinion. It takes several times as long, and there are no intervals.
        errors: Whether to compute the costs of the error types too.
        classwise: Whether to compute the AP of each category too, see :func:`dtn_det.reports.classes.class_metric`.

    Raises:
        StoreError: A model has no image that could be read, or its records are damaged.
        ChildProcessError: A process died.
    """
    settings = (replicates, seed, processes, evaluator, errors, classwise)
    work = {name: list(_work(model, *settings)) for name, model in models.items()}
    size = sum(path.stat().st_size for model in models.values() for path in model.folder.glob("unit-*.parquet"))
    parts = [part for own in work.values() for part in own]
    if processes > 1 and (size > _PROCESS_BYTES or size * replicates > _PROCESS_WORK):
        advice = "free some of it and start again"
        results = in_processes(_numbers_of_cells, parts, min(processes, len(parts)), advice)
    else:
        results = map(_numbers_of_cells, parts)
    found: dict[str, dict[Kind, DetectorNumbers]] = {}
    for name, own in work.items():
        on_model(name)
        parts_done = []
        for part in own:
            parts_done.append(next(results))
            on_cells(len(part.cells))
        found[name] = _joined(parts_done)
    return found


def with_truth(samples: Mapping[str, Samples]) -> DetectorNumbers:
    """Keep the metrics that are defined on every cell. APs, for example, is undefined without small objects."""
    return {metric: one for metric, one in samples.items() if np.isfinite(one.point).all()}


def images_left_out(model: ModelStore) -> set[int]:
    """Return the numbers of the images that a detector was not evaluated on, or that could not be read."""
    manifest = model.store.manifest
    return {image for number in model.pending() for image in manifest.unit(number)} | bad_images(model).keys()


def _work(
    model: ModelStore, replicates: int, seed: int, processes: int, evaluator: Evaluator, errors: bool, classwise: bool
) -> Iterator[_Work]:
    manifest = model.store.manifest
    left_out = images_left_out(model)
    if len(left_out) == manifest.num_images:
        raise StoreError(f"expected images that {model.manifest.name!r} has evaluated, got none in {model.folder}")
    # Divide the cells of a model into about two parts for each process, so that no process is idle for long at the end.
    most = -(-len(manifest.cells) // (2 * processes)) if processes > 1 else len(manifest.cells)
    for group in cell_groups(model):
        for start in range(0, len(group), most):
            cells = tuple(group[start : start + most])
            folder, name = str(model.store.folder), model.manifest.name
            yield _Work(folder, name, cells, tuple(sorted(left_out)), replicates, seed, evaluator, errors, classwise)


def _numbers_of_cells(work: _Work) -> dict[Kind, dict[str, Samples]]:
    model = Store.open(Path(work.folder)).model(work.model)
    if work.evaluator == "faster-coco-eval":
        return _second_opinion(model, work)
    scorer = _scorer(work.folder, model.store.manifest.data_hash, work.left_out)
    averages = LVIS_METRICS if scorer.truth.frequencies else METRICS
    computed: list[tuple[Sequence[str], _Match, _Compute]] = [
        (averages, scorer.matches, partial(average_precision, metrics=averages))
    ]
    if work.errors:
        computed.append((ERROR_METRICS, lambda one, kind: scorer.errors(one, kind).repairs, error_costs))
    if work.classwise:
        names = [class_metric(place) for place in range(len(scorer.truth.categories))]
        computed.append((names, scorer.matches, category_average_precision))
    images = model.store.manifest.num_images - len(work.left_out)
    found: dict[Kind, dict[str, Samples]] = {}
    for kind in _KINDS:
        own: dict[str, Samples] = {}
        try:
            for metrics, match, compute in computed:
                matches = _matches(model, kind, work.cells, match)
                if work.replicates:
                    own |= cell_samples(matches, metrics, compute, work.replicates, work.seed)
                else:
                    own |= _point_samples([(cell, compute(one)) for cell, one in matches], images, metrics)
        except _NoMasksError:
            break
        found[kind] = own
    return found


@lru_cache(maxsize=1)
def _scorer(folder: str, data_hash: str, left_out: tuple[int, ...]) -> CocoScorer:
    """Build the arrays of the objects once for all cells and models of a store."""
    return CocoScorer(CocoTruth.of(Store.open(Path(folder))), left_out)


def _second_opinion(model: ModelStore, work: _Work) -> dict[Kind, dict[str, Samples]]:
    manifest = model.store.manifest
    opinion = SecondOpinion(CocoTruth.of(model.store), work.left_out)
    points: dict[Kind, list[tuple[Cell, NDArray[np.float64]]]] = {}
    for found in read_cells(model, work.cells):
        for kind in _KINDS if found.masks is not None else _KINDS[:1]:
            points.setdefault(kind, []).append((manifest.cells[found.cell], opinion.average_precision(found, kind)))
    return {kind: _point_samples(own, len(opinion.ids)) for kind, own in points.items()}


class _NoMasksError(Exception):
    """Raised when the records of a model have boxes but no masks."""


def _matches(model: ModelStore, kind: Kind, cells: Sequence[int], match: _Match) -> Iterator[tuple[Cell, CocoMatches]]:
    # Memory holds the matches of one cell at a time, and the records of the cells that are read together.
    for found in read_cells(model, cells):
        if kind == "segm" and found.masks is None:
            raise _NoMasksError
        yield model.store.manifest.cells[found.cell], match(found, kind)


def _point_samples(
    points: Sequence[tuple[Cell, NDArray[np.float64]]], images: int, metrics: Sequence[str] = METRICS
) -> dict[str, Samples]:
    names = [cell for cell, _ in points]
    values = np.stack([own for _, own in points])
    return {metric: point_samples(metric, names, values[:, index], images) for index, metric in enumerate(metrics)}


def _joined(parts: Sequence[Mapping[Kind, Mapping[str, Samples]]]) -> dict[Kind, DetectorNumbers]:
    """Join the cells of all parts into one set of samples for boxes, and one for masks if all parts have them."""
    found: dict[Kind, DetectorNumbers] = {}
    for kind in _KINDS:
        if all(kind in part for part in parts):
            found[kind] = with_truth(
                {metric: _side_by_side([part[kind][metric] for part in parts]) for metric in parts[0][kind]}
            )
    return found


def _side_by_side(samples: Sequence[Samples]) -> Samples:
    return replace(
        samples[0],
        cells=tuple(cell for one in samples for cell in one.cells),
        point=np.concatenate([one.point for one in samples]),
        values=np.concatenate([one.values for one in samples], axis=1),
    )


def numbers_of_frame(frame: pd.DataFrame) -> DetectorNumbers:
    """Convert numbers that another tool computed.

    Args:
        frame: Table with the columns ``corruption``, ``severity``, one for each metric (a fraction, or -1 without
            ground truth), and ``num_images`` where known.
    """
    cells = [
        Cell(str(name), int(severity)) for name, severity in zip(frame["corruption"], frame["severity"], strict=True)
    ]
    images = int(frame["num_images"].iloc[0]) if "num_images" in frame else 0
    samples = {
        metric: point_samples(metric, cells, frame[metric].replace(-1, np.nan).to_numpy(np.float64), images)
        for metric in METRICS
        if metric in frame
    }
    return with_truth(samples)


def detection_section(
    kind: Kind,
    models: Mapping[str, DetectorNumbers],
    pairs: Sequence[tuple[str, str]] = (),
    level: float = LEVEL,
) -> tuple[Section, tuple[str, ...]]:
    """Compute the section of one kind, boxes or masks: all numbers of the detectors, and the differences of the pairs.

    Args:
        models: The average precisions of each model by its name, in the order of the tables.

    Returns:
        The section, and remarks that say which numbers are undefined and why.
    """
    rows: list[Row] = []
    changes: list[Row] = []
    remarks: list[str] = []
    shown = []
    for name, metrics in models.items():
        zero = []
        for samples in metrics.values():
            if is_class_metric(samples.metric):
                continue
            is_cost = samples.metric in ERROR_METRICS
            if not is_cost and not _has_clean_performance(samples):
                zero.append(samples.metric)
                rows += _clean_rows(name, samples, level)
                samples = _without_clean(samples)
            for which in sets_of(samples.cells):
                found = _intervals(samples, which, level)
                rows += number_rows(name, which, found, samples.cells)
        if zero:
            told = agreeing(len(zero), f"{', '.join(zero)} {{is|are}}")
            remarks.append(f"{name}: {told} 0 on clean images, so that rPC is undefined")
    for first, second in pairs:
        one, other = models[first], models[second]
        for metric in [metric for metric in one if metric in other and not is_class_metric(metric)]:
            fault = unpaired(one[metric], other[metric])
            if fault:
                remarks.append(f"{second} and {first}: no difference, {fault}")
                break
            both = (one[metric], other[metric])
            if metric not in ERROR_METRICS and not all(map(_has_clean_performance, both)):
                both = (_without_clean(both[0]), _without_clean(both[1]))
            for which in sets_of(both[0].cells):
                change = _differences(*both, which, level)
                changes += difference_rows(first, second, which, change, both[0].cells)
        else:
            shown.append((first, second))
    return make_section(kind, rows, changes, (), shown), tuple(dict.fromkeys(remarks))


def _intervals(samples: Samples, which: CorruptionSet, level: float) -> Intervals[Interval]:
    # A cost has means but no rPC, like the errors of classifiers without a baseline.
    if samples.metric in ERROR_METRICS:
        return classification_intervals(samples, None, corruptions=which, allow_partial=True, level=level)
    return detection_intervals(samples, corruptions=which, allow_partial=True, level=level)


def _differences(first: Samples, second: Samples, which: CorruptionSet, level: float) -> Intervals[Difference]:
    if first.metric in ERROR_METRICS:
        return classification_differences(first, second, None, corruptions=which, allow_partial=True, level=level)
    return detection_differences(first, second, corruptions=which, allow_partial=True, level=level)


def _has_clean_performance(samples: Samples) -> bool:
    """Return whether the clean performance is not 0, so that rPC is defined; True without clean or corrupted images."""
    clean = samples.column(CLEAN)
    return clean is None or len(samples.cells) == 1 or bool(samples.point[clean])


def _clean_rows(name: str, samples: Samples, level: float) -> Iterator[Row]:
    """Yield the rows of a model's clean performance if rPC is undefined; else :func:`number_rows` yields them."""
    column = samples.cells.index(CLEAN)
    entry = interval(float(samples.point[column]), samples.values[:, column], level)
    for quantity in ((samples.metric, *CLEAN), (f"P {samples.metric}", "", 0)):
        yield (name, SETS[0], *quantity, 100 * entry.value, 100 * entry.low, 100 * entry.high, 1, 1)


def _without_clean(samples: Samples) -> Samples:
    kept = [number for number, cell in enumerate(samples.cells) if cell != CLEAN]
    return replace(
        samples,
        cells=tuple(samples.cells[number] for number in kept),
        point=samples.point[kept],
        values=samples.values[:, kept],
    )
