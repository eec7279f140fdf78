"""File names of COCO files that were written on another machine, matched with the images that are there."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from dtn_det.datasets.folders.image_files import OtherFiles, walk_images

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_QUERY = re.compile(r".*\?(?:[^?]*&)?d=")


@dataclass(frozen=True)
class FoundNames:
    """Names below a folder for the names of a file.

    Attributes:
        slashes: Those with backslashes that are there with slashes.
        elsewhere: Those of another machine whose last part is there exactly once.
    """

    slashes: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)


def is_foreign(name: str) -> bool:
    r"""Whether a name can only be of another machine: an absolute path, one with ``..``, a backslash, or a query.

    >>> is_foreign("..\\upload\\1\\a.png"), is_foreign("/data/local-files/?d=a.png"), is_foreign("sub/a.png")
    (True, True, False)
    """
    if "://" in name:
        return False
    return (
        "\\" in name
        or name.startswith("/")
        or ".." in name.split("/")
        or _DRIVE.match(name) is not None
        or _QUERY.match(name) is not None
    )


def base_name(name: str) -> str:
    r"""The last part of a name, whatever machine it is of.

    >>> base_name("..\\upload\\1\\a.png"), base_name("/data/local-files/?d=set%2Fa.png")
    ('a.png', 'a.png')
    """
    query = _QUERY.match(name)
    if query is not None:
        name = unquote(name[query.end() :].partition("&")[0])
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]


def find_names(names: Iterable[str], folder: Path) -> FoundNames:
    """Look for images whose names do not lead to them.

    A name of another machine is matched by its last part, and only where this is certain: each such name of the file
    has a last part of its own, which exactly one image in the folder or below it has, and no other name leads there.

    Args:
        names: All names of a file.
        folder: That they are relative to.
    """
    slashes: dict[str, str] = {}
    lost, known = [], set()
    for name in dict.fromkeys(names):
        changed = name.replace("\\", "/")
        if not is_foreign(name):
            known.add(os.path.normpath(name))
        elif (folder / name).exists():
            known.add(os.path.normpath(os.path.relpath(folder / name, folder)))
        elif "\\" in name and not is_foreign(changed) and (folder / changed).exists():
            slashes[name] = changed
            known.add(os.path.normpath(changed))
        else:
            lost.append(name)
    if not lost or not folder.is_dir():
        return FoundNames(slashes)
    places = _places(folder)
    elsewhere = {}
    for name in lost:
        found = places.get(base_name(name), ())
        if len(found) != 1 or found[0] in known or not _agrees(name, folder / found[0]):
            return FoundNames(slashes)
        elsewhere[name] = found[0]
        known.add(found[0])
    return FoundNames(slashes, elsewhere)


def is_there(folder: Path, name: str) -> bool:
    """Whether a folder itself has the image of a name, as it is written or as another machine would write it."""
    if (folder / name).is_file() and not is_foreign(name):
        return True
    if not is_foreign(name):
        return False
    changed = name.replace("\\", "/")
    if not is_foreign(changed):
        return (folder / changed).is_file() or (folder / name).is_file()
    return (folder / name).is_file() or (folder / base_name(name)).is_file()


def _agrees(name: str, place: Path) -> bool:
    """Whether a place can be that of a name: folders of a relative name mean something here too."""
    changed = name.replace("\\", "/")
    return is_foreign(changed) or str(place.absolute()).endswith(f"/{changed}")


def _places(folder: Path) -> dict[str, list[str]]:
    """The images in a folder and below it by the last parts of their paths."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in walk_images(str(folder), "", OtherFiles()):
        found[path.rpartition("/")[2]].append(path)
    return found
