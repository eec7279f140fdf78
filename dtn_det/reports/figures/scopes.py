"""What readers call the corruptions and their groups."""

from __future__ import annotations

from types import MappingProxyType

from dtn_det.corruptions.catalog import GROUPS

SHORT = MappingProxyType(
    {
        "gaussian_noise": "Gauss.",
        "shot_noise": "Shot",
        "impulse_noise": "Impulse",
        "defocus_blur": "Defocus",
        "glass_blur": "Glass",
        "motion_blur": "Motion",
        "zoom_blur": "Zoom",
        "brightness": "Bright",
        "elastic_transform": "Elastic",
        "jpeg_compression": "JPEG",
        "speckle_noise": "Speckle",
        "gaussian_blur": "Gauss.",
    }
)
"""Under the name of their group, as in the paper's tables; all others are short already."""


def title(scope: str) -> str:
    """A corruption or a group as the start of a line: ``Gaussian noise``."""
    words = scope.replace("_", " ")
    return words.replace("jpeg", "JPEG") if words.startswith("jpeg") else words.capitalize()


def short(corruption: str) -> str:
    """A corruption in a column of its group: ``Gauss.``."""
    return SHORT.get(corruption, title(corruption))


def groups_of(corruptions: set[str]) -> dict[str, list[str]]:
    """Groups that have some of the corruptions, and which, in the order of the paper's tables."""
    found = {group: [name for name in names if name in corruptions] for group, names in GROUPS.items()}
    return {group: names for group, names in found.items() if names}
