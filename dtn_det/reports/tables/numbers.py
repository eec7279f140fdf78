"""The numbers of a section by what they are, as cells of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from dtn_det.metrics.cells import CorruptionSet
from dtn_det.metrics.summary import partial_label
from dtn_det.reports.contents import Report, ReportModel, Section
from dtn_det.reports.rows import SETS
from dtn_det.reports.tables.table import Cell

_CERTAIN = 1e-9
_OF_BASELINE = ("CE", "mCE", "relative CE", "relative mCE")


class Number(NamedTuple):
    """A number, the ends of its interval (NaN without one), and the cells behind it and of the whole set."""

    value: float
    low: float
    high: float
    cells: int
    expected_cells: int


@dataclass(frozen=True)
class Numbers:
    """Numbers of one section.

    Attributes:
        report: The report.
        section: One of its sections.
        models: That have a number, in the report's order.
        found: By model, set, name, scope and severity.
    """

    report: Report
    section: Section
    models: tuple[ReportModel, ...]
    found: Mapping[tuple[str, str, str, str, int], Number]

    @classmethod
    def of(cls, report: Report, section: Section) -> Numbers:
        """Sort the numbers of a section."""
        found = {
            (model, which, name, scope, int(severity)): Number(value, low, high, int(cells), int(expected))
            for model, which, name, scope, severity, value, low, high, cells, expected in section.numbers.itertuples(
                index=False
            )
        }
        having = {key[0] for key in found}
        return cls(report, section, tuple(model for model in report.models if model.name in having), found)

    @cached_property
    def differences(self) -> Mapping[tuple[str, str, str, str, str, int], tuple[float, float, float, float]]:
        """Value, ends and p-value by first and second model, set, name, scope and severity."""
        return {
            (first, second, which, name, scope, int(severity)): (value, low, high, p_value)
            for first, second, which, name, scope, severity, value, low, high, p_value in (
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
        sets = (which, *SETS) if scope == "clean" or name.startswith("P ") else (which,)
        return next(
            (self.found[key] for one in sets if (key := (model, one, name, scope, severity)) in self.found), None
        )

    def cell(self, model: ReportModel, which: str, name: str, scope: str = "", severity: int = 0) -> Cell:
        """A number as a cell; its note tells which cells are missing, its mark whether anything is."""
        number = self.get(model.name, which, name, scope, severity)
        return number_cell(number, partial=bool(model.partial))


def without_baseline_marks(numbers: Numbers, name: str, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Cells of all models without the ranks of the baseline where its number is 100 by definition."""
    if name not in _OF_BASELINE:
        return tuple(cells)
    ranks = {"best", "second"}
    return tuple(
        replace(cell, marks=cell.marks - ranks) if model.name == numbers.report.baseline else cell
        for model, cell in zip(numbers.models, cells, strict=True)
    )


def number_cell(number: Number | None, partial: bool = False) -> Cell:
    """A number as a cell.

    Args:
        number: None for an empty cell.
        partial: Whether it is not that of the whole data set.
    """
    if number is None or not math.isfinite(number.value):
        return Cell()
    # A baseline's number against itself is certain.
    certain = not number.high - number.low > _CERTAIN
    interval = None if certain else (number.low, number.high)
    note = partial_label(number.cells, number.expected_cells)
    return Cell(number.value, interval, frozenset({"partial"} if partial or note else ()), note)


def without_shared_note(cells: Sequence[Cell], of_one_model: bool = False) -> tuple[tuple[Cell, ...], str]:
    """Cells of a row without the note that they share, and that note, which then belongs to the row.

    Args:
        cells: Of the row.
        of_one_model: Whether numbers without a note, such as those of the clean images, do not matter.
    """
    notes = {cell.note for cell in cells if cell.value is not None and (cell.note or not of_one_model)}
    if len(notes) != 1:
        return tuple(cells), ""
    return tuple(replace(cell, note="") for cell in cells), notes.pop()


def shared_note(models: Sequence[ReportModel]) -> str:
    """What must be read with all numbers of all models; empty if it is not the same for all."""
    notes = {_note(model) for model in models}
    return notes.pop() if len(notes) == 1 else ""


def model_note(model: ReportModel, models: Sequence[ReportModel]) -> str:
    """What must be read with all numbers of one of several models, unless it goes for all of them."""
    return "" if shared_note(models) else _note(model)


def joined_notes(*notes: str) -> str:
    """Several notes as one: ``partial (30/75; limit=500 of 50000 seed=0)``."""
    said = list(dict.fromkeys(note for note in notes if note))
    if len(said) > 1 and all(note.startswith("partial (") and note.endswith(")") for note in said):
        return f"partial ({'; '.join(note[len('partial (') : -1] for note in said)})"
    return ", ".join(said)


def _note(model: ReportModel) -> str:
    partial = f"partial ({model.partial})" if model.partial else ""
    return joined_notes(partial, "imported" if model.origin == "imported" else "")
