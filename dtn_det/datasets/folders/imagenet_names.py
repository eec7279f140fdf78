"""Class folders with the English names of ImageNet's classes, which are not numbered in alphabetical order."""

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
    """Return the wnids of ImageNet's classes, by the first English name of the class; empty if timm is not installed.

    Only the letters of each name are kept. Two names, crane and maillot, are shared by two classes each.
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
    """Return whether folders have the English names of ImageNet's classes.

    Args:
        folders: Names of the folders. There must be at least 10, and 9 of 10 must be names of ImageNet's classes. Only
            letters are compared, without regard to case, so ``crane_2`` equals ``Crane``.
    """
    known = {name.casefold() for name in wnids_by_name()}
    matches = sum(_letters(name).casefold() in known for name in folders)
    return len(folders) >= _FEWEST and matches >= _SHARE * len(folders)


def names_of_two_classes(folders: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the possible wnids of each folder whose name is shared by several of ImageNet's classes.

    Args:
        folders: Names of the folders.
    """
    known = wnids_by_name()
    wnids = {name: known.get(_letters(name), ()) for name in sorted(folders)}
    return {name: several for name, several in wnids.items() if len(several) > 1}


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]+", "", name)
