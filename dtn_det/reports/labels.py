"""Texts for readers: names of corruptions and groups, notes on models, and texts put on one line."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from dtn_det.corruptions.catalog import catalog_for
from dtn_det.reports.contents import Direction, ReportModel

ARROWS: Mapping[Direction, str] = MappingProxyType({"up": "↑", "down": "↓", "none": ""})
"""The arrow of each direction: up if larger numbers are better, down if smaller numbers are better."""

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
"""Short names of corruptions for the headings of columns under the name of their group, as in the paper's tables.

The names of other corruptions are short already.
"""

# First letter of the Unicode categories of characters that are not shown: control, format (such as those that change
# the direction of writing), surrogate, private and unassigned characters.
_UNSHOWN = "C"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def title(scope: str) -> str:
    """Return the name of a corruption or group for the start of a line: ``Gaussian noise``."""
    words = scope.replace("_", " ")
    return words.replace("jpeg", "JPEG") if words.startswith("jpeg") else words.capitalize()


def short(corruption: str) -> str:
    """Return the name of a corruption for the heading of a column under its group: ``Gauss.``."""
    return SHORT.get(corruption, title(corruption))


def groups_of(corruptions: set[str]) -> dict[str, list[str]]:
    """Divide corruptions into their groups, in the order of the paper's tables; empty groups are left out."""
    found = {
        group: [name for name in names if name in corruptions]
        for group, names in catalog_for(corruptions).groups.items()
    }
    return {group: names for group, names in found.items() if names}


def shared_note(models: Sequence[ReportModel]) -> str:
    """Return the note on the numbers of all models, such as ``partial (...)``; empty if models have different notes."""
    notes = {_note(model) for model in models}
    return notes.pop() if len(notes) == 1 else ""


def model_note(model: ReportModel, models: Sequence[ReportModel]) -> str:
    """Return the note on all numbers of one model; empty if :func:`shared_note` returns it for all models."""
    return "" if shared_note(models) else _note(model)


def joined_notes(*notes: str) -> str:
    """Join notes into one, such as ``partial (30/75; limit=500 of 50000 seed=0)``; drop repeated and empty notes."""
    said = list(dict.fromkeys(note for note in notes if note))
    if len(said) > 1 and all(note.startswith("partial (") and note.endswith(")") for note in said):
        return f"partial ({'; '.join(note[len('partial (') : -1] for note in said)})"
    return ", ".join(said)


def _note(model: ReportModel) -> str:
    partial = f"partial ({model.partial})" if model.partial else ""
    return joined_notes(partial, "imported" if model.origin == "imported" else "")


def one_line(text: str) -> str:
    """Put a text on one line, and replace characters that control a terminal or hide or reorder other characters."""
    shown = "".join(
        _REPLACEMENT if unicodedata.category(sign).startswith(_UNSHOWN) and not sign.isspace() else sign
        for sign in text
    )
    return " ".join(shown.split())
