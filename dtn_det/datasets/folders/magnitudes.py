"""Find the severity of a corruption's folder from its name, which is 1 to 5 or a magnitude of the corruption.

The generator of the C-bar benchmarks names folders by magnitudes with two decimals, ``sparkles/1.00`` to
``sparkles/6.00``; the published archive names them 1 to 5 (github.com/facebookresearch/augmentation-corruption).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dtn_det.corruptions.severities import CIFAR_C_BAR, IMAGENET_C_BAR

SEVERITY = re.compile(r"(?:severity|sev|s|level)?[_\- ]?0*([1-5])", re.IGNORECASE)
"""Pattern of the name of a folder that is a severity."""

_MAGNITUDE = re.compile(r"\d+(\.\d+)?")


def is_severity(name: str) -> bool:
    """Return whether a folder is named like a severity or the magnitude of a corruption."""
    return bool(SEVERITY.fullmatch(name) or _MAGNITUDE.fullmatch(name))


def severities_of(corruption: str, names: Sequence[str]) -> dict[str, int]:
    """Return the severity of each folder of a corruption by the folder's name; folders without a severity are left out.

    Names with a decimal point are magnitudes. They count as severities only if one benchmark has all of these
    magnitudes.
    """
    found = {name: int(match[1]) for name in names if (match := SEVERITY.fullmatch(name))}
    decimals = [name for name in names if "." in name and _MAGNITUDE.fullmatch(name)]
    for table in (IMAGENET_C_BAR, CIFAR_C_BAR):
        known = magnitudes(corruption, table)
        if decimals and all(name in known for name in decimals):
            return found | {name: known[name] for name in decimals}
    return found


def magnitudes(corruption: str, table: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, int]:
    """Return the severity of each magnitude of a corruption; the keys are the magnitudes with two decimals."""
    return {f"{value:.2f}": severity for severity, (value, *_) in enumerate(table.get(corruption, ()), 1)}
