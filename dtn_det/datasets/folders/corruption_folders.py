"""Find folders of corrupted images: the corruption and severity of each, and corruptions that are not evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dtn_det.corruptions.catalog import (
    ALL,
    CATALOGS,
    CIFAR_C_BAR_CATALOG,
    IMAGENET_3DCC_CATALOG,
    IMAGENET_C_BAR_CATALOG,
    Catalog,
    of_benchmarks,
)
from dtn_det.corruptions.stream import WNID
from dtn_det.datasets.folders.image_files import Contents, peek, subfolders
from dtn_det.datasets.folders.label_maps import NUMBER
from dtn_det.datasets.folders.magnitudes import is_severity, severities_of
from dtn_det.errors import InputError

_C_BAR = frozenset((*IMAGENET_C_BAR_CATALOG.names, *CIFAR_C_BAR_CATALOG.names))
"""Corruptions of ImageNet-C-bar and CIFAR-10-C-bar."""

_3DCC = frozenset(IMAGENET_3DCC_CATALOG.names)
"""Corruptions of ImageNet-3DCC."""

OTHER_BENCHMARKS = {"C-bar": _C_BAR, "3DCC": _3DCC}
"""The corruptions of other benchmarks, by the names of the benchmarks."""


@dataclass(frozen=True)
class CorruptionFolders:
    """The folders of corrupted images in a folder.

    Attributes:
        cells: The folder of each corruption and severity that dtn-det knows.
        unknown: Names of folders that look like unknown corruptions, because they contain severities or magnitudes.
            Also paths such as ``fog/6``, if the folder of a known corruption contains only unknown severities.
        beside: Paths of unknown severities, such as ``fog/0`` and ``fog/6``, if the corruption's folder also contains
            known severities.
    """

    cells: dict[tuple[str, int], Path]
    unknown: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The known corruptions that have folders, without repetition."""
        return tuple(dict.fromkeys(name for name, _ in self.cells))


def find_corruptions(root: Path, contents: Contents) -> CorruptionFolders:
    """Find folders such as ``fog/1``, also within group folders such as ``weather``.

    Names of corruptions are recognised in upper or lower case, and with dashes or blanks in place of underscores.
    Severities are recognised as ``1``, as ``severity_1`` or as the magnitudes of C-bar, such as ``sparkles/1.00``.
    Folders of unknown corruptions, such as ``mist/1``, are recognised by their content: they contain only folders with
    numbers as names, and these contain the class folders.

    Raises:
        InputError: Two folders are for the same corruption and severity.
    """
    cells: dict[tuple[str, int], Path] = {}
    unknown: set[str] = set()
    beside: set[str] = set()
    for name, folder in _candidates(root, contents):
        if known_corruption(name):
            inside = subfolders(folder)
            severities = severities_of(name, inside)
            others = [str((folder / inner).relative_to(root)) for inner in inside if inner not in severities]
            if severities:
                beside.update(others)
            elif _holds_magnitudes(folder, name):
                unknown.update(others)
            for inner, severity in severities.items():
                cell = (name, severity)
                if cell in cells:
                    raise InputError(
                        f"expected one folder for {name} at severity {severity} in {root}, got {cells[cell]} and "
                        f"{folder / inner}: move one away"
                    )
                cells[cell] = folder / inner
        elif _holds_magnitudes(folder, name):
            unknown.add(folder.name)
    return CorruptionFolders(cells, tuple(sorted(unknown)), tuple(sorted(beside)))


def benchmark_of(names: Sequence[str]) -> str:
    """Return the name of another benchmark that has one of these corruptions; empty if there is no such benchmark."""
    # Names may be paths such as fog/6, so each part of a path is looked up.
    found = {normalized(part) for name in names for part in name.split("/")}
    return next((benchmark for benchmark, known in OTHER_BENCHMARKS.items() if found & known), "")


def is_corruption(name: str) -> bool:
    """Return whether a folder is named like a corruption of any benchmark."""
    name = normalized(name)
    return name in ALL or any(name in known for known in OTHER_BENCHMARKS.values())


def normalized(name: str) -> str:
    """Return the name of a corruption in the package's spelling: lower case with underscores."""
    return re.sub(r"[\- ]+", "_", name.strip()).lower()


def known_corruption(name: str) -> bool:
    """Return whether a benchmark has a corruption of this name."""
    return any(name in catalog.names for catalog in CATALOGS)


def one_catalog(names: Sequence[str], words: Sequence[str] | None, root: Path, *, small: bool = False) -> Catalog:
    """Return the catalogue of the benchmark whose corruptions a set has.

    Args:
        names: The known corruptions in the folder, at least one.
        words: The corruptions and groups that the user chose; None for no choice.
        root: The folder, for messages.
        small: Whether the images are small. If so, CIFAR-10-C-bar is preferred for names that both C-bar benchmarks
            have.

    Raises:
        InputError: The set has corruptions of several benchmarks, and the user chose none of the benchmarks.
    """
    catalogs = sorted(CATALOGS, key=lambda one: small and one is not CIFAR_C_BAR_CATALOG)
    for catalog in catalogs:
        if all(name in catalog.names for name in names):
            return catalog
    if words is not None:
        for catalog in catalogs:
            if all(word in catalog.names for word in words):
                return catalog
    raise InputError(
        f"expected corruptions of one benchmark in {root}, got {of_benchmarks(names)}: choose those of one with "
        "--corruptions, or keep each set in a folder of its own"
    )


def holds_classes(folder: Path) -> bool:
    """Return whether a folder contains folders but no images."""
    contents = peek(folder)
    return bool(contents.folders) and not contents.images


def _candidates(root: Path, contents: Contents) -> Iterator[tuple[str, Path]]:
    for folder in contents.folders:
        if WNID.fullmatch(folder) or NUMBER.fullmatch(folder):
            continue
        path, name = root / folder, normalized(folder)
        yield name, path
        if known_corruption(name):
            continue
        inner = peek(path)
        if not inner.images:
            yield from ((normalized(one), path / one) for one in inner.folders if not is_severity(one))


def _holds_magnitudes(folder: Path, name: str) -> bool:
    contents = peek(folder)
    if contents.images or not contents.folders or not all(is_severity(inner) for inner in contents.folders):
        return False
    return is_corruption(name) or all(holds_classes(folder / inner) for inner in contents.folders)
