"""The cells of a sweep: the clean images and every corruption at every severity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dtn_det.corruptions.catalog import BENCHMARK, SEVERITIES, check_name, check_severity
from dtn_det.errors import InputError


class Cell(NamedTuple):
    """One condition under which every image is evaluated.

    Attributes:
        corruption: Its name, or ``'clean'``.
        severity: 1 to 5, or 0 for the clean images.
    """

    corruption: str
    severity: int


CLEAN = Cell("clean", 0)
"""The cell of the clean images."""


def sweep_cells(corruptions: Sequence[str] = BENCHMARK, severities: Sequence[int] = SEVERITIES) -> tuple[Cell, ...]:
    """Return the clean cell, then those of each corruption, both corruptions and severities in the given order.

    Raises:
        InputError: A name or severity is unknown or given twice.
    """
    for name in corruptions:
        check_name(name)
    for severity in severities:
        check_severity(severity)
    for what, values in (("corruptions", corruptions), ("severities", severities)):
        if len(set(values)) != len(values):
            raise InputError(f"expected each of {what} once, got {list(values)}")
    return (CLEAN, *(Cell(name, int(severity)) for name in corruptions for severity in severities))
