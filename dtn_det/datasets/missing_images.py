"""Images that an annotation file names and that are not there: why, and what would find them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from dtn_det.datasets.coco.names import base_name, is_foreign
from dtn_det.errors import InputError

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
