"""The formulas of corruption errors and means, on arrays whose last axis is the cells or the corruptions.

Leading axes, such as the axis of bootstrap replicates, are kept. Corruption errors are defined by Hendrycks and
Dietterich (arXiv:1903.12261, Section 4.1), performance under corruption by Michaelis et al. (arXiv:1907.07484, Section
2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dtn_det.metrics.cells import CellLayout

Array = NDArray[np.float64]


def sums(values: Array, layout: CellLayout) -> Array:
    """Sum over the severities of each corruption: (..., cells) becomes (..., corruptions)."""
    return np.stack([values[..., columns].sum(-1) for columns in layout.columns], axis=-1)


def means(values: Array, layout: CellLayout) -> Array:
    """Average over the severities of each corruption: (..., cells) becomes (..., corruptions)."""
    return sums(values, layout) / _counts(layout)


def corruption_errors(errors: Array, baseline: Array, layout: CellLayout) -> Array:
    """Return the CE in percent, (..., corruptions): errors divided by the baseline's, both summed over severities."""
    return 100.0 * _ratio(sums(errors, layout), sums(baseline, layout))


def degradations(errors: Array, clean: Array, layout: CellLayout) -> Array:
    """Sum ``errors - clean`` over the severities of each corruption, as (..., corruptions).

    Args:
        errors: Errors, (..., cells).
        clean: Clean errors, (...).
    """
    return sums(errors - clean[..., None], layout)


def relative_corruption_errors(
    errors: Array, clean: Array, baseline: Array, baseline_clean: Array, layout: CellLayout
) -> Array:
    """Return the relative CE in percent: the :func:`degradations` divided by the baseline's, (..., corruptions)."""
    return 100.0 * _ratio(degradations(errors, clean, layout), degradations(baseline, baseline_clean, layout))


def relative_performance(mean: Array, clean: Array) -> Array:
    """Compute a mean performance in percent of the clean performance; NaN where the clean performance is 0."""
    return 100.0 * _ratio(mean, clean)


def group_means(values: Array, layout: CellLayout) -> dict[str, Array]:
    """Average over the corruptions of each group: (..., corruptions) becomes (...) for each group by name."""
    return {group: values[..., indices].mean(-1) for group, indices in layout.groups().items()}


def severity_means(values: Array, layout: CellLayout) -> dict[int, Array]:
    """Average over the corruptions at each severity: (..., cells) becomes (...) for each severity."""
    return {severity: values[..., columns].mean(-1) for severity, columns in layout.severities.items()}


def _counts(layout: CellLayout) -> Array:
    return np.array([len(columns) for columns in layout.columns], dtype=np.float64)


def _ratio(numerator: Array, denominator: Array) -> Array:
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    undefined: Array = np.full(shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


@dataclass(frozen=True)
class Summary:
    """A mean over cells, partial means, and whether cells are missing.

    Attributes:
        metric: Name of the metric, such as `mCE`, `mPC AP50`, `mean error (15+4)`.
        value: The mean over the corruptions. CE, relative CE and rPC are in percent, other means in the table's unit.
        by_corruption: Value of each corruption that has a cell, in the paper's order.
        by_group: Mean over the corruptions of each group (`noise`, `blur`, `weather`, `digital`, `extra`).
        by_severity: Mean over the corruptions at each severity; empty for mCE and relative mCE, which divide sums over
            the severities.
        cells: Number of corrupted cells in the mean.
        expected_cells: Number of corrupted cells of the whole set.
        baseline: Name of the baseline; None for metrics other than mCE and relative mCE.
        clean: Value of the clean images; None if the table has no clean row.
        num_images: Number of images of each cell; None where unknown.
    """

    metric: str
    value: float
    by_corruption: Mapping[str, float]
    by_group: Mapping[str, float]
    by_severity: Mapping[int, float] = field(default_factory=dict)
    cells: int = 0
    expected_cells: int = 0
    baseline: str | None = None
    clean: float | None = None
    num_images: int | None = None

    @property
    def partial(self) -> bool:
        """Whether cells are missing."""
        return self.cells < self.expected_cells

    @property
    def label(self) -> str:
        """`partial (30/75)` for 30 of 75 cells; empty if no cell is missing."""
        return partial_label(self.cells, self.expected_cells)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.metric, f"{self.value:.4g}", self.label)))


def partial_label(cells: int, expected_cells: int) -> str:
    """Return the mark of an incomplete result, such as ``partial (30/75)``; empty for a complete one."""
    return f"partial ({cells}/{expected_cells})" if cells < expected_cells else ""
