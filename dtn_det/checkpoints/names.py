"""What the key maps share: types, and rules of renaming."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

StateDict = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]


def rename(key: str, rules: Rules) -> str:
    """Apply regular expressions and their replacements to a name, one after the other."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def some(names: Iterable[str], limit: int = 8) -> str:
    """Some of the names in alphabetical order, and how many more there are."""
    ordered = sorted(map(str, names))
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more
