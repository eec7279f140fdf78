"""Corruptions and severities as users name them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from dtn_det.corruptions.catalog import ALL, BENCHMARK, GROUPS, SEVERITIES, check_severity

SETS = {"all": ALL, "benchmark": BENCHMARK, **GROUPS}
"""Names that stand for several corruptions."""


def select_corruptions(words: Iterable[str]) -> tuple[str, ...]:
    """The corruptions that are meant by their own names, by groups, ``benchmark``, ``extra`` or ``all``.

    Returns:
        Each once, in the order of the catalog.

    Raises:
        ValueError: A word that is none of these, or no word.

    Example:
        >>> select_corruptions(["fog", "noise"])
        ('gaussian_noise', 'shot_noise', 'impulse_noise', 'fog')
    """
    chosen: set[str] = set()
    for word in words:
        if word in SETS:
            chosen.update(SETS[word])
        elif word in ALL:
            chosen.add(word)
        else:
            close = difflib.get_close_matches(word, (*ALL, *SETS), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"expected corruptions out of {', '.join(ALL)}, or {', '.join(SETS)} for several, got {word!r}{hint}"
            )
    if not chosen:
        raise ValueError(f"expected at least one corruption, got none: name some, or {', '.join(SETS)} for several")
    return tuple(name for name in ALL if name in chosen)


def select_severities(severities: Iterable[int]) -> tuple[int, ...]:
    """The severities, each once, in ascending order.

    Raises:
        ValueError: One that is not from 1 to 5, or none.
    """
    chosen = set()
    for severity in severities:
        check_severity(severity)
        chosen.add(severity)
    if not chosen:
        raise ValueError("expected at least one severity, got none: name some from 1 to 5")
    return tuple(severity for severity in SEVERITIES if severity in chosen)
