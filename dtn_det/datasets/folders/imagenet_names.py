"""Class folders with the English names of ImageNet's classes, whose order is not that of ImageNet's classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType

from dtn_det._optional import require
from dtn_det.datasets.folders.label_maps import imagenet_wnids

_FEWEST, _SHARE = 10, 0.9


@cache
def wnids_by_name() -> Mapping[str, tuple[str, ...]]:
    """Return the wnids of ImageNet's classes by the first of their English names; nothing if timm is not installed.

    Names consist of letters alone. Two of them, crane and maillot, are those of two classes.
    """
    try:
        info = require("timm.data", "cls").ImageNetInfo("imagenet-1k")
    except ImportError:
        return MappingProxyType({})
    found: dict[str, tuple[str, ...]] = {}
    for wnid in imagenet_wnids():
        name = _letters(info.label_name_to_description(wnid).partition(",")[0])
        found[name] = (*found.get(name, ()), wnid)
    return MappingProxyType(found)


def has_english_names(folders: Sequence[str]) -> bool:
    """Tell whether folders have the English names of ImageNet's classes.

    Args:
        folders: Names of the folders. They have if these are at least 10, and 9 of 10 names are ImageNet's. Case,
            signs, blanks, and numbers at the end, as in ``crane_2``, do not count.
    """
    known = {name.casefold() for name in wnids_by_name()}
    matches = sum(_letters(name).casefold() in known for name in folders)
    return len(folders) >= _FEWEST and matches >= _SHARE * len(folders)


def names_of_two_classes(folders: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the wnids that folders may have whose names are those of several of ImageNet's classes.

    Args:
        folders: Names of the folders.
    """
    known = wnids_by_name()
    wnids = {name: known.get(_letters(name), ()) for name in sorted(folders)}
    return {name: several for name, several in wnids.items() if len(several) > 1}


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]+", "", name)
