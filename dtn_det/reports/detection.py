"""From the records of detectors to the numbers of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dtn_det.metrics import (
    CLEAN,
    METRICS,
    CocoMatches,
    Samples,
    ap_samples,
    average_precision,
    detection_differences,
    detection_intervals,
    matches_from_evaluator,
)
from dtn_det.metrics.cells import Cell
from dtn_det.metrics.resampling import LEVEL, REPLICATES, interval
from dtn_det.reports.contents import Kind, Section
from dtn_det.reports.rows import (
    SETS,
    Row,
    difference_rows,
    differences_frame,
    number_rows,
    numbers_frame,
    point_samples,
    reliability_frame,
    sets_of,
    unpaired,
)
from dtn_det.robustness.coco_cells import CocoScorer, bad_images, cell_groups, read_cells
from dtn_det.robustness.coco_truth import CocoTruth
from dtn_det.robustness.store import ModelStore, StoreError

if TYPE_CHECKING:
    import pandas as pd

_DETECTION_KINDS: tuple[Kind, ...] = ("bbox", "segm")

DetectorNumbers = Mapping[str, Samples]
"""Average precisions of one detector and kind, by metric; those without ground truth are left out."""


def numbers_of_store(
    model: ModelStore,
    replicates: int = REPLICATES,
    seed: int = 0,
    on_cell: Callable[[int], None] = lambda count: None,
) -> dict[Kind, DetectorNumbers]:
    """Evaluate a detector under every cell, on the images of its finished units.

    Args:
        model: With at least one finished unit.
        replicates: Of the bootstrap; 0 for none.
        seed: Of the bootstrap.
        on_cell: Called with the number of cells that were just done.

    Raises:
        StoreError: No image could be read.
    """
    manifest = model.store.manifest
    left_out = {image for number in model.pending() for image in manifest.unit(number)} | bad_images(model).keys()
    if len(left_out) == manifest.num_images:
        raise StoreError(f"expected images that {model.manifest.name!r} has evaluated, got none in {model.folder}")
    scorer = CocoScorer(CocoTruth.of(model.store), sorted(left_out))
    found: dict[Kind, DetectorNumbers] = {}
    for kind in _DETECTION_KINDS:
        matches = _matches(model, scorer, kind, on_cell)
        try:
            samples = ap_samples(matches, replicates=replicates, seed=seed) if replicates else _point_samples(matches)
        except _NoMasksError:
            break
        found[kind] = _with_truth(samples)
    return found


def numbers_of_frame(frame: pd.DataFrame) -> DetectorNumbers:
    """Numbers without records: ``corruption``, ``severity``, metrics, and ``num_images`` where known."""
    cells = [(str(name), int(severity)) for name, severity in zip(frame["corruption"], frame["severity"], strict=True)]
    images = int(frame["num_images"].iloc[0]) if "num_images" in frame else 0
    samples = {
        metric: point_samples(metric, cells, frame[metric].replace(-1, np.nan).to_numpy(np.float64), images)
        for metric in METRICS
        if metric in frame
    }
    return _with_truth(samples)


def detection_section(
    kind: Kind,
    models: Mapping[str, DetectorNumbers],
    pairs: Sequence[tuple[str, str]] = (),
    level: float = LEVEL,
) -> tuple[Section, tuple[str, ...]]:
    """All numbers of detectors.

    Args:
        kind: Boxes or masks.
        models: By name, in the order of the tables.
        pairs: First and second of each difference.
        level: Of the intervals.

    Returns:
        The section, and what is undefined and why.
    """
    rows: list[Row] = []
    changes: list[Row] = []
    remarks: list[str] = []
    shown = []
    for name, metrics in models.items():
        for samples in metrics.values():
            if not _has_clean_performance(samples):
                remarks.append(f"{name}: nothing is found on clean images, P {samples.metric} is 0 and rPC undefined")
                rows += _clean_rows(name, samples, level)
                samples = _without_clean(samples)
            for which in sets_of(samples.cells):
                found = detection_intervals(samples, corruptions=which, allow_partial=True, level=level)
                rows += number_rows(name, which, found, samples.cells)
    for first, second in pairs:
        one, other = models[first], models[second]
        for metric in [metric for metric in one if metric in other]:
            fault = unpaired(one[metric], other[metric])
            if fault:
                remarks.append(f"{second} and {first}: no difference, {fault}")
                break
            both = (one[metric], other[metric])
            if not all(map(_has_clean_performance, both)):
                both = (_without_clean(both[0]), _without_clean(both[1]))
            for which in sets_of(both[0].cells):
                change = detection_differences(*both, corruptions=which, allow_partial=True, level=level)
                changes += difference_rows(first, second, which, change, both[0].cells)
        else:
            shown.append((first, second))
    section = Section(kind, numbers_frame(rows), differences_frame(changes), reliability_frame([]), tuple(shown))
    return section, tuple(dict.fromkeys(remarks))


def _has_clean_performance(samples: Samples) -> bool:
    """Whether the clean cell, if there is one, can divide."""
    clean = samples.column(CLEAN)
    return clean is None or bool(samples.point[clean])


def _clean_rows(name: str, samples: Samples, level: float) -> Iterator[Row]:
    """The clean performance, as number_rows gives it where it can divide."""
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


class _NoMasksError(Exception):
    """A model gives boxes alone."""


def _matches(
    model: ModelStore, scorer: CocoScorer, kind: Kind, on_cell: Callable[[int], None]
) -> Iterator[tuple[Cell, CocoMatches]]:
    cells = model.store.manifest.cells
    # One cell is in memory at a time, and so are the records that are read together.
    for group in cell_groups(model):
        for found in read_cells(model, group):
            if kind == "segm" and found.masks is None:
                raise _NoMasksError
            yield cells[found.cell], matches_from_evaluator(scorer.evaluator(found, kind))
            on_cell(1)


def _point_samples(cells: Iterable[tuple[Cell, CocoMatches]]) -> dict[str, Samples]:
    names: list[Cell] = []
    points = []
    images = 0
    for cell, matches in cells:
        names.append(cell)
        points.append(average_precision(matches, None, METRICS))
        images = len(matches.images)
    values = np.stack(points)
    return {metric: point_samples(metric, names, values[:, index], images) for index, metric in enumerate(METRICS)}


def _with_truth(samples: Mapping[str, Samples]) -> DetectorNumbers:
    """Those that are defined: COCO sets may have no small object, say."""
    return {metric: one for metric, one in samples.items() if np.isfinite(one.point).all()}
