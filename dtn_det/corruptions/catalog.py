"""Names and groups of the corruptions, in the order of the paper's tables.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
arXiv:1903.12261, Section 3: fifteen corruptions in four groups make the benchmark, four more are held out for
validation.
"""

from __future__ import annotations

from types import MappingProxyType

GROUPS = MappingProxyType(
    {
        "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
        "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        "weather": ("snow", "frost", "fog", "brightness"),
        "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
        "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
    }
)
"""Corruptions of each group; ``extra`` holds those that mCE and mPC leave out."""

EXTRA = GROUPS["extra"]
"""The four hold-out corruptions."""

BENCHMARK = tuple(name for group, names in GROUPS.items() if group != "extra" for name in names)
"""The fifteen corruptions of ImageNet-C."""

ALL = BENCHMARK + EXTRA
"""All nineteen."""

SEVERITIES = (1, 2, 3, 4, 5)


def group_of(name: str) -> str:
    """The group of a corruption.

    Raises:
        ValueError: An unknown name.
    """
    check_name(name)
    return next(group for group, names in GROUPS.items() if name in names)


def check_name(name: str) -> None:
    """Raise a ValueError unless ``name`` is a corruption."""
    if name not in ALL:
        raise ValueError(f"expected a corruption out of {', '.join(ALL)}, got {name!r}")


def check_severity(severity: int) -> None:
    """Raise a ValueError unless ``severity`` is an integer from 1 to 5."""
    if isinstance(severity, bool) or not hasattr(severity, "__index__") or severity not in SEVERITIES:
        raise ValueError(f"expected a severity from 1 to 5 (a clean image needs no corruption), got {severity!r}")
