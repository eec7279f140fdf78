"""From the average precisions of detectors to the numbers of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dtn_det.metrics import CLEAN, METRICS, Samples, detection_differences, detection_intervals
from dtn_det.metrics.resampling import LEVEL, interval
from dtn_det.reports.contents import Kind, Section
from dtn_det.reports.detector_records import DetectorNumbers, with_truth
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

if TYPE_CHECKING:
    import pandas as pd


def numbers_of_frame(frame: pd.DataFrame) -> DetectorNumbers:
    """Numbers without records: ``corruption``, ``severity``, metrics, and ``num_images`` where known."""
    cells = [(str(name), int(severity)) for name, severity in zip(frame["corruption"], frame["severity"], strict=True)]
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
