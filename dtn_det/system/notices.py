"""Keeps two notices of MMDetection and mmpretrain from the user.

Both look for a data service, named OneDL, as they are imported, and print that it is missing, which it always is: no
extra of this package brings it. They mean to log at the level DEBUG; MMEngine's `print_log` prints at every level.
"""

from __future__ import annotations

import builtins
import importlib
from typing import Any, Final

NOTICES: Final = frozenset({"Could not import OneDL", "Could not import OneDL. Skipping OneDL datasets."})


def drop_notices() -> None:
    """Have MMEngine's `print_log` leave out :data:`NOTICES` and print everything else.

    The datasets are imported long after the models, by whoever needs them first, so a redirection of the standard
    output while something is imported would not do.
    """
    vars(importlib.import_module("mmengine.logging.logger"))["print"] = _print


def _print(*values: Any, **options: Any) -> None:
    if len(values) != 1 or not isinstance(values[0], str) or values[0] not in NOTICES:
        builtins.print(*values, **options)
