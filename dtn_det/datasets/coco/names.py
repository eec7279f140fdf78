"""File names of images in COCO files: those of other machines, and images that are not there."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from dtn_det.datasets.folders.image_files import OtherFiles, walk_images
from dtn_det.errors import InputError

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


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_elsewhere(path: str) -> bool:
    """Whether a path is a URL, such as ``s3://bucket/1.jpg``, rather than a file of this machine."""
    return _SCHEME.match(path) is not None


def check_images(
    annotations: str | os.PathLike[str], paths: Sequence[str], names: Sequence[str] = (), option: str = ""
) -> None:
    """See that images are there.

    Args:
        annotations: The file that names them, for the message.
        paths: Of the images; those elsewhere than on this machine are passed over.
        names: What the file calls each of them.
        option: Key in a config of the folder that the names are relative to.

    Raises:
        InputError: Some are missing; the message counts them, and says where they are if that can be seen.
    """
    missing = [place for place, path in enumerate(paths) if not is_elsewhere(path) and not os.path.isfile(path)]
    if not missing:
        return
    first = missing[0]
    advice = _advice(Path(annotations), paths[first], names[first] if names else "", option)
    raise InputError(
        f"expected all images of {os.fspath(annotations)}, got {len(missing)} of {len(paths)} missing, such as "
        f"{paths[first]}: {advice}"
    )


def _advice(annotations: Path, path: str, name: str, option: str) -> str:
    if is_elsewhere(name):
        return f"the file names URLs ({name!r}); fetch the images and write the names of their files as file_name"
    if is_foreign(name):
        around = path[: -len(name)] if path.endswith(name) and path != name else annotations.parent
        return (
            f"{name!r} is a path of another machine, and not exactly one image below {around} is its "
            f"{base_name(name)!r}; put the images there, each once, under the last parts of their paths, or write "
            "file_name relative to the folder of the images"
        )
    twin = twin_of(Path(path))
    if twin is not None:
        return f"there is {twin.name}, so write the names as the files have them, as file_name"
    folder = next(_holders(annotations, name), None) if name and option else None
    if folder is not None:
        return f"{folder / name} is there, so name its folder with --cfg-options {option}={folder.resolve()}/"
    return "fetch them, or name the right folder with --data-root"


def twin_of(path: Path) -> Path | None:
    """A file whose name differs from that of a missing one in case alone."""
    try:
        found = [other for other in path.parent.iterdir() if other.name.casefold() == path.name.casefold()]
    except OSError:
        return None
    return found[0] if found else None


def _holders(annotations: Path, name: str) -> Iterator[Path]:
    """Folders around an annotation file that have an image of a name."""
    for place in (annotations.parent, annotations.parent.parent):
        below = [Path(entry.path) for entry in os.scandir(place) if entry.is_dir()] if place.is_dir() else []
        for folder in (place, *sorted(below)):
            if (folder / name).is_file():
                yield folder
