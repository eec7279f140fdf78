"""A plain form of class names for comparisons, and advice on what to do if names do not agree."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from dtn_det.datasets.folders.image_files import quoted
from dtn_det.datasets.folders.label_maps import NUMBER


def plain_name(name: str) -> str:
    """Return the plain form of a name.

    Capitals become small letters, dashes and underscores become blanks, and letters get one Unicode encoding. Numbers
    lose their leading zeros.

    >>> plain_name("Polar_Bear"), plain_name("007")
    ('polar bear', '7')
    """
    if NUMBER.fullmatch(name):
        return str(int(name))
    folded = unicodedata.normalize("NFC", name).casefold()
    return unicodedata.normalize("NFC", folded).replace("_", " ").replace("-", " ").strip()


def names_to_mend(extra: Sequence[str], missing: Sequence[str]) -> str:
    """Return advice on how to rename folders to a model's classes if some of them have these names already.

    Args:
        extra: Folders whose names the model does not know.
        missing: Names of the model's classes that no folder has.
    """
    leave = f"leave out the {_folders(extra)}, which the model does not know" if extra else ""
    make = f"make {'an empty' if len(missing) == 1 else 'empty'} {_folders(missing)}" if missing else ""
    rename = f", or rename {'it' if len(extra) == 1 else 'them'} where the class is the same" if leave and make else ""
    return ", and ".join(filter(None, (leave, make))) + rename


def _folders(names: Sequence[str]) -> str:
    return f"folder{'' if len(names) == 1 else 's'} {quoted(names)}"
