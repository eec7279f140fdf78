"""Sets of images as users name them on the command line, ``DIR`` or ``NAME=DIR``."""

from __future__ import annotations

from pathlib import Path

from dtn_det.errors import InputError
from dtn_det.robustness.store.files import folder_name


def split_set(word: str) -> tuple[str, Path]:
    """Split ``NAME=DIR``. An existing path, or a word without ``=``, is a path without a name.

    Returns:
        The name, empty if the word has none, and the path.

    Raises:
        InputError: The name cannot be that of the folder of a store.
    """
    if Path(word).exists() or "=" not in word:
        return "", Path(word)
    name, _, path = word.partition("=")
    if not name or folder_name(name) != name:
        raise InputError(
            f"expected the name of a set to be that of a folder, of letters, digits, dots, dashes and underscores, got "
            f"{name!r} in --set {word}: name it without other signs, such as --set my-set={path}"
        )
    return name, Path(path)
