"""Numbers of models as rows of :attr:`dtn_det.reports.contents.Section.numbers`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.corruptions.catalog import group_of
from dtn_det.metrics import CLEAN, Difference, Interval, Intervals, Quantity, Samples, all_cells
from dtn_det.metrics.cells import Cell, CorruptionSet
from dtn_det.reports.contents import DIFFERENCE_COLUMNS, NUMBER_COLUMNS, RELIABILITY_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

Row = tuple[Any, ...]

SETS: tuple[CorruptionSet, ...] = ("benchmark", "extra")
"""Sets of corruptions, each with its own means."""

# Ratios are in percent already, and losses stay what they are; all else is a fraction.
_AS_IT_IS = {"CE", "mCE", "relative CE", "relative mCE", "NLL", "mean NLL", "Brier", "mean Brier"}


def scale(name: str) -> float:
    """What a number of the metrics is multiplied by to be shown, by the name that readers see."""
    return 1.0 if name in _AS_IT_IS or name.startswith("rPC ") else 100.0


def point_samples(metric: str, cells: Sequence[Cell], values: NDArray[np.float64], num_images: int) -> Samples:
    """Numbers without records of images, as the metrics take them; intervals of them are no intervals."""
    return Samples(metric, tuple(cells), values, values[None], num_images, "", 0)


def sets_of(cells: Collection[Cell]) -> list[CorruptionSet]:
    """The sets that have a cell."""
    return [which for which in SETS if any(cell in cells for cell in all_cells(which))]


def number_rows(
    model: str,
    which: CorruptionSet,
    found: Intervals[Interval],
    cells: Collection[Cell],
    *,
    names: Mapping[str, str] = MappingProxyType({}),
    severities: bool = True,
) -> Iterator[Row]:
    """Rows of one model.

    Args:
        model: Its name.
        which: The set of corruptions.
        found: Its numbers.
        cells: That it was evaluated on.
        names: What numbers are called whose names in the metrics are not for readers.
        severities: Whether to give those of single severities.
    """
    for quantity, entry in found.entries.items():
        if quantity.severity and not severities:
            continue
        if quantity[1:] == CLEAN and which != SETS[0] and SETS[0] in sets_of(cells):
            continue
        ends = (entry.low, entry.high) if entry.replicates > 1 else (math.nan, math.nan)
        name = names.get(quantity.name, quantity.name)
        numbers = (scale(name) * value for value in (entry.value, *ends))
        yield (model, which, name, *quantity[1:], *numbers, *_support(quantity, which, cells))


def difference_rows(
    first: str, second: str, which: CorruptionSet, found: Intervals[Difference], cells: Collection[Cell]
) -> Iterator[Row]:
    """Rows of one pair: second minus first."""
    for quantity, entry in found.entries.items():
        if quantity[1:] == CLEAN and which != SETS[0] and SETS[0] in sets_of(cells):
            continue
        numbers = (scale(quantity.name) * value for value in (entry.value, entry.low, entry.high))
        yield (first, second, which, *quantity, *numbers, entry.p_value)


def unpaired(one: Samples, other: Samples) -> str:
    """Why two models cannot be compared image by image, or nothing."""
    if not (one.images and other.images):
        return "there are no records of images of both"
    if one.images != other.images:
        return f"they were evaluated on other images ({one.num_images:,} and {other.num_images:,})"
    if one.cells != other.cells:
        return "they were evaluated under other corruptions"
    return ""


def numbers_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """A table of numbers."""
    return _frame(rows, NUMBER_COLUMNS)


def differences_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """A table of differences."""
    return _frame(rows, DIFFERENCE_COLUMNS)


def reliability_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """A table of reliability diagrams."""
    return _frame(rows, RELIABILITY_COLUMNS)


def _frame(rows: Sequence[Row], columns: Sequence[str]) -> pd.DataFrame:
    frame: pd.DataFrame = require("pandas", "eval").DataFrame(rows, columns=list(columns))
    return frame


def _support(quantity: Quantity, which: CorruptionSet, cells: Collection[Cell]) -> tuple[int, int]:
    """Cells behind a number, and those of the whole set."""
    if quantity[1:] == CLEAN or (not quantity.scope and quantity.name.startswith("P ")):
        return 1, 1
    wanted = [
        cell
        for cell in all_cells(which)
        if quantity.scope in ("", cell[0], group_of(cell[0])) and quantity.severity in (0, cell[1])
    ]
    return sum(cell in cells for cell in wanted), len(wanted)
