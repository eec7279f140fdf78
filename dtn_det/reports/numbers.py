"""Make the rows of a section's tidy tables, and look numbers up by model, name and scope."""

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

from dtn_det.corruptions.catalog import EVERY, EVERY_GROUP, EXTRA, Catalog, catalog_for, group_of
from dtn_det.corruptions.cells import Cell
from dtn_det.metrics import CLEAN, METRICS, Difference, Interval, Intervals, Quantity, Samples, all_cells
from dtn_det.metrics.cells import CorruptionSet
from dtn_det.metrics.formulas import partial_label
from dtn_det.metrics.resampling import holm_by_key
from dtn_det.reports.contents import (
    DIFFERENCE_COLUMNS,
    NUMBER_COLUMNS,
    RELIABILITY_COLUMNS,
    Kind,
    Report,
    ReportModel,
    Section,
)

Row = tuple[Any, ...]

SETS: tuple[CorruptionSet, ...] = ("benchmark", "extra")
"""The sets of corruptions; means are over one of them, never over both."""

# Names of numbers that are shown as they are: ratios, which are in percent already, and losses. Other numbers are
# fractions.
_AS_IT_IS = {"CE", "mCE", "relative CE", "relative mCE", "NLL", "mean NLL", "Brier", "mean Brier"}


def scale(name: str) -> float:
    """Return the factor by which a number of :mod:`dtn_det.metrics` is shown: 100 for fractions, else 1."""
    return 1.0 if name in _AS_IT_IS or name.startswith("rPC ") else 100.0


def point_samples(metric: str, cells: Sequence[Cell], values: NDArray[np.float64], num_images: int) -> Samples:
    """Return numbers of a model without records of images as :class:`Samples`, with one replicate and no intervals.

    Args:
        values: The numbers, (cells,).
        num_images: Number of images of each number; 0 if unknown.
    """
    return Samples(metric, tuple(cells), values, values[None], num_images, "", 0)


def sets_of(cells: Collection[Cell]) -> list[CorruptionSet]:
    """Return the sets of corruptions with at least one of the cells; for the clean cell alone, the first set."""
    found = [which for which in SETS if any(cell in cells for cell in all_cells(which, _catalog(cells)))]
    return found or [SETS[0]] if CLEAN in cells else found


def cells_of_set(cells: Sequence[Cell], which: CorruptionSet) -> list[int]:
    """Return the places of the cells of a set of corruptions."""
    wanted = set(all_cells(which, _catalog(cells)))
    return [place for place, cell in enumerate(cells) if cell != CLEAN and cell in wanted]


def _catalog(cells: Collection[Cell]) -> Catalog:
    return catalog_for(cell[0] for cell in cells)


def number_rows(
    model: str,
    which: CorruptionSet,
    found: Intervals[Interval],
    cells: Collection[Cell],
    *,
    names: Mapping[str, str] = MappingProxyType({}),
    severities: bool = True,
) -> Iterator[Row]:
    """Yield the rows of :attr:`Section.numbers` for one model and one set of corruptions.

    Args:
        names: Maps names in `found` to names in the report, for numbers whose two names differ.
        severities: Whether to include the numbers of single severities.
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
    """Yield the rows of :attr:`Section.differences`, second minus first, for one pair, without `p_adjusted`."""
    for quantity, entry in found.entries.items():
        if quantity[1:] == CLEAN and which != SETS[0] and SETS[0] in sets_of(cells):
            continue
        numbers = (scale(quantity.name) * value for value in (entry.value, entry.low, entry.high))
        yield (first, second, which, *quantity, *numbers, entry.p_value)


def unpaired(one: Samples, other: Samples) -> str:
    """Return the reason why two models cannot be compared image by image, or an empty text if they can."""
    if not (one.images and other.images):
        return "there are no records of images of both"
    if one.images != other.images:
        return f"they were evaluated on other images ({one.num_images:,} and {other.num_images:,})"
    if one.cells != other.cells:
        return "they were evaluated under other corruptions"
    return ""


def make_section(
    kind: Kind, rows: Sequence[Row], changes: Sequence[Row], diagrams: Sequence[Row], pairs: Sequence[tuple[str, str]]
) -> Section:
    """Make a section from the rows of its three tables and the pairs that were compared."""
    numbers = pd.DataFrame(rows, columns=list(NUMBER_COLUMNS))
    reliability = pd.DataFrame(diagrams, columns=list(RELIABILITY_COLUMNS))
    return Section(kind, numbers, differences_frame(changes), reliability, tuple(pairs))


def differences_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Make the table :attr:`Section.differences` from the rows of all pairs, with p-values adjusted by Holm's method.

    Nothing else adjusts p-values: tables, figures and the page show the adjusted p-values of this table.
    """
    families: dict[Row, list[int]] = {}
    for place, row in enumerate(rows):
        families.setdefault(_family(*row[:6]), []).append(place)
    adjusted = [math.nan] * len(rows)
    for places in families.values():
        for place, p_value in holm_by_key({place: rows[place][-1] for place in places}).items():
            adjusted[place] = p_value
    found = [(*row, p_value) for row, p_value in zip(rows, adjusted, strict=True)]
    return pd.DataFrame(found, columns=list(DIFFERENCE_COLUMNS))


def _family(first: str, second: str, which: str, name: str, scope: str, severity: int) -> Row:
    """Return a key that is equal for all differences whose p-values are adjusted together."""
    start = (first, second, which)
    if scope in EVERY:
        return (*start, name, "cells" if severity else "corruptions")
    if scope in EVERY_GROUP:
        return (*start, name, "groups")
    if severity:
        return (*start, name, "severities")
    if name.startswith("mean dAP50 "):
        return (*start, "mean dAP50", "error types")
    if name.startswith("mPC ") and name != f"mPC {METRICS[0]}":
        return (*start, "mPC", "other metrics")
    return (*start, name, scope, "by itself")


def _support(quantity: Quantity, which: CorruptionSet, cells: Collection[Cell]) -> tuple[int, int]:
    """Return how many evaluated cells a number summarises, and how many it would summarise without missing cells."""
    if quantity[1:] == CLEAN or (not quantity.scope and quantity.name.startswith("P ")):
        return 1, 1
    catalog = _catalog(cells)
    wanted = [
        cell
        for cell in all_cells(which, catalog)
        if quantity.scope in ("", cell[0], group_of(cell[0], catalog)) and quantity.severity in (0, cell[1])
    ]
    return sum(cell in cells for cell in wanted), len(wanted)


class Number(NamedTuple):
    """A number of a section, with its interval and the number of cells that it summarises.

    Attributes:
        low: Lower end of the interval; NaN without an interval.
        high: Upper end of the interval; NaN without an interval.
        cells: Number of evaluated cells that the number summarises.
        expected_cells: Number of cells that it would summarise if none were missing.
    """

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
        """Distances from the value to both ends of the interval, at least 0 for error bars; without interval (0, 0)."""
        if not self.has_interval:
            return 0.0, 0.0
        return max(0.0, self.value - self.low), max(0.0, self.high - self.value)

    @property
    def note(self) -> str:
        """A note on missing cells, such as ``partial (30/75)``; empty if none is missing or the number is NaN."""
        return partial_label(self.cells, self.expected_cells) if math.isfinite(self.value) else ""


class PairedDifference(NamedTuple):
    """The difference of two models in one number, second minus first, with its paired interval and p-values.

    Attributes:
        p_adjusted: The p-value after Holm's adjustment within its family.
    """

    value: float
    low: float
    high: float
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class Numbers:
    """The index of all numbers and differences of one section.

    Attributes:
        models: Models that have a number in the section, in the report's order.
        found: Each number by model, set, name, scope and severity.
        more_decimals: How many more decimals than in papers to show, if the intervals are narrow enough.
    """

    report: Report
    section: Section
    models: tuple[ReportModel, ...]
    found: Mapping[tuple[str, str, str, str, int], Number]
    more_decimals: int = 0

    @classmethod
    def of(cls, report: Report, section: Section, more_decimals: int = 0) -> Numbers:
        """Make the index of the numbers of a section."""
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
    def catalog(self) -> Catalog:
        """The corruptions of the numbers' benchmark."""
        return catalog_for(key[3] for key in self.found)

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
        """The sets of corruptions that have numbers, the benchmark first."""
        having = {which for _, which, _, scope, _ in self.found if scope != "clean"}
        return tuple(which for which in SETS if which in having) or (SETS[0],)

    def has(self, name: str, which: str) -> bool:
        """Return whether some model has a number of this name in a set of corruptions."""
        return any(key[1:3] == (which, name) for key in self.found)

    def get(self, model: str, which: str, name: str, scope: str = "", severity: int = 0) -> Number | None:
        """Return a number of a model; None if unknown. For the clean images, ``which`` may be any set."""
        keys = ((model, one, name, scope, severity) for one in _sets_to_search(which, name, scope))
        return next((self.found[key] for key in keys if key in self.found), None)

    def difference(
        self, pair: tuple[str, str], which: str, name: str, scope: str = "", severity: int = 0
    ) -> PairedDifference | None:
        """Return a pair's difference in a number; None if unknown. For the clean images, ``which`` may be any set."""
        keys = ((*pair, one, name, scope, severity) for one in _sets_to_search(which, name, scope))
        return next((self._differences[key] for key in keys if key in self._differences), None)


def set_of(scope: str) -> CorruptionSet:
    """Return the set to which a corruption or a group belongs; ``benchmark`` for any other scope."""
    return SETS[1] if scope == "extra" or scope in EXTRA else SETS[0]


def _sets_to_search(which: str, name: str, scope: str) -> tuple[str, ...]:
    return (which, *SETS) if scope == CLEAN[0] or name.startswith("P ") else (which,)
