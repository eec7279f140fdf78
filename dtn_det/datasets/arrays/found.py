"""Recognise files whose rows are images: NumPy arrays, the original CIFAR batches, Parquet files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dtn_det.datasets.arrays.rows import NpyHeader, read_header
from dtn_det.datasets.folders.corruption_folders import known_corruption, normalized
from dtn_det.datasets.folders.image_files import listed
from dtn_det.errors import InputError

TEST_BATCHES = ("test_batch", "test")
"""Names of the batches of test images of CIFAR-10 and CIFAR-100."""

RowKind = Literal["arrays", "array_corruptions", "array_images", "batches", "parquet"]
"""The kinds of files whose rows are images; ``'arrays'`` are arrays that are none of the others."""

_BATCH = re.compile(r"data_batch_\d|test_batch")


@dataclass(frozen=True)
class RowFiles:
    """The recognised kind of a folder's files or of a single file.

    Attributes:
        sizes: Width and height of the images, if the header of the file contains them; else empty.
    """

    kind: RowKind
    title: str
    dataset: str = ""
    sizes: frozenset[tuple[int, int]] = frozenset()


def find_rows(root: Path, names: Sequence[str]) -> RowFiles | None:
    """Recognise the files of a folder by their names, and arrays also by their headers; None without such files."""
    arrays = [name for name in names if name.endswith(".npy")]
    if arrays:
        return _arrays(root, arrays)
    if any(_BATCH.fullmatch(name) for name in names):
        return RowFiles("batches", "CIFAR-10's own batches", "CIFAR-10", frozenset({(32, 32)}))
    if "meta" in names and {"test", "train"} & {*names}:
        return RowFiles("batches", "CIFAR-100's own batches", "CIFAR-100", frozenset({(32, 32)}))
    parquet = [name for name in names if name.endswith(".parquet")]
    if parquet:
        return RowFiles("parquet", f"images and labels in Parquet files ({listed(parquet)})")
    return None


def pair_of(headers: Sequence[NpyHeader]) -> tuple[NpyHeader, NpyHeader] | None:
    """Return the headers of images and labels, if the arrays are exactly one of each; else None."""
    images = [header for header in headers if len(header.shape) == 4]
    labels = [header for header in headers if header.is_labels]
    return (images[0], labels[0]) if len(images) == len(labels) == 1 and len(headers) == 2 else None


def _arrays(root: Path, names: Sequence[str]) -> RowFiles:
    many = f"{len(names)} array{'' if len(names) == 1 else 's'} such as {names[0]}"
    corrupted = [name for name in names if known_corruption(normalized(name.removesuffix(".npy")))]
    if corrupted:
        return RowFiles("array_corruptions", f"images corrupted already, as NumPy arrays ({many})")
    try:
        pair = pair_of([read_header(root / name) for name in names])
    # The command that reads the arrays reports the error.
    except (InputError, OSError):
        pair = None
    if pair is None:
        return RowFiles("arrays", f"NumPy arrays ({many})")
    images, labels = pair
    title = f"{images.shape[0]:,} images in {images.path.name} with the labels in {labels.path.name}"
    sizes = frozenset({(images.shape[2], images.shape[1])}) if images.is_images else frozenset()
    return RowFiles("array_images", title, sizes=sizes)
