"""Cells of a sweep: one corruption at one severity, or the clean images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dtn_det.corruptions.catalog import ALL, BENCHMARK, EXTRA, GROUPS, SEVERITIES
from dtn_det.errors import InputError

Cell = tuple[str, int]
CorruptionSet = Literal["benchmark", "extra", "all"]

CLEAN: Cell = ("clean", 0)
"""The cell of the clean images."""

SETS: dict[str, tuple[str, ...]] = {"benchmark": BENCHMARK, "extra": EXTRA, "all": ALL}
"""Corruptions a mean is taken over: the paper's fifteen, the four hold-outs, or both."""

_SUFFIX = {"benchmark": "", "extra": " (4 extra)", "all": " (15+4)"}


def corruptions_of(name: str) -> tuple[str, ...]:
    """The corruptions of a set, in the paper's order.

    Raises:
        ValueError: An unknown name.
    """
    if not isinstance(name, str) or name not in SETS:
        raise InputError(f"expected corruptions to be one of {', '.join(SETS)}, got {name!r}")
    return SETS[name]


def metric_name(metric: str, corruptions: CorruptionSet) -> str:
    """The name of a mean; one that is not over the fifteen says so."""
    return metric + _SUFFIX[corruptions]


def all_cells(corruptions: CorruptionSet) -> tuple[Cell, ...]:
    """Every corrupted cell of a set, in the paper's order."""
    return tuple((name, severity) for name in corruptions_of(corruptions) for severity in SEVERITIES)


def is_cell(cell: tuple[object, object]) -> bool:
    """Whether a corruption and a severity make a cell."""
    return cell == CLEAN or (cell[0] in ALL and cell[1] in SEVERITIES)


def severity_of(value: object) -> int | str | None:
    """A severity as tables hold it, in whatever type: an integer, None where there is none, text for anything else."""
    if value is None or type(value).__name__ == "NAType":
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        return repr(value)
    number = float(value)
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() else f"{number:g}"


def describe(cells: Iterable[tuple[object, object]]) -> str:
    """Cells as text, such as ``fog 1 2 5, clean``; each named once, in the paper's order, strangers last."""
    severities: dict[str, list[str]] = {}
    for name, severity in dict.fromkeys(cells):
        severities.setdefault(str(name), []).append("" if (name, severity) in (CLEAN, (name, None)) else f" {severity}")
    order = {name: index for index, name in enumerate((CLEAN[0], *ALL))}
    names = sorted(severities, key=lambda name: order.get(name, len(order)))
    return ", ".join(name + "".join(sorted(severities[name])) for name in names)


@dataclass(frozen=True)
class Layout:
    """Where the cells of each corruption stand on the last axis of an array.

    Attributes:
        corruptions: Corruptions that have a cell, in the paper's order.
        columns: For each of them, the indices of its cells.
        severities: For each severity that has a cell, the indices of its cells.
    """

    corruptions: tuple[str, ...]
    columns: tuple[NDArray[np.intp], ...]
    severities: dict[int, NDArray[np.intp]]

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> Layout:
        """The layout of corrupted cells."""
        names = tuple(name for name in ALL if any(cell[0] == name for cell in cells))
        return cls(
            names,
            tuple(np.flatnonzero([cell[0] == name for cell in cells]) for name in names),
            {
                severity: np.flatnonzero([cell[1] == severity for cell in cells])
                for severity in SEVERITIES
                if any(cell[1] == severity for cell in cells)
            },
        )

    def groups(self) -> dict[str, NDArray[np.intp]]:
        """For each group that is present, the indices of its corruptions in :attr:`corruptions`."""
        found = {
            group: np.flatnonzero([name in members for name in self.corruptions]) for group, members in GROUPS.items()
        }
        return {group: indices for group, indices in found.items() if len(indices)}
