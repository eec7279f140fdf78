"""Which numbers tables of corruptions and severities show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from dtn_det.reports.contents import Direction, Kind

if TYPE_CHECKING:
    from dtn_det.reports.numbers import Numbers


@dataclass(frozen=True)
class Measure:
    """How well a model does, as one number a corruption.

    Attributes:
        title: For readers, with its unit.
        cell: Name of the number of one corruption and severity, and of the clean images.
        corruption: Name of the number of one corruption.
        mean: Name of its mean over all corruptions and over groups.
        mean_title: For readers.
        direction: Which numbers are better.
        decimals: That papers give.
    """

    title: str
    cell: str
    corruption: str
    mean: str
    mean_title: str
    direction: Direction
    decimals: int = 1


_PERFORMANCES: Mapping[Kind, Measure] = MappingProxyType(
    {
        "top1": Measure("top-1 error (%)", "error", "mean error", "mean error", "Mean error", "down"),
        "bbox": Measure("AP (%)", "AP", "mPC AP", "mPC AP", "mPC AP", "up"),
        "segm": Measure("AP (%)", "AP", "mPC AP", "mPC AP", "mPC AP", "up"),
    }
)
_CORRUPTION_ERROR = Measure("CE (%)", "error", "CE", "mCE", "mCE", "down")


def performance_measure(kind: Kind) -> Measure:
    """Performance as it is, without a baseline."""
    return _PERFORMANCES[kind]


def corruption_measure(numbers: Numbers, which: str) -> Measure:
    """The corruption error where there is a baseline, performance otherwise."""
    return _CORRUPTION_ERROR if numbers.has("mCE", which) else performance_measure(numbers.section.kind)
