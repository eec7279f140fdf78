"""Several comparisons at once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from dtn_det.errors import InputError

K = TypeVar("K", bound=Hashable)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values, so that the chance of any false finding among all of them stays below the level.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979: the
    i-th smallest of n is multiplied by n - i + 1, and none is smaller than the one before. Valid whatever the
    comparisons have to do with each other.

    Args:
        p_values: Of one family of comparisons.

    Returns:
        In the order of the arguments, each at most 1.

    Raises:
        ValueError: A p-value outside [0, 1].

    >>> holm([0.04, 0.01, 0.03])
    (0.06, 0.03, 0.06)
    """
    outside = [p_value for p_value in p_values if not 0 <= p_value <= 1]
    if outside:
        raise InputError(f"expected p-values in [0, 1], got {', '.join(map(str, outside))}")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return tuple(adjusted)


def holm_by_key(p_values: Mapping[K, float]) -> dict[K, float]:
    """:func:`holm` of one family whose comparisons have names; those without a p-value (NaN) are none.

    >>> holm_by_key({"fog": 0.04, "snow": 0.01, "frost": float("nan")})
    {'fog': 0.04, 'snow': 0.02}
    """
    known = {key: p_value for key, p_value in p_values.items() if p_value == p_value}
    return dict(zip(known, holm(list(known.values())), strict=True))
