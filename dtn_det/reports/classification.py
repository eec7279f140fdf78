"""Read the records of classifiers, and compute the numbers of a report from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtn_det.corruptions.catalog import SEVERITIES
from dtn_det.corruptions.cells import Cell
from dtn_det.errors import StoreError
from dtn_det.metrics import (
    CLEAN,
    CellError,
    Difference,
    Interval,
    Intervals,
    Samples,
    calibration_error_samples,
    classification_differences,
    classification_intervals,
    mean_samples,
    reliability,
    selective_samples,
)
from dtn_det.metrics.calibration import Reliability, brier_scores, log_losses
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.metrics.classification import chance_remark, is_at_chance
from dtn_det.metrics.resampling import LEVEL, REPLICATES
from dtn_det.reports.contents import SELECTIVE, Section
from dtn_det.reports.numbers import (
    Row,
    difference_rows,
    make_section,
    number_rows,
    point_samples,
    sets_of,
    unpaired,
)
from dtn_det.robustness.store import ModelStore
from dtn_det.robustness.store.files import bad_images_of

_COLUMNS = {
    "correct": np.bool_,
    "correct_top5": np.bool_,
    "confidence": np.float32,
    "true_probability": np.float32,
    "squared_norm": np.float32,
}


@dataclass(frozen=True)
class ClassifierRecords:
    """The predictions of one classifier for all images under all cells.

    Attributes:
        images: Numbers of the images with predictions, in increasing order, (images,).
        columns: Arrays of shape (images, cells) by name: ``correct``, ``correct_top5``, ``confidence``,
            ``true_probability``, ``squared_norm`` as in
            :func:`dtn_det.robustness.classification.records.records_schema`.
        bad: The error of each image that could not be read and was left out, by the number of the image.
    """

    images: NDArray[np.int64]
    cells: tuple[Cell, ...]
    columns: Mapping[str, NDArray[np.generic]]
    bad: Mapping[int, str]


def read_records(model: ModelStore) -> ClassifierRecords:
    """Read the records of a model from all finished units, the files that a sweep writes.

    Raises:
        StoreError: There are no records, they are damaged, or an image lacks cells.
    """
    manifest = model.store.manifest
    parts: list[NDArray[np.int64]] = []
    stacks: dict[str, list[NDArray[np.generic]]] = {name: [] for name in _COLUMNS}
    bad: dict[int, str] = {}
    for number in sorted(model.finished()):
        table = model.read(number, ["image", "cell", *_COLUMNS])
        bad.update(bad_images_of(table))
        # The store has checked that each image has exactly one row for every cell.
        place = table["image"].to_numpy().astype(np.int64) * len(manifest.cells) + table["cell"].to_numpy()
        # Sweeps write records sorted by image, then by cell. Sort the records only if another order was written.
        order = None if (np.diff(place) > 0).all() else np.argsort(place)
        images = (place if order is None else place[order])[:: len(manifest.cells)] // len(manifest.cells)
        parts.append(images)
        for name, kind in _COLUMNS.items():
            values: NDArray[np.generic] = table[name].to_numpy().astype(kind, copy=False)
            stacks[name].append((values if order is None else values[order]).reshape(len(images), len(manifest.cells)))
    if not sum(map(len, parts)):
        raise StoreError(
            f"expected records of {model.manifest.name!r} in {model.store.folder}, got none: evaluate it first, or "
            "leave it out with --models"
        )
    columns = {name: np.concatenate(stack) for name, stack in stacks.items()}
    return ClassifierRecords(np.concatenate(parts), manifest.cells, columns, bad)


AnyInterval = TypeVar("AnyInterval", Interval, Difference)

_NAMES = {
    "top5_error": "top-5 error",
    "mean top5_error": "mean top-5 error",
    **{form.format(name.lower()): form.format(name) for name in ("ECE", "NLL") for form in ("{}", "mean {}")},
    "brier": "Brier",
    "mean brier": "mean Brier",
    **{form.format(name): form.format(shown) for name, shown in SELECTIVE.items() for form in ("{}", "mean {}")},
}


@dataclass(frozen=True)
class ClassifierNumbers:
    """The numbers computed from one classifier's records; their size does not depend on the number of images.

    Attributes:
        error: Top-1 error of each cell, with bootstrap replicates if there are records of images.
        others: Further numbers of each cell in the same form, such as the top-5 error.
        reliability: Rows of the reliability diagrams, as in :attr:`dtn_det.reports.contents.Section.reliability`.
        severities: Whether the errors of single severities are known, rather than only their means.
    """

    error: Samples
    others: tuple[Samples, ...] = ()
    reliability: tuple[Row, ...] = ()
    severities: bool = True


def numbers_of_records(
    name: str, records: ClassifierRecords, replicates: int = REPLICATES, seed: int = 0, *, selective: bool = False
) -> ClassifierNumbers:
    """Compute the numbers of a model from its records.

    Args:
        replicates: Number of bootstrap replicates; 0 for no intervals.
        selective: Whether to compute the metrics of selective classification for all cells, rather than for the clean
            images alone.
    """
    cells, columns = records.cells, records.columns
    correct, confidence = columns["correct"].astype(np.bool_, copy=False), columns["confidence"]
    diagrams = [reliability(confidence[:, number], correct[:, number]) for number in range(len(cells))]
    means: dict[str, NDArray[np.generic]] = {
        "error": ~correct,
        "top5_error": ~columns["correct_top5"].astype(np.bool_, copy=False),
    }
    # Where several classes are right, the probability of the true class is undefined.
    if not np.isnan(columns["true_probability"].astype(np.float32)).all():
        means["nll"] = log_losses(columns["true_probability"])
        means["brier"] = brier_scores(columns["true_probability"], columns["squared_norm"])
    draws = {"replicates": replicates, "seed": seed}
    if replicates:
        images = records.images.tolist()
        found = mean_samples(means, cells, images, **draws)
        del means
        found["ece"] = calibration_error_samples(confidence, correct, cells, images, **draws)
    else:
        points = {metric: each.mean(0) for metric, each in means.items()}
        points["ece"] = np.array([diagram.expected_calibration_error for diagram in diagrams])
        found = {metric: point_samples(metric, cells, values, len(correct)) for metric, values in points.items()}
    others = [found[metric] for metric in ("top5_error", "ece", "nll", "brier") if metric in found]
    others += _selective(records, [number for number, cell in enumerate(cells) if selective or cell == CLEAN], draws)
    return ClassifierNumbers(found["error"], tuple(others), tuple(_reliability_rows(name, cells, diagrams)))


def _selective(records: ClassifierRecords, chosen: Sequence[int], draws: Mapping[str, int]) -> Iterator[Samples]:
    """Yield the metrics of selective classification under some cells, which need at least two images."""
    if not chosen or len(records.images) < 2:
        return
    cells = [records.cells[number] for number in chosen]
    confidence, correct = (records.columns[name][:, chosen] for name in ("confidence", "correct"))
    for metric, samples in selective_samples(confidence, correct, cells, records.images.tolist(), **draws).items():
        without = point_samples(metric, cells, samples.point, len(records.images))
        yield samples if draws["replicates"] else without


def numbers_of_frame(frame: pd.DataFrame) -> ClassifierNumbers:
    """Convert numbers that another tool computed.

    Args:
        frame: Table with the columns ``corruption``, ``severity``, ``error`` (a fraction), and ``num_images`` where
            known. In a row without a severity, the error is the mean over all five.
    """
    images = int(frame["num_images"].iloc[0]) if "num_images" in frame else 0
    cells: dict[Cell, float] = {}
    known = True
    for name, severity, error in zip(frame["corruption"], frame["severity"], frame["error"], strict=True):
        whole = bool(pd.isna(severity))
        known = known and not whole
        # Use the mean as the error at every severity: means over severities, and ratios of sums over severities, stay
        # the same.
        cells.update({Cell(name, one): error for one in (SEVERITIES if whole else (int(severity),))})
    values = np.array(list(cells.values()), np.float64)
    return ClassifierNumbers(point_samples("error", list(cells), values, images), severities=known)


def classification_section(
    models: Mapping[str, ClassifierNumbers],
    baseline: str | None,
    pairs: Sequence[tuple[str, str]] = (),
    level: float = LEVEL,
    num_classes: int | None = None,
) -> tuple[Section, tuple[str, ...]]:
    """Compute all numbers and differences of classifiers.

    Args:
        models: The numbers of each model by its name, in the order of the tables.
        baseline: ``'alexnet'``, one of the models, or None for no corruption errors.
        num_classes: Number of classes of the data; None if unknown. If a model is no better than random guessing, its
            relative mCE is left out.

    Returns:
        The section; and remarks on undefined numbers, each with the reason.
    """
    remarks: list[str] = []
    against = models[baseline].error if baseline is not None and baseline in models else baseline
    computed = _Computed(against, level, num_classes, remarks)
    rows: list[Row] = []
    for name, model in models.items():
        cells = model.error.cells
        for which in sets_of(cells):
            found = computed.intervals(name, model.error, which)
            rows += number_rows(name, which, found, cells, names=_NAMES, severities=model.severities)
            for other in model.others:
                if which not in sets_of(other.cells):
                    continue
                plain = classification_intervals(other, None, corruptions=which, allow_partial=True, level=level)
                rows += number_rows(name, which, plain, cells, names=_NAMES)
    changes: list[Row] = []
    shown = []
    for first, second in pairs:
        one, other = models[first].error, models[second].error
        fault = unpaired(one, other)
        if fault:
            remarks.append(f"{second} and {first}: no difference, {fault}")
            continue
        shown.append((first, second))
        for which in sets_of(one.cells):
            both = computed.differences({first: one, second: other}, which)
            changes += difference_rows(first, second, which, both, one.cells)
    diagrams = [row for model in models.values() for row in model.reliability]
    return make_section("top1", rows, changes, diagrams, shown), tuple(dict.fromkeys(remarks))


_Baseline = str | Samples | None


@dataclass(frozen=True)
class _Computed:
    """Computes all defined numbers, and collects remarks on undefined numbers."""

    baseline: _Baseline
    level: float
    num_classes: int | None
    remarks: list[str]

    def intervals(self, name: str, model: Samples, which: CorruptionSet) -> Intervals[Interval]:
        """Return the numbers of one model over a set of corruptions."""
        baseline, fault = _paired(model, self.baseline)
        if fault:
            self.remarks.append(f"{name}: no corruption errors, {fault}")
        return self._defined(partial(classification_intervals, model), {name: model}, baseline, which)

    def differences(self, pair: Mapping[str, Samples], which: CorruptionSet) -> Intervals[Difference]:
        """Return the differences between two models, second minus first, over a set of corruptions."""
        first, second = pair.values()
        baseline, _ = _paired(first, self.baseline)
        return self._defined(partial(classification_differences, first, second), pair, baseline, which)

    def _defined(
        self,
        compute: Callable[..., Intervals[AnyInterval]],
        models: Mapping[str, Samples],
        baseline: _Baseline,
        which: CorruptionSet,
    ) -> Intervals[AnyInterval]:
        """Compute all defined numbers; the relative mCE, or all corruption errors, are left out if they are undefined.

        Remarks on numbers that are left out name the last model. The first model decides whether there are clean
        images, which the relative mCE needs.
        """
        attempts = [(baseline, False)]
        guesses = self._guesses(models) if baseline is not None else []
        if guesses:
            self.remarks.extend(guesses)
        else:
            attempts.insert(0, (baseline, CLEAN in next(iter(models.values())).cells))
        compute = partial(compute, corruptions=which, allow_partial=True, level=self.level)
        for against, relative in attempts:
            try:
                return compute(against, relative=relative)
            # With few images, the baseline may make no errors under a corruption, or no more than on clean images. Try
            # again without the relative mCE, then without all corruption errors.
            except CellError as error:
                self.remarks.append(f"{list(models)[-1]}: {error}")
        return compute(None, relative=False)

    def _guesses(self, models: Mapping[str, Samples]) -> list[str]:
        """Return a remark on each model or baseline that is no better than chance: its relative mCE is undefined."""
        found = []
        asked = {**models, "the baseline": self.baseline} if isinstance(self.baseline, Samples) else models
        for name, samples in asked.items():
            column = samples.column(CLEAN)
            if column is None or self.num_classes is None:
                continue
            error = float(samples.point[column])
            if is_at_chance(error, samples.num_images, self.num_classes):
                found.append(chance_remark(error, name))
        return found


def _paired(model: Samples, baseline: _Baseline) -> tuple[_Baseline, str]:
    """Return the baseline and an empty reason; or None and the reason, if model and baseline have different images.

    If the model or the baseline has no records of images, the baseline's errors are treated as constants.
    """
    if not isinstance(baseline, Samples) or baseline is model:
        return baseline, ""
    if baseline.images and model.images:
        fault = unpaired(baseline, model)
        return (None, fault) if fault else (baseline, "")
    # Without records of images, only the numbers of images can be compared. 0, from another tool, means unknown.
    counts = (baseline.num_images, model.num_images)
    if all(counts) and counts[0] != counts[1]:
        return None, f"they were evaluated on other images ({counts[0]:,} and {counts[1]:,})"
    values = np.broadcast_to(baseline.point, (len(model.values), len(baseline.point)))
    constant = replace(baseline, values=values, num_images=model.num_images, images=model.images, seed=model.seed)
    return constant, ""


def _reliability_rows(name: str, cells: Sequence[Cell], diagrams: Sequence[Reliability]) -> Iterator[Row]:
    """Yield the rows of two diagrams: one for the clean images, one for the images of all corrupted cells together."""
    clean = [diagram for cell, diagram in zip(cells, diagrams, strict=True) if cell == CLEAN]
    corrupted = [diagram for cell, diagram in zip(cells, diagrams, strict=True) if cell != CLEAN]
    for images, chosen in (("clean", clean), ("corrupted", corrupted)):
        if not chosen:
            continue
        counts = np.stack([diagram.counts for diagram in chosen])
        total = counts.sum(0)
        with np.errstate(invalid="ignore"):
            # nansum leaves out empty bins, which are NaN.
            accuracy = np.nansum([diagram.accuracy * diagram.counts for diagram in chosen], 0) / total
            confidence = np.nansum([diagram.confidence * diagram.counts for diagram in chosen], 0) / total
        edges = chosen[0].edges
        columns = (edges[:-1], edges[1:], total, accuracy, confidence)
        for row in zip(*(column.tolist() for column in columns), strict=True):
            yield (name, images, *row)
