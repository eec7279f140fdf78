"""Differences of a pair of models with what they prove: what tables and comparisons show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dtn_det.corruptions.catalog import GROUPS
from dtn_det.metrics import CLEAN, METRICS
from dtn_det.metrics.cells import SETS, CorruptionSet
from dtn_det.metrics.resampling import holm
from dtn_det.reports.contents import Direction
from dtn_det.reports.labels import title
from dtn_det.reports.measures import corruption_measure
from dtn_det.reports.numbers import Numbers

OVERALL, EACH_GROUP, EACH_CORRUPTION, OTHER_METRICS = "Overall", "Groups", "Corruptions", "Other metrics"
"""Titles of the families."""


@dataclass(frozen=True)
class Change:
    """Second minus first of one number.

    Attributes:
        label: For readers.
        name: Of the number.
        scope: As in :class:`dtn_det.metrics.Quantity`.
        first: Number of the first model.
        second: Of the second.
        value: Second minus first.
        interval: Paired, None without records.
        p_value: Of the test that there is no difference; None without records.
        adjusted: The same after Holm's adjustment within the family.
        partial: Which cells are missing, as ``partial (30/75)``.
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
        """Whether the second model has the better number."""
        return self.value > 0 if direction == "up" else self.value < 0

    def significant(self, level: float) -> bool:
        """Whether the adjusted p-value is small enough for the level of the intervals."""
        return self.adjusted is not None and self.adjusted < 1 - level


@dataclass(frozen=True)
class Family:
    """Comparisons that are adjusted together, or each for itself.

    Attributes:
        title: For readers.
        changes: At least one.
        adjusted_together: Whether there is more than one question in it.
    """

    title: str
    changes: tuple[Change, ...]
    adjusted_together: bool


def families(numbers: Numbers, pair: tuple[str, str], which: CorruptionSet, metric: str = "AP") -> tuple[Family, ...]:
    """All comparisons of a pair: overall, groups, corruptions, and other average precisions.

    Args:
        numbers: Of a section.
        pair: First and second model.
        which: Set of corruptions.
        metric: Average precision that detectors are compared by.
    """
    classifier = numbers.section.kind == "top1"

    def change(label: str, name: str, scope: str = "") -> Change | None:
        return _change(numbers, pair, which, label, name, scope)

    if classifier:
        measure = corruption_measure(numbers, which)
        names = (measure.corruption, measure.mean)
        overall = [change("Clean error", "error", CLEAN[0])]
        overall += [change(name, name) for name in ("mCE", "relative mCE")] + [change("Mean error", "mean error")]
    else:
        names = (f"mPC {metric}", f"mPC {metric}")
        overall = [change(name, name) for name in (f"P {metric}", f"mPC {metric}", f"rPC {metric}")]
    groups = [change(title(group), names[1], group) for group in GROUPS if which == "benchmark"]
    corruptions = [change(title(corruption), names[0], corruption) for corruption in SETS[which]]
    others = [] if classifier else [change(f"mPC {one}", f"mPC {one}") for one in METRICS if one != metric]
    listed = (
        (OVERALL, overall, False),
        (EACH_GROUP, groups, True),
        (EACH_CORRUPTION, corruptions, True),
        (OTHER_METRICS, others, True),
    )
    return tuple(
        Family(name, _adjusted(kept) if together else kept, together)
        for name, changes, together in listed
        if (kept := tuple(one for one in changes if one is not None))
    )


def least_p_value(replicates: int) -> float:
    """The smallest p-value that a number of replicates can give."""
    return 2 / (1 + replicates)


def is_least(p_value: float, replicates: int) -> bool:
    """Whether a p-value is as small as it can be, so that the true one may be smaller."""
    return p_value <= least_p_value(replicates) * _ROUNDING


def p_decimals(replicates: int) -> int:
    """Decimals that p-values of a number of replicates are shown with."""
    return max(_P_DECIMALS, math.ceil(-math.log10(least_p_value(replicates))))


_UNTESTED = (math.nan,) * 4
_P_DECIMALS = 3
_ROUNDING = 1 + 1e-9


def _change(
    numbers: Numbers,
    pair: tuple[str, str],
    which: CorruptionSet,
    label: str,
    name: str,
    scope: str,
) -> Change | None:
    first, second = (numbers.get(model, which, name, scope) for model in pair)
    if first is None or second is None:
        return None
    keys = ((*pair, one, name, scope, 0) for one in (which, *SETS))
    value, low, high, p_value = next(
        (numbers.differences[key] for key in keys if key in numbers.differences), _UNTESTED
    )
    tested = p_value == p_value
    return Change(
        label,
        name,
        scope,
        first.value,
        second.value,
        value if tested else second.value - first.value,
        (low, high) if tested else None,
        p_value if tested else None,
        p_value if tested else None,
        first.note,
    )


def _adjusted(changes: Sequence[Change]) -> tuple[Change, ...]:
    known = [one.p_value for one in changes if one.p_value is not None]
    adjusted = iter(holm(known))
    return tuple(one if one.p_value is None else replace(one, adjusted=next(adjusted)) for one in changes)
