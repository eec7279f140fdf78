"""Match image names in COCO files with images on disk, even if the names are paths of another machine.

Messages about missing images say what to do.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from dtn_det.datasets.folders.image_files import OtherFiles, walk_images
from dtn_det.errors import InputError

_SHOWN = 5
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_QUERY = re.compile(r".*\?(?:[^?]*&)?d=")


@dataclass(frozen=True)
class FoundNames:
    """The images on disk that names in a COCO file refer to, as paths relative to a folder.

    Attributes:
        slashes: Names with backslashes, each mapped to the name with slashes; only names whose file exists.
        elsewhere: Paths of another machine, each mapped to the only image below the folder that has the same file name.
    """

    slashes: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)


def is_foreign(name: str) -> bool:
    r"""Return whether a name looks like a path of another machine: absolute, or with ``..``, a backslash or a query.

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
    r"""Return the file name at the end of a name, which may be a path of another machine.

    >>> base_name("..\\upload\\1\\a.png"), base_name("/data/local-files/?d=set%2Fa.png")
    ('a.png', 'a.png')
    """
    query = _QUERY.match(name)
    if query is not None:
        name = unquote(name[query.end() :].partition("&")[0])
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]


def find_names(names: Iterable[str], folder: Path) -> FoundNames:
    """Search for images that are not at the path that the COCO file gives.

    Paths of another machine are matched by file name, and only if all of them match: exactly one image in the folder or
    below it has each file name, and no two paths lead to the same image.

    Args:
        folder: Folder that the names are relative to.
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
    """Return whether a folder has the image with this name. A path of another machine may match by file name alone."""
    if (folder / name).is_file() and not is_foreign(name):
        return True
    if not is_foreign(name):
        return False
    changed = name.replace("\\", "/")
    if not is_foreign(changed):
        return (folder / changed).is_file() or (folder / name).is_file()
    return (folder / name).is_file() or (folder / base_name(name)).is_file()


def _agrees(name: str, place: Path) -> bool:
    """Return whether a name can stand for a file. A relative path must be the end of the file's path."""
    changed = name.replace("\\", "/")
    return is_foreign(changed) or str(place.absolute()).endswith(f"/{changed}")


def _places(folder: Path) -> dict[str, list[str]]:
    """Return the paths of the images in a folder and below it, grouped by file name."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in walk_images(str(folder), "", OtherFiles()):
        found[path.rpartition("/")[2]].append(path)
    return found


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_elsewhere(path: str) -> bool:
    """Return whether a path is a URL, such as ``s3://bucket/1.jpg``, rather than a file on this machine."""
    return _SCHEME.match(path) is not None


def check_images(
    annotations: str | os.PathLike[str], paths: Sequence[str], names: Sequence[str] = (), option: str = ""
) -> None:
    """Check that the images of an annotation file exist.

    Args:
        paths: Paths of the images; URLs are skipped.
        option: Key by which a config names the folder that the names are relative to.

    Raises:
        InputError: Images are missing. The message says how many, and where they are if they can be found.
    """
    missing = [place for place, path in enumerate(paths) if not is_elsewhere(path) and not os.path.isfile(path)]
    if not missing:
        return
    first = missing[0]
    advice = _advice(Path(annotations), paths[first], names, first, option)
    raise InputError(
        f"expected all images of {os.fspath(annotations)}, got {len(missing)} of {len(paths)} missing, such as "
        f"{paths[first]}: {advice}"
    )


def _advice(annotations: Path, path: str, names: Sequence[str], first: int, option: str) -> str:
    name = names[first] if names else ""
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
    if name and path.endswith(name) and (decoded := unquoted_advice(Path(path[: -len(name)]), name)):
        return decoded
    if name and path.endswith(name):
        below = find_holders(Path(path[: -len(name)]), names)
        if below.only is not None and option:
            return _name_folder(below.only, name, option)
        if name in below.places:
            return below.advice(name)
    # A folder of the config with some of the images is assumed to be right, so no other folder is suggested.
    if name and option and not (path.endswith(name) and _count(Path(path[: -len(name)]), names)):
        around_it = max(_holders(annotations, name), key=lambda one: _count(one, names), default=None)
        if around_it is not None:
            return _name_folder(around_it, name, option)
    return "fetch them, or name the right folder with --data-root"


def unquoted_advice(folder: Path, name: str) -> str:
    """Return what to do with a name that is URL-encoded, such as ``a%20b.jpg`` for the file ``a b.jpg``.

    Returns:
        The end of a sentence; empty if the folder has no file of the decoded name.
    """
    found = unquote(name)
    if found == name or not (folder / found).is_file():
        return ""
    return f"there is {found!r}, so the names are URL-encoded; write urllib.parse.unquote(file_name) as file_name"


def _name_folder(folder: Path, name: str, option: str) -> str:
    return f"{folder / name} is there, so name its folder with --cfg-options {option}={folder.resolve()}/"


def _count(folder: Path, names: Sequence[str]) -> int:
    return sum((folder / name).is_file() for name in names)


@dataclass(frozen=True)
class Holders:
    """The folders that contain images with given names.

    Attributes:
        base: The folder that was searched, with all folders below it.
        places: For each name that was found, the sorted folders that have an image under this name.
        only: The only folder that has all images; None if no folder has them all, or several do.
    """

    base: Path
    places: dict[str, list[Path]]
    only: Path | None

    def advice(self, name: str) -> str:
        """Return advice, as the end of a sentence, on how to correct a name whose image was found in another folder."""
        return folder_into_name(name, self.places[name], self.base)


def folder_into_name(name: str, folders: Sequence[Path], base: Path) -> str:
    """Return the advice to add the folder of each image to its name in the annotation file.

    Args:
        name: Name of an image.
        folders: Folders that have an image of this name, at least one.
        base: Folder that contains them all. The new names are relative to it.

    Returns:
        The end of a sentence.
    """
    within = (folders[0] / name).relative_to(base).as_posix()
    listed = ", ".join(map(str, folders[:_SHOWN])) + (", ..." if len(folders) > _SHOWN else "")
    there = " and ".join(map(str, folders)) if len(folders) == 2 else listed
    return f"{name} lies in {there}, so write the folder into file_name, such as {within!r}"


def find_holders(base: Path, names: Sequence[str]) -> Holders:
    """Find the folders that contain images with given names.

    Args:
        base: Folder to search, with all folders below it.
        names: All names in an annotation file; a name that occurs twice stands for two images.
    """
    by_end: dict[str, set[str]] = defaultdict(set)
    for name in names:
        by_end[name.rpartition("/")[2]].add(name)
    found: dict[str, list[Path]] = defaultdict(list)
    for path in walk_images(str(base), "", OtherFiles()) if base.is_dir() else ():
        for name in by_end.get(path.rpartition("/")[2], ()):
            if path == name or path.endswith(f"/{name}"):
                found[name].append(base / path[: -len(name)])
    places = {name: sorted(folders) for name, folders in found.items()}
    whole = set.intersection(*(set(places.get(name, ())) for name in set(names))) if names else set()
    twice = [name for name, count in Counter(names).items() if count > 1 and len(places.get(name, ())) > 1]
    return Holders(base, places, whole.pop() if len(whole) == 1 and not twice else None)


def twin_of(path: Path) -> Path | None:
    """Return a file whose name differs from the missing file's name only in case; None if there is no such file."""
    try:
        found = [other for other in path.parent.iterdir() if other.name.casefold() == path.name.casefold()]
    except OSError:
        return None
    return found[0] if found else None


def _holders(annotations: Path, name: str) -> Iterator[Path]:
    """Yield folders near an annotation file that have the named image, except folders named like another split."""
    others = [path.stem for path in annotations.parent.glob("*.json") if path != annotations]
    for place in (annotations.parent, annotations.parent.parent):
        below = [Path(entry.path) for entry in os.scandir(place) if entry.is_dir()] if place.is_dir() else []
        for folder in (place, *sorted(below)):
            of_another = folder.name not in annotations.stem and any(folder.name in stem for stem in others)
            if (folder / name).is_file() and not (folder != place and of_another):
                yield folder
