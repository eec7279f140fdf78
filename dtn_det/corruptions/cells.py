"""The cells of a sweep: the clean images, and each corruption at each severity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dtn_det.corruptions.catalog import BENCHMARK, SEVERITIES, catalog_of, check_severity
from dtn_det.errors import InputError


class Cell(NamedTuple):
    """A condition under which each image is evaluated.

    Attributes:
        corruption: Name of the corruption, or ``'clean'``.
        severity: 1 to 5, or 0 for the clean images.
    """

    corruption: str
    severity: int


CLEAN = Cell("clean", 0)
"""The cell of the clean images."""


def sweep_cells(corruptions: Sequence[str] = BENCHMARK, severities: Sequence[int] = SEVERITIES) -> tuple[Cell, ...]:
    """Return the clean cell, then the cells of each corruption at each severity, in the given orders.

    Raises:
        InputError: A name or severity is unknown or repeated, or the corruptions are of several benchmarks.
    """
    catalog_of(corruptions)
    for severity in severities:
        check_severity(severity)
    for what, values in (("corruptions", corruptions), ("severities", severities)):
        if len(set(values)) != len(values):
            raise InputError(f"expected each of {what} once, got {list(values)}")
    return (CLEAN, *(Cell(name, int(severity)) for name in corruptions for severity in severities))
