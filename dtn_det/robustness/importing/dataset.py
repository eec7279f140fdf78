"""Decides which data set imported results belong to, by the user's word, the files, or the names of their folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError

DATASETS = {"imagenet": "ImageNet-C", "cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}
"""Titles of the data sets that imported results of classifiers may be of, by the names that RobustBench gives them."""

_NAMED = re.compile(r"(?<![a-z0-9])(?:(imagenet)|cifar[-_]?(100|10))(?![0-9])", re.IGNORECASE)


def find_dataset(
    files: Sequence[Path], stated: Iterable[str], asked: str | None, fixed: str = ""
) -> tuple[str, tuple[Remark, ...]]:
    """Find the data set of results.

    Args:
        files: The files of results. Names of folders around them decide if nothing else states the data set.
        stated: Data sets that the files themselves state, such as the field ``dataset`` of RobustBench's JSON files.
        asked: A key of :data:`DATASETS`, as the user named it; None if the user named none.
        fixed: The key of the data set, if the format of the files is for one data set only; else empty.

    Returns:
        A title of :data:`DATASETS`, or an empty string if the data set is unknown; and a remark if the name of a folder
        decided.

    Raises:
        InputError: The files state several data sets, one that is not in :data:`DATASETS`, or another data set than the
            user named.
    """
    found = list(dict.fromkeys(name.strip().lower() for name in stated if name.strip()))
    where = f"{files[0]}{' and the files beside it' if len(files) > 1 else ''}"
    if len(found) > 1:
        raise InputError(
            f"expected results on one data set in {where}, got {' and '.join(found)}: import them one by one"
        )
    if found and found[0] not in DATASETS:
        raise InputError(
            f"expected results on one of {', '.join(DATASETS)} in {where}, got the dataset {found[0]!r}: leave that "
            "file out"
        )
    stated_here = found[0] if found else fixed
    if asked is not None and stated_here and asked != stated_here:
        raise InputError(f"expected --dataset {stated_here}, of which the results in {where} are, got {asked}")
    if asked or stated_here:
        return DATASETS[asked or stated_here], ()
    named = list(dict.fromkeys(filter(None, map(_in_folders, files))))
    if len(named) != 1:
        return "", ()
    key, folder = named[0]
    what = f"data set is taken to be {DATASETS[key]} from the name of the folder {folder!r} (--dataset names another)"
    return DATASETS[key], (Remark("dataset_by_folder", what, files[0].name),)


def _in_folders(file: Path) -> tuple[str, str] | None:
    """Search the names of folders around a file, the nearest first, for a data set. Return set and name, or None."""
    for folder in file.resolve().parents:
        names = {f"cifar{match[2]}" if match[2] else "imagenet" for match in _NAMED.finditer(folder.name)}
        if len(names) == 1:
            return names.pop(), folder.name
    return None
