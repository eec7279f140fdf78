"""Sets of images as users name them on the command line, ``DIR`` or ``NAME=DIR``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dtn_det.errors import InputError, StoreError
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


def check_folder_of_stores(store: Path) -> None:
    """Check that the folder for the stores of several sets is not the store of one set.

    Raises:
        StoreError: It is.
    """
    if (store / "store.json").is_file():
        raise StoreError(
            f"expected --store to be a folder for the stores of several sets, got {store}, the store of one set: name "
            "another folder, or one that holds this store"
        )


def check_names(sets: Iterable[tuple[str, Path]]) -> None:
    """Check that sets have different names, also on disks that do not tell capitals from small letters.

    Raises:
        InputError: Two sets have the same name.
    """
    named: dict[str, Path] = {}
    for name, path in sets:
        other = named.setdefault(name.casefold(), path)
        if other is not path:
            raise InputError(
                f"expected sets of different names, got {name!r} for {other} and for {path}: leave one out, or give "
                f"them names, such as --set first={other} --set second={path}"
            )
