"""The numbers of a section: as rows of its tidy tables, and found again by what they are."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtn_det.corruptions.catalog import ALL, EXTRA, GROUPS, group_of
from dtn_det.metrics import CLEAN, METRICS, Difference, Interval, Intervals, Quantity, Samples, all_cells
from dtn_det.metrics.cells import Cell, CorruptionSet
from dtn_det.metrics.formulas import partial_label
from dtn_det.metrics.resampling import holm_by_key
from dtn_det.reports.contents import (
    DIFFERENCE_COLUMNS,
    NUMBER_COLUMNS,
    RELIABILITY_COLUMNS,
    Report,
    ReportModel,
    Section,
)

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
    """A table of differences; their p-values are adjusted here, once for everything that shows them.

    Args:
        rows: As :func:`difference_rows` makes them, of all pairs of a section.
    """
    families: dict[Row, list[int]] = {}
    for place, row in enumerate(rows):
        families.setdefault(_family(*row[:6]), []).append(place)
    adjusted = [math.nan] * len(rows)
    for places in families.values():
        for place, p_value in holm_by_key({place: rows[place][-1] for place in places}).items():
            adjusted[place] = p_value
    return _frame([(*row, p_value) for row, p_value in zip(rows, adjusted, strict=True)], DIFFERENCE_COLUMNS)


def reliability_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """A table of reliability diagrams."""
    return _frame(rows, RELIABILITY_COLUMNS)


def _frame(rows: Sequence[Row], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(columns))


def _family(first: str, second: str, which: str, name: str, scope: str, severity: int) -> Row:
    """What is adjusted together: a pair's cells, severities, groups, corruptions, or mPC other than of AP itself."""
    start = (first, second, which)
    if scope in ALL:
        return (*start, name, "cells" if severity else "corruptions")
    if scope in GROUPS:
        return (*start, name, "groups")
    if severity:
        return (*start, name, "severities")
    if name.startswith("mPC ") and name != f"mPC {METRICS[0]}":
        return (*start, "mPC", "other metrics")
    return (*start, name, scope, "by itself")


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


class Number(NamedTuple):
    """A number, the ends of its interval (NaN without one), and the cells behind it and of the whole set."""

    value: float
    low: float
    high: float
    cells: int
    expected_cells: int

    @property
    def has_interval(self) -> bool:
        """Whether the number has an interval."""
        return self.low == self.low and self.high == self.high

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval goes to each side, (0, 0) without one; never negative, as error bars want it."""
        if not self.has_interval:
            return 0.0, 0.0
        return max(0.0, self.value - self.low), max(0.0, self.high - self.value)

    @property
    def note(self) -> str:
        """Which cells are missing, as ``partial (30/75)``; empty for a complete or undefined number."""
        return partial_label(self.cells, self.expected_cells) if math.isfinite(self.value) else ""


class PairedDifference(NamedTuple):
    """Second minus first of one number: the value, the ends of its interval, and its p-value, plain and adjusted."""

    value: float
    low: float
    high: float
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class Numbers:
    """Numbers of one section.

    Attributes:
        report: The report.
        section: One of its sections.
        models: That have a number, in the report's order.
        found: By model, set, name, scope and severity.
        more_decimals: Shown of numbers without an interval beyond those that papers give.
    """

    report: Report
    section: Section
    models: tuple[ReportModel, ...]
    found: Mapping[tuple[str, str, str, str, int], Number]
    more_decimals: int = 0

    @classmethod
    def of(cls, report: Report, section: Section, more_decimals: int = 0) -> Numbers:
        """Sort the numbers of a section."""
        found = {
            (model, which, name, scope, int(severity)): Number(value, low, high, int(cells), int(expected))
            for model, which, name, scope, severity, value, low, high, cells, expected in section.numbers.itertuples(
                index=False
            )
        }
        having = {key[0] for key in found}
        return cls(
            report, section, tuple(model for model in report.models if model.name in having), found, more_decimals
        )

    @cached_property
    def _differences(self) -> Mapping[tuple[str, str, str, str, str, int], PairedDifference]:
        return {
            (first, second, which, name, scope, int(severity)): PairedDifference(*map(float, values))
            for first, second, which, name, scope, severity, *values in (
                self.section.differences.itertuples(index=False)
            )
        }

    @property
    def sets(self) -> tuple[CorruptionSet, ...]:
        """Sets of corruptions that have numbers, the benchmark first."""
        having = {which for _, which, _, scope, _ in self.found if scope != "clean"}
        return tuple(which for which in SETS if which in having)

    def has(self, name: str, which: str) -> bool:
        """Whether a model has such a number."""
        return any(key[1:3] == (which, name) for key in self.found)

    def get(self, model: str, which: str, name: str, scope: str = "", severity: int = 0) -> Number | None:
        """A number of a model, or None; those of the clean images belong to every set."""
        keys = ((model, one, name, scope, severity) for one in _sets_to_search(which, name, scope))
        return next((self.found[key] for key in keys if key in self.found), None)

    def difference(
        self, pair: tuple[str, str], which: str, name: str, scope: str = "", severity: int = 0
    ) -> PairedDifference | None:
        """The paired difference of a number, or None; those of the clean images belong to every set."""
        keys = ((*pair, one, name, scope, severity) for one in _sets_to_search(which, name, scope))
        return next((self._differences[key] for key in keys if key in self._differences), None)


def set_of(scope: str) -> CorruptionSet:
    """The set that a corruption or a group belongs to."""
    return SETS[1] if scope == "extra" or scope in EXTRA else SETS[0]


def _sets_to_search(which: str, name: str, scope: str) -> tuple[str, ...]:
    return (which, *SETS) if scope == CLEAN[0] or name.startswith("P ") else (which,)
