"""How many digits a number deserves, and which numbers are best as they are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from dtn_det.reports.tables.table import Cell, Direction, Mark

_RANKED_WITH_SECOND = 3


def supported_decimals(interval: tuple[float, float] | None, most: int) -> int:
    """Decimals down to the second digit of half an interval's width, and no more than ``most``.

    Args:
        interval: Ends; None, or a width of 0, says nothing about digits.
        most: That papers give such a number.
    """
    half = 0.0 if interval is None else (interval[1] - interval[0]) / 2
    return max(0, min(most, 1 - math.floor(math.log10(half)))) if half > 0 else most


def common_decimals(cells: Iterable[Cell], most: int) -> int:
    """Decimals that all cells of a column can have."""
    return min((supported_decimals(cell.interval, most) for cell in cells), default=most)


def ranked(cells: Sequence[Cell], direction: Direction, decimals: int, reasons: Sequence[str] = ()) -> tuple[Cell, ...]:
    """Mark the best number, and the second where at least three are compared; equal ones, as shown, share the mark.

    Numbers of part of the cells or images are not compared with those of all, nor with those of another part.

    Args:
        cells: Of different models.
        direction: Which numbers are better; ``none`` marks none.
        decimals: That are shown.
        reasons: Why each model's numbers are not of the whole data set.
    """
    reasons = reasons or [""] * len(cells)
    having = [place for place, cell in enumerate(cells) if isinstance(cell.value, float)]
    compared = [place for place in having if "partial" not in cells[place].marks]
    if not compared and len({(cells[place].note, reasons[place]) for place in having}) == 1:
        compared = having
    if direction == "none" or len(compared) < 2:
        return tuple(cells)
    shown = {place: _shown(cells[place], decimals) for place in compared}
    order = sorted(set(shown.values()), reverse=direction == "up")
    marks: dict[float, Mark] = {order[0]: "best"}
    if len(compared) >= _RANKED_WITH_SECOND and len(order) > 1:
        marks[order[1]] = "second"
    return tuple(
        replace(cell, marks=cell.marks | {marks[shown[place]]}) if shown.get(place) in marks else cell
        for place, cell in enumerate(cells)
    )


def _shown(cell: Cell, decimals: int) -> float:
    assert isinstance(cell.value, float)
    return float(f"{cell.value:.{decimals}f}")
