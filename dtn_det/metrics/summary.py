"""The result of averaging over cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Summary:
    """A mean over cells, what it is made of, and whether cells are missing.

    Attributes:
        metric: Such as `mCE`, `mPC AP50`, `mean error (15+4)`.
        value: The mean over the corruptions. CE, relative CE and rPC are in percent, all else in the table's unit.
        by_corruption: For each corruption that has a cell, in the paper's order.
        by_group: Mean over the corruptions of each group (`noise`, `blur`, `weather`, `digital`, `extra`).
        by_severity: Mean over the corruptions at each severity; empty where the metric is a ratio of sums over them.
        cells: Corrupted cells behind the value.
        expected_cells: Cells of the whole set.
        baseline: Name of the baseline of a corruption error.
        clean: Value of the clean images, where the metric uses it.
        num_images: Images behind each cell, where known.
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
        """`partial (30/75)`, or nothing when the result is complete."""
        return partial_label(self.cells, self.expected_cells)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.metric, f"{self.value:.4g}", self.label)))


def partial_label(cells: int, expected_cells: int) -> str:
    """How an incomplete result is marked; empty for a complete one."""
    return f"partial ({cells}/{expected_cells})" if cells < expected_cells else ""
