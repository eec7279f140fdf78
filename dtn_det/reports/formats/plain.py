"""Text that any format can hold: names may come from anywhere."""

from __future__ import annotations

import unicodedata

# Control, format (such as those that turn the direction of writing), surrogate, private and unassigned characters.
_UNSHOWN = "C"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def one_line(text: str) -> str:
    """Text on one line, without characters that steer a terminal, hide or reorder what is read."""
    shown = "".join(
        _REPLACEMENT if unicodedata.category(sign).startswith(_UNSHOWN) and not sign.isspace() else sign
        for sign in text
    )
    return " ".join(shown.split())
