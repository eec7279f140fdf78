"""Confidence intervals of a model's numbers, and paired intervals and tests of the differences between two models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtn_det.corruptions.catalog import catalog_for
from dtn_det.corruptions.cells import CLEAN, Cell
from dtn_det.errors import InputError
from dtn_det.metrics import formulas
from dtn_det.metrics.baselines import BASELINES, alexnet_clean_error, alexnet_errors
from dtn_det.metrics.cells import CellLayout, CorruptionSet, all_cells, raise_problems
from dtn_det.metrics.classification import check_denominators
from dtn_det.metrics.detection import no_clean_performance
from dtn_det.metrics.formulas import partial_label
from dtn_det.metrics.resampling import (
    LEVEL,
    Difference,
    Interval,
    Samples,
    check_paired,
    check_samples,
    difference,
    interval,
)

Array = NDArray[np.float64]
I_co = TypeVar("I_co", bound=Interval, covariant=True)


class Quantity(NamedTuple):
    """The key of one number of a model: what it measures, and over which corruption and severity.

    Attributes:
        name: Name of the number: `error`, `CE`, `mCE`, `relative CE`, `relative mCE`, `mean error`; `AP`, `P AP`, `mPC
            AP`, `rPC AP` ...
        scope: A corruption, `clean`, a group of corruptions, or empty for the whole set.
        severity: 1 to 5 for a cell, or for the mean over the corruptions at that severity; 0 for any other number.
    """

    name: str
    scope: str = ""
    severity: int = 0


@dataclass(frozen=True)
class Intervals(Generic[I_co]):
    """The intervals of all numbers of a model, or of all differences of two models.

    Attributes:
        entries: The interval of each number by its key; intervals of single cells come first.
        level: Fraction of the replicates inside an interval.
        num_images: Number of images from which the bootstrap drew.
        cells: Number of corrupted cells behind the means.
        expected_cells: Number of corrupted cells of the whole set.
    """

    entries: Mapping[Quantity, I_co]
    level: float
    num_images: int
    seed: int
    cells: int
    expected_cells: int

    @property
    def partial(self) -> bool:
        """True if cells are missing."""
        return self.cells < self.expected_cells

    @property
    def label(self) -> str:
        """`partial (30/75)` for 30 of 75 cells; empty if no cell is missing."""
        return partial_label(self.cells, self.expected_cells)

    def get(self, name: str, scope: str = "", severity: int = 0) -> I_co:
        """Return the interval of one number.

        Raises:
            KeyError: There is no such number.
        """
        key = Quantity(name, scope, severity)
        if key not in self.entries:
            names = ", ".join(dict.fromkeys(entry.name for entry in self.entries))
            raise KeyError(f"expected a number out of {names} with a scope it has, got {tuple(key)}")
        return self.entries[key]

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each number; its columns are the fields of its key and of its interval."""
        rows = [{**key._asdict(), **vars(entry)} for key, entry in self.entries.items()]
        return pd.DataFrame(rows)


def classification_intervals(
    model: Samples,
    baseline: str | Samples | None = "alexnet",
    *,
    corruptions: CorruptionSet = "benchmark",
    allow_partial: bool = False,
    relative: bool = True,
    level: float = LEVEL,
) -> Intervals[Interval]:
    """Compute intervals of `error`, `CE`, `relative CE`, `mean error`, `mCE` and `relative mCE`.

    All means are also computed for each group, and `mean error` also for each corruption and each severity.

    Args:
        model: Samples of :func:`~dtn_det.metrics.record_samples.error_samples`; samples of another metric need a
            `baseline` of None.
        baseline: `alexnet`, whose errors are constants; the samples of another model with the same images, replicates
            and seed; or None for no corruption errors.
        corruptions: `benchmark` (the paper's 15), `extra` (the 4 hold-outs) or `all`; never mixed.
        allow_partial: Whether to accept missing cells, which :attr:`Intervals.label` then reports. If all corrupted
            cells are missing, no means are computed.
        relative: Whether to compute `relative CE` and `relative mCE`, which need the clean cell.
        level: Fraction of the replicates inside an interval, between 0 and 1.

    Raises:
        CellError: Cells are missing. Or the baseline makes no errors under a corruption, or no more than on clean
            images.
        InputError: The baseline is unknown, has other images, replicates or seed, or is given for a metric other than
            the top-1 error.
    """
    point, values, shape = _classification(model, baseline, corruptions, allow_partial, relative)
    return _intervals(model, point, values, shape, level)


def classification_differences(
    first: Samples,
    second: Samples,
    baseline: str | Samples | None = "alexnet",
    *,
    corruptions: CorruptionSet = "benchmark",
    allow_partial: bool = False,
    relative: bool = True,
    level: float = LEVEL,
) -> Intervals[Difference]:
    """Compute paired intervals and p-values of second minus first, for all numbers of :func:`classification_intervals`.

    The other arguments are those of :func:`classification_intervals`.

    Raises:
        CellError: Cells are missing in either model, or the baseline has one of the faults that
            :func:`classification_intervals` names.
        InputError: The models differ from each other or from the baseline in metric, images, replicates or seed.
    """
    _check_comparable(first, second)
    theirs = _classification(first, baseline, corruptions, allow_partial, relative)
    return _differences(first, theirs, _classification(second, baseline, corruptions, allow_partial, relative), level)


def detection_intervals(
    model: Samples, *, corruptions: CorruptionSet = "benchmark", allow_partial: bool = False, level: float = LEVEL
) -> Intervals[Interval]:
    """Compute intervals of a metric on each cell, and of its summaries `P`, `mPC` and `rPC`.

    `mPC` and `rPC` are also computed for each corruption, group and severity. Without the clean cell, `P` and `rPC` are
    left out; with the clean cell alone, `mPC` and `rPC` are. The other arguments are those of
    :func:`classification_intervals`.

    Args:
        model: Samples of one metric of :func:`~dtn_det.metrics.ap_samples.ap_samples`.

    Raises:
        CellError: Cells are missing or have no ground truth, or P is 0.
    """
    point, values, shape = _detection(model, corruptions, allow_partial)
    return _intervals(model, point, values, shape, level)


def detection_differences(
    first: Samples,
    second: Samples,
    *,
    corruptions: CorruptionSet = "benchmark",
    allow_partial: bool = False,
    level: float = LEVEL,
) -> Intervals[Difference]:
    """Compute paired intervals and p-values of second minus first, for all numbers of :func:`detection_intervals`.

    The other arguments are those of :func:`detection_intervals`.

    Raises:
        CellError: In either model, cells are missing or have no ground truth, or P is 0.
        InputError: The models differ in metric, images, replicates or seed.
    """
    _check_comparable(first, second)
    ours = _detection(second, corruptions, allow_partial)
    return _differences(first, _detection(first, corruptions, allow_partial), ours, level)


class _Coverage(NamedTuple):
    cells: int
    expected: int


_Numbers = tuple[dict[Quantity, Array], dict[Quantity, Array], _Coverage]


def _classification(
    model: Samples, baseline: str | Samples | None, corruptions: CorruptionSet, allow_partial: bool, relative: bool
) -> _Numbers:
    chosen = _chosen(model, corruptions, allow_partial)
    layout = CellLayout.of(chosen)
    against = None
    if baseline is not None:
        if model.metric != "error":
            raise InputError(f"expected top-1 errors to divide by a baseline, got `{model.metric}`: pass baseline=None")
        if relative and CLEAN not in model.cells:
            raise_problems("the model", {"missing (or leave the relative mCE out with relative=False)": [CLEAN]})
        against = _baseline_reader(model, baseline, chosen, relative)
    both = []
    for replicated in (False, True):
        errors, clean = _select(model, chosen, replicated)
        numbers = dict(_cell_numbers(model.metric, chosen, errors, clean))
        if not chosen:
            both.append(numbers)
            continue
        numbers |= _means(f"mean {model.metric}", errors, layout)
        if against is not None:
            other, other_clean = against(replicated)
            if not replicated:
                check_denominators(formulas.sums(other, layout), layout, "the baseline makes no error there")
            numbers |= _with_groups("mCE", "CE", formulas.corruption_errors(errors, other, layout), layout)
            if relative and clean is not None and other_clean is not None:
                if not replicated:
                    harm = formulas.degradations(other, other_clean, layout)
                    check_denominators(harm, layout, "no harm to the baseline (relative=False leaves this out)")
                ratios = formulas.relative_corruption_errors(errors, clean, other, other_clean, layout)
                numbers |= _with_groups("relative mCE", "relative CE", ratios, layout)
        both.append(numbers)
    return both[0], both[1], _Coverage(len(chosen), len(_all_of(model, corruptions)))


def _detection(model: Samples, corruptions: CorruptionSet, allow_partial: bool) -> _Numbers:
    chosen = _chosen(model, corruptions, allow_partial)
    layout = CellLayout.of(chosen)
    with_clean = (*chosen, CLEAN) if CLEAN in model.cells else chosen
    empty = [cell for cell in with_clean if not np.isfinite(model.point[model.cells.index(cell)])]
    raise_problems("the model", {f"`{model.metric}` without ground truth (leave this metric out)": empty})
    both = []
    for replicated in (False, True):
        values, clean = _select(model, chosen, replicated)
        numbers = dict(_cell_numbers(model.metric, chosen, values, clean))
        means = _means(f"mPC {model.metric}", values, layout) if chosen else {}
        numbers |= means
        if clean is not None:
            if not replicated and clean == 0 and chosen:
                raise no_clean_performance(model.metric)
            numbers[Quantity(f"P {model.metric}")] = clean
            for key, mean in means.items():
                numbers[key._replace(name=f"rPC {model.metric}")] = formulas.relative_performance(mean, clean)
        both.append(numbers)
    return both[0], both[1], _Coverage(len(chosen), len(_all_of(model, corruptions)))


def _chosen(model: Samples, corruptions: CorruptionSet, allow_partial: bool) -> tuple[Cell, ...]:
    check_samples(model)
    wanted = _all_of(model, corruptions)
    chosen = tuple(cell for cell in wanted if cell in model.cells)
    if CLEAN in model.cells and allow_partial and len(model.cells) == 1:
        return ()
    if not chosen or not allow_partial:
        raise_problems("the model", {"missing": [cell for cell in wanted if cell not in model.cells]})
    return chosen


def _all_of(model: Samples, corruptions: CorruptionSet) -> tuple[Cell, ...]:
    """Return all cells of a corruption set in the benchmark that the model was evaluated on."""
    return all_cells(corruptions, catalog_for(name for name, _ in model.cells))


def _select(samples: Samples, cells: tuple[Cell, ...], replicated: bool) -> tuple[Array, Array | None]:
    """Return the values of the cells, and of the clean cell (else None), on the replicates or on all images."""
    values = samples.values if replicated else samples.point
    clean = samples.column(CLEAN)
    return values[..., [samples.cells.index(cell) for cell in cells]], None if clean is None else values[..., clean]


def _baseline_reader(
    model: Samples, baseline: str | Samples, cells: tuple[Cell, ...], relative: bool
) -> Callable[[bool], tuple[Array, Array | None]]:
    """Return a function for the baseline's errors on the cells, and on the clean images (else None).

    The argument of the returned function is True for the bootstrap replicates and False for all images. AlexNet's
    errors are the same for both.
    """
    if isinstance(baseline, Samples):
        check_paired(model, baseline)
        needed = (*cells, CLEAN) if relative else cells
        raise_problems("the baseline", {"missing": [cell for cell in needed if cell not in baseline.cells]})
        return partial(_select, baseline, cells)
    if not isinstance(baseline, str) or baseline not in BASELINES:
        got = repr(baseline) if isinstance(baseline, str) else type(baseline).__name__
        raise InputError(f"expected samples or a baseline out of {', '.join(BASELINES)}, got {got}")
    errors = alexnet_errors(cells)
    return lambda _: (errors, np.array(alexnet_clean_error(cells)))


def _cell_numbers(
    metric: str, cells: tuple[Cell, ...], values: Array, clean: Array | None
) -> Iterator[tuple[Quantity, Array]]:
    for column, cell in enumerate(cells):
        yield Quantity(metric, *cell), values[..., column]
    if clean is not None:
        yield Quantity(metric, *CLEAN), clean


def _means(name: str, values: Array, layout: CellLayout) -> dict[Quantity, Array]:
    """Return the means for each corruption and each group, over all corruptions, and at each severity."""
    severities = formulas.severity_means(values, layout)
    found = {Quantity(name, severity=severity): mean for severity, mean in severities.items()}
    return found | _with_groups(name, name, formulas.means(values, layout), layout)


def _with_groups(mean_name: str, name: str, values: Array, layout: CellLayout) -> dict[Quantity, Array]:
    """Return the value of each corruption, and the means over all corruptions and over each group."""
    found = {Quantity(name, scope): values[..., index] for index, scope in enumerate(layout.corruptions)}
    found[Quantity(mean_name)] = values.mean(-1)
    return found | {Quantity(mean_name, group): mean for group, mean in formulas.group_means(values, layout).items()}


def _intervals(
    model: Samples, point: dict[Quantity, Array], values: dict[Quantity, Array], shape: _Coverage, level: float
) -> Intervals[Interval]:
    entries = {key: interval(float(point[key]), values[key], level) for key in point}
    return Intervals(entries, level, model.num_images, model.seed, shape.cells, shape.expected)


def _differences(model: Samples, theirs: _Numbers, ours: _Numbers, level: float) -> Intervals[Difference]:
    (point, values, shape), (our_point, our_values, _) = theirs, ours
    entries = {
        key: difference(float(our_point[key] - point[key]), our_values[key] - values[key], level) for key in point
    }
    return Intervals(entries, level, model.num_images, model.seed, shape.cells, shape.expected)


def _check_comparable(first: Samples, second: Samples) -> None:
    check_paired(first, second)
    raise_problems("the first model", {"missing": [cell for cell in second.cells if cell not in first.cells]})
    raise_problems("the second model", {"missing": [cell for cell in first.cells if cell not in second.cells]})
