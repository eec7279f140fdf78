"""The differences of a pair of models and their significance, for tables, figures and comparisons.

A family is a set of differences whose p-values are adjusted together, such as those of all corruptions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dtn_det.metrics import CLEAN, LVIS_METRICS
from dtn_det.metrics.cells import CorruptionSet, corruptions_of
from dtn_det.metrics.error_costs import ERROR_METRICS
from dtn_det.reports.contents import Direction
from dtn_det.reports.labels import title
from dtn_det.reports.measures import corruption_measure
from dtn_det.reports.numbers import Numbers

OVERALL, EACH_GROUP, EACH_CORRUPTION, OTHER_METRICS = "Overall", "Groups", "Corruptions", "Other metrics"
ERROR_TYPES = "Error types"
"""Titles of the families of differences."""

_P_DECIMALS = 3
# Factor that allows for rounding when a p-value is compared with the smallest possible one.
_ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class Change:
    """The change of one number from the first model of a pair to the second.

    Attributes:
        label: Name of the number for readers.
        name: Name of the number, as in :attr:`dtn_det.reports.contents.Section.numbers`.
        scope: Corruption, group or ``clean``; empty for the whole set.
        value: Second minus first.
        interval: Ends of the paired interval; None if the models could not be compared image by image.
        p_value: Two-sided p-value of no difference; None if the models could not be compared image by image.
        adjusted: The p-value after Holm's adjustment within its family, or `p_value` in a family without adjustment.
        partial: A note on missing cells, such as ``partial (30/75)``; empty if none is missing.
    """

    label: str
    name: str
    scope: str
    first: float
    second: float
    value: float
    interval: tuple[float, float] | None
    p_value: float | None
    adjusted: float | None
    partial: str = ""

    def better(self, direction: Direction) -> bool:
        """Return whether the second model has the better number."""
        return self.value > 0 if direction == "up" else self.value < 0

    def significant(self, level: float) -> bool:
        """Return whether the adjusted p-value is below 1 - `level`."""
        return self.adjusted is not None and self.adjusted < 1 - level


@dataclass(frozen=True)
class Family:
    """Changes that are shown under one title.

    Attributes:
        changes: At least one change.
        adjusted_together: Whether their p-values are adjusted for the number of changes by Holm's method.
    """

    title: str
    changes: tuple[Change, ...]
    adjusted_together: bool


def families(numbers: Numbers, pair: tuple[str, str], which: CorruptionSet, metric: str = "AP") -> tuple[Family, ...]:
    """Return all changes of a pair in families: main numbers, groups, corruptions, other APs and costs of errors.

    Args:
        metric: Average precision by which detectors are compared. The other average precisions are in the last family.
    """
    classifier = numbers.section.kind == "top1"

    def change(label: str, name: str, scope: str = "", together: bool = False) -> Change | None:
        return _change(numbers, pair, which, label, name, scope, together)

    if classifier:
        measure = corruption_measure(numbers, which)
        names = (measure.corruption, measure.mean)
        overall = [change("Clean error", "error", CLEAN[0])]
        overall += [change(name, name) for name in ("mCE", "relative mCE")] + [change("Mean error", "mean error")]
    else:
        names = (f"mPC {metric}", f"mPC {metric}")
        overall = [change(name, name) for name in (f"P {metric}", f"mPC {metric}", f"rPC {metric}")]
    groups = [change(title(group), names[1], group, True) for group in numbers.catalog.groups if which == "benchmark"]
    corruptions = [
        change(title(corruption), names[0], corruption, True) for corruption in corruptions_of(which, numbers.catalog)
    ]
    further = () if classifier else (f"mPC {one}" for one in LVIS_METRICS if one != metric)
    others = [change(name, name, together=True) for name in further]
    costs = [] if classifier else [change(name, f"mean {name}", together=True) for name in ERROR_METRICS]
    listed = {
        OVERALL: overall,
        EACH_GROUP: groups,
        EACH_CORRUPTION: corruptions,
        OTHER_METRICS: others,
        ERROR_TYPES: costs,
    }
    kept = {heading: tuple(one for one in changes if one is not None) for heading, changes in listed.items()}
    return tuple(Family(heading, changes, heading != OVERALL) for heading, changes in kept.items() if changes)


def least_p_value(replicates: int) -> float:
    """Return the smallest p-value that a bootstrap with this number of replicates can give."""
    return 2 / (1 + replicates)


def is_least(p_value: float, replicates: int) -> bool:
    """Return whether a p-value is the smallest that the replicates can give, so that it is only an upper bound."""
    return p_value <= least_p_value(replicates) * _ROUNDING


def p_decimals(replicates: int) -> int:
    """Return the number of decimals that p-values need; with fewer, the smallest possible p-value would read as 0."""
    return max(_P_DECIMALS, math.ceil(-math.log10(least_p_value(replicates))))


def _change(
    numbers: Numbers, pair: tuple[str, str], which: CorruptionSet, label: str, name: str, scope: str, together: bool
) -> Change | None:
    first, second = (numbers.get(model, which, name, scope) for model in pair)
    if first is None or second is None:
        return None
    found = numbers.difference(pair, which, name, scope)
    if found is None or math.isnan(found.p_value):
        value = second.value - first.value
        return Change(label, name, scope, first.value, second.value, value, None, None, None, first.note)
    return Change(
        label,
        name,
        scope,
        first.value,
        second.value,
        found.value,
        (found.low, found.high),
        found.p_value,
        found.p_adjusted if together else found.p_value,
        first.note,
    )
