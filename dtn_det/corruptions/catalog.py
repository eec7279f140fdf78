"""Names and groups of the corruptions, in the order of the paper's tables, and their selection by users.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
arXiv:1903.12261, Section 3: fifteen corruptions in four groups make the benchmark, four more are held out for
validation.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from types import MappingProxyType

from dtn_det.errors import InputError

GROUPS = MappingProxyType(
    {
        "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
        "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        "weather": ("snow", "frost", "fog", "brightness"),
        "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
        "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
    }
)
"""The corruptions of each group. mCE and mPC exclude the group ``extra``."""

EXTRA = GROUPS["extra"]
"""The four hold-out corruptions."""

BENCHMARK = tuple(name for group, names in GROUPS.items() if group != "extra" for name in names)
"""The fifteen corruptions of ImageNet-C."""

ALL = BENCHMARK + EXTRA
"""All nineteen corruptions."""

SEVERITIES = (1, 2, 3, 4, 5)
"""The severities of each corruption, from the weakest to the strongest."""


def group_of(name: str) -> str:
    """Return the group of a corruption.

    Raises:
        InputError: The name is unknown.
    """
    check_name(name)
    return next(group for group, names in GROUPS.items() if name in names)


def check_name(name: str) -> None:
    """Check that a corruption of this name exists; raise an InputError otherwise."""
    if name not in ALL:
        raise InputError(f"expected a corruption out of {', '.join(ALL)}, got {name!r}")


def check_severity(severity: int) -> None:
    """Check that a severity is an integer from 1 to 5; raise an InputError otherwise."""
    if isinstance(severity, bool) or not hasattr(severity, "__index__") or severity not in SEVERITIES:
        raise InputError(f"expected a severity from 1 to 5 (a clean image needs no corruption), got {severity!r}")


SETS = {"all": ALL, "benchmark": BENCHMARK, **GROUPS}
"""The corruptions that names such as ``all`` or ``noise`` stand for."""


def select_corruptions(words: Iterable[str]) -> tuple[str, ...]:
    """Return the corruptions for some words: their names, groups such as ``noise``, ``benchmark`` or ``all``.

    Returns:
        The names of the corruptions, each once, in the order of :data:`ALL`.

    Raises:
        InputError: A word is none of these, or there are no words.

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
            raise InputError(
                f"expected corruptions out of {', '.join(ALL)}, or {', '.join(SETS)} for several, got {word!r}{hint}"
            )
    if not chosen:
        raise InputError(f"expected at least one corruption, got none: name some, or {', '.join(SETS)} for several")
    return tuple(name for name in ALL if name in chosen)


def select_severities(severities: Iterable[int]) -> tuple[int, ...]:
    """Return the severities, each once, in ascending order.

    Raises:
        InputError: A severity is not an integer from 1 to 5, or there are none.
    """
    chosen = set()
    for severity in severities:
        check_severity(severity)
        chosen.add(severity)
    if not chosen:
        raise InputError("expected at least one severity, got none: name some from 1 to 5")
    return tuple(severity for severity in SEVERITIES if severity in chosen)
