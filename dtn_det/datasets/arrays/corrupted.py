"""CIFAR-10-C, CIFAR-100-C and sets like them: an array of images for each corruption, beside one array of labels.

``NAME.npy`` holds the images of one corruption, severity by severity from 1 to 5, each time in the order of the clean
images: ``(5 * N, H, W, 3)`` uint8. ``labels.npy`` holds the labels of the N images five times (Hendrycks and
Dietterich, zenodo.org/records/2535967 and 3555552).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtn_det.corruptions.catalog import (
    CIFAR_C_BAR_CATALOG,
    IMAGENET_C_CATALOG,
    SEVERITIES,
    Catalog,
    select_corruptions,
)
from dtn_det.corruptions.cells import Cell
from dtn_det.datasets.arrays.labels import is_cifar, label_map
from dtn_det.datasets.arrays.rows import NpyHeader, check_images, open_rows, read_header, read_numbers
from dtn_det.datasets.choosing import choose_paths, selection_name
from dtn_det.datasets.folders.corruption_folders import known_corruption, normalized, one_catalog
from dtn_det.datasets.folders.image_files import listed
from dtn_det.datasets.labelled import LabelledImage, LabelledImages
from dtn_det.datasets.remarks import Remark, agreeing, counted
from dtn_det.errors import InputError

LABELS = "labels.npy"
_HASHED = 20


@dataclass(frozen=True)
class ArraySet:
    """A folder of arrays of corrupted images.

    Attributes:
        catalog: All corruptions of the arrays' benchmark.
        headers: The header of the array of each chosen corruption.
        corruptions: The chosen corruptions, in the order of the benchmark.
        labels: The label of each clean image, (N,).
        dataset: Name of the set, such as ``CIFAR-10-C``; empty if unknown.
        title: Description of the folder for messages.
    """

    root: Path
    catalog: Catalog
    headers: Mapping[str, NpyHeader]
    labels: NDArray[np.int64]
    dataset: str
    title: str
    remarks: tuple[Remark, ...] = ()

    @property
    def corruptions(self) -> tuple[str, ...]:
        """The corruptions, in the order of the benchmark."""
        return tuple(self.headers)

    @property
    def num_images(self) -> int:
        """Number of clean images."""
        return len(self.labels)

    @property
    def side(self) -> int:
        """Side of the square images in pixels."""
        return next(iter(self.headers.values())).shape[1]

    def place(self, cell: Cell, row: int) -> tuple[str, int]:
        """Return the file and the row of a corrupted image, given its cell and the row of the clean image."""
        return str(self.headers[cell.corruption].path), (cell.severity - 1) * self.num_images + row

    def list_images(self, cells: Sequence[Cell], limit: int | None, limit_seed: int) -> LabelledImages:
        """List the images; row numbers identify them.

        Args:
            cells: The corrupted cells that will be read. Hashes of some of their pixels help to identify the set.
        """
        labels = label_map(self.labels, self.side, self.root / LABELS)
        keys = row_keys(self.num_images)
        first = str(self.headers[self.corruptions[0]].path)
        rows = {key: row for row, key in enumerate(keys)}
        images = tuple(
            LabelledImage(key, first, int(self.labels[rows[key]]), rows[key])
            for key in choose_paths(keys, limit, limit_seed)
        )
        evidence = tuple(f"{cell} {self._digest(cell)}" for cell in cells)
        selection = selection_name(limit, self.num_images, limit_seed)
        remarks = (*self.remarks, *labels.remarks)
        present = len(np.unique(self.labels))
        return LabelledImages(images, labels.map, selection, self.num_images, present, remarks, evidence)

    def _digest(self, cell: Cell) -> str:
        digest = hashlib.sha256()
        for row in np.linspace(0, self.num_images - 1, min(_HASHED, self.num_images)).astype(int).tolist():
            path, number = self.place(cell, row)
            digest.update(open_rows(path).row(number).tobytes())
        return digest.hexdigest()


def row_keys(count: int) -> list[str]:
    """Return one key for each row: its number, padded with zeros so that text order equals row order."""
    digits = max(5, len(str(count - 1)))
    return [f"{row:0{digits}}" for row in range(count)]


def corrupted_arrays(names: Sequence[str]) -> dict[str, str]:
    """Return a dict from the name of each known corruption to the name of its array file."""
    stems = {name.removesuffix(".npy"): name for name in names if name.endswith(".npy")}
    return {normalized(stem): name for stem, name in stems.items() if known_corruption(normalized(stem))}


def open_arrays(root: Path, words: Sequence[str] | None = None) -> ArraySet:
    """Read the headers and the labels of a folder of arrays, and check that they fit together.

    Args:
        words: Names of corruptions or of groups of corruptions, as chosen by the user. None chooses all corruptions of
            the benchmark that have an array.

    Raises:
        InputError: There are corruptions of two benchmarks, the array of a chosen corruption is missing, or arrays
            differ in dtype, order, shape or number of rows. The message names the file.
    """
    names = sorted(path.name for path in root.iterdir() if path.suffix == ".npy")
    there = corrupted_arrays(names)
    catalog = one_catalog(list(there), words, root, small=True)
    chosen = _chosen(there, catalog, words, root)
    labels_path = root / LABELS
    if not labels_path.is_file():
        raise InputError(
            f"expected {LABELS} in {root}, with the label of each row of {there[chosen[0]]}, got none: fetch it from "
            "the set's archive"
        )
    headers = {name: read_header(root / there[name]) for name in chosen}
    for header in headers.values():
        check_images(header)
    labels = _check_labels(root, headers)
    side = next(iter(headers.values())).shape[1]
    other = next((header for header in headers.values() if header.shape[1] != side), None)
    if other is not None:
        raise InputError(
            f"expected images of {side} x {side} in {other.path} as in {there[chosen[0]]}, got {other.text}: move the "
            "arrays of another set away"
        )
    dataset = _dataset(labels, side, catalog, labels_path)
    images = f"{counted(len(labels), 'image')} of {side} x {side} under {counted(len(chosen), 'corruption')}"
    title = f"{dataset or 'images corrupted already'} as NumPy arrays ({images})"
    remarks = _remarks(root, names, there, chosen, catalog, words)
    return ArraySet(root, catalog, headers, labels, dataset, title, remarks)


def _chosen(there: Mapping[str, str], catalog: Catalog, words: Sequence[str] | None, root: Path) -> tuple[str, ...]:
    if words is None:
        present = tuple(name for name in catalog.benchmark if name in there)
        return present or tuple(name for name in catalog.names if name in there)
    wanted = select_corruptions(words, catalog)
    missing = [name for name in wanted if name not in there]
    if missing:
        raise InputError(
            f"expected {missing[0]}.npy in {root}, got {listed([there[name] for name in there])}: fetch "
            f"{listed(missing)}, or choose among those that are there with --corruptions"
        )
    return wanted


def _check_labels(root: Path, headers: Mapping[str, NpyHeader]) -> NDArray[np.int64]:
    """Check that each array has a row for each label, and return the labels of one severity."""
    path = root / LABELS
    values = read_numbers(read_header(path))
    count, rest = divmod(len(values), len(SEVERITIES))
    rows = {header.shape[0] for header in headers.values()}
    if rows == {len(SEVERITIES) * len(values)}:
        raise InputError(
            f"expected the labels of all rows in {path}, those of the images five times, got {len(values):,} for "
            f"{rows.pop():,} rows: save numpy.tile(labels, 5)"
        )
    for name, header in headers.items():
        if header.shape[0] != len(values):
            whole = f", which is {header.shape[0] / count:g} severities of {count:,}" if count and not rest else ""
            raise InputError(
                f"expected {len(values):,} rows in {header.path}, one for each label in {LABELS}, got "
                f"{header.shape[0]:,}{whole}: fetch {name}.npy and {LABELS} of one set"
            )
    if rest:
        raise InputError(
            f"expected the labels of five severities in {path}, got {len(values):,} labels, which five does not "
            "divide: fetch the file again"
        )
    blocks = values.reshape(len(SEVERITIES), count)
    wrong = np.argwhere(blocks != blocks[0])
    if len(wrong):
        severity, row = wrong[0].tolist()
        raise InputError(
            f"expected the labels of the images five times in {path}, got {blocks[severity, row]} for row {row} of "
            f"severity {severity + 1} and {blocks[0, row]} at severity 1: fetch the {LABELS} of this set"
        )
    return blocks[0].copy()


def _dataset(labels: NDArray[np.int64], side: int, catalog: Catalog, path: Path) -> str:
    number = label_map(labels, side, path).map.num_classes
    if not is_cifar(labels, side, number) or catalog not in (IMAGENET_C_CATALOG, CIFAR_C_BAR_CATALOG):
        return ""
    return f"CIFAR-{number}-C{'' if catalog is IMAGENET_C_CATALOG else '-bar'}"


def _remarks(
    root: Path,
    names: Sequence[str],
    there: Mapping[str, str],
    chosen: Sequence[str],
    catalog: Catalog,
    words: Sequence[str] | None,
) -> tuple[Remark, ...]:
    found = []
    missing = [name for name in catalog.benchmark if name not in there]
    if missing and words is None:
        what = agreeing(len(missing), f"of {catalog.title}'s corruptions {{has|have}} no array, so means are partial")
        found.append(Remark("missing_corruptions", what, str(root), len(missing), missing))
    beside = [there[name] for name in there if name not in chosen] if words is None else []
    if beside:
        what = agreeing(len(beside), "{other array was|other arrays were} passed over")
        found.append(Remark("other_arrays", f"{what}: choose with --corruptions", str(root), len(beside), beside))
    unknown = [name for name in names if name != LABELS and name not in there.values()]
    if unknown:
        what = agreeing(len(unknown), "{array is|arrays are} of no known corruption and {was|were} passed over")
        found.append(Remark("unknown_arrays", what, str(root), len(unknown), unknown))
    return tuple(found)
