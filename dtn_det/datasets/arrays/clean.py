"""Clean images that are rows of a file: a pair of NumPy arrays, CIFAR's own batches, or Parquet files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.datasets.arrays.found import TEST_BATCHES, pair_of
from dtn_det.datasets.arrays.labels import label_map
from dtn_det.datasets.arrays.rows import (
    LABEL_COLUMNS,
    check_images,
    check_labels,
    one_column,
    open_rows,
    read_header,
    read_numbers,
    read_pickle,
)
from dtn_det.datasets.choosing import choose_paths, selection_name
from dtn_det.datasets.folders.image_files import listed
from dtn_det.datasets.labelled import LabelledImage, LabelledImages
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import InputError

_HASHED = 20


@dataclass(frozen=True)
class _LabelledFile:
    """A file of images and labels, with the names or the number of the classes if the set states them."""

    path: Path
    labels: NDArray[np.int64]
    names: Sequence[str] = ()
    given: int | None = None


def list_rows(kind: str, root: Path, limit: int | None = None, limit_seed: int = 0) -> LabelledImages:
    """List the images in a pair of arrays, in CIFAR's batches or in Parquet files. A row number identifies an image.

    Args:
        kind: ``'array_images'``, ``'batches'`` or ``'parquet'``.
        root: The folder of the files, or a Parquet file.

    Raises:
        InputError: A file is damaged or of another form, or the images and the labels do not fit together.
    """
    read = {"array_images": _pair, "batches": _batches, "parquet": _parquet}[kind]
    files, remarks = read(root)
    labels = np.concatenate([file.labels for file in files])
    first = open_rows(str(files[0].path))
    height, width = first.row(0).shape[:2]
    classes = label_map(labels, height if height == width else None, files[0].path, files[0].names, files[0].given)
    rows: dict[str, tuple[_LabelledFile, int]] = {}
    for file in files:
        if len(file.labels) != len(open_rows(str(file.path))):
            raise InputError(
                f"expected a label for each of the {len(open_rows(str(file.path))):,} images in {file.path}, got "
                f"{len(file.labels):,}: fetch the file again"
            )
        prefix = "" if len(files) == 1 else f"{file.path.stem}/"
        digits = max(5, len(str(len(file.labels) - 1)))
        rows |= {f"{prefix}{row:0{digits}}": (file, row) for row in range(len(file.labels))}
    images = tuple(
        LabelledImage(key, str(file.path), int(file.labels[row]), row)
        for key in choose_paths(list(rows), limit, limit_seed)
        for file, row in (rows[key],)
    )
    return LabelledImages(
        images,
        classes.map,
        selection_name(limit, len(rows), limit_seed),
        len(rows),
        len(np.unique(labels)),
        (*remarks, *classes.remarks),
        tuple(_digest(str(file.path)) for file in files),
    )


_Files = tuple[list[_LabelledFile], tuple[Remark, ...]]


def _pair(root: Path) -> _Files:
    headers = [read_header(path) for path in sorted(root.glob("*.npy"))]
    pair = pair_of(headers)
    if pair is None:
        raise InputError(
            f"expected an array of images and one of labels in {root}, got "
            f"{listed([f'{header.path.name} ({header.text})' for header in headers])}: move the others away"
        )
    images, labels = pair
    check_images(images)
    numbers = read_numbers(labels)
    if len(numbers) != images.shape[0]:
        raise InputError(
            f"expected a label in {labels.path} for each of the {images.shape[0]:,} images in {images.path.name}, got "
            f"{len(numbers):,}: fetch both files of one set"
        )
    return [_LabelledFile(images.path, numbers)], ()


def _batches(root: Path) -> _Files:
    there = sorted(path.name for path in root.iterdir())
    tests = [name for name in there if name in TEST_BATCHES]
    names = tests or [name for name in there if name.startswith("data_batch_") or name == "train"]
    meta = next((read_pickle(root / name) for name in ("batches.meta", "meta") if name in there), {})
    known = _texts(meta.get("label_names", meta.get("fine_label_names", ())))
    given = 10 if "test_batch" in there or names[0].startswith("data_batch_") else 100
    files = []
    for name in names:
        content = read_pickle(root / name)
        labels = content.get("labels", content.get("fine_labels"))
        if not isinstance(labels, list):
            raise InputError(
                f"expected `labels` or `fine_labels` in {root / name}, got {', '.join(content)}: fetch the file again"
            )
        values = np.array(labels, np.int64)
        check_labels(values, root / name)
        files.append(_LabelledFile(root / name, values, known, given))
    others = [name for name in there if name not in names and (name == "train" or name.startswith("data_batch_"))]
    if not others:
        return files, ()
    what = agreeing(len(others), "{batch|batches} of training images beside the test images {was|were} passed over")
    return files, (Remark("split", what, str(root), len(others), others),)


def _parquet(root: Path) -> _Files:
    paths = [root] if root.is_file() else sorted(root.glob("*.parquet"))
    splits = sorted({path.stem.partition("-")[0] for path in paths})
    if len(splits) > 1:
        raise InputError(
            f"expected the Parquet files of one split in {root}, got {listed(splits)}: name the file that is meant, "
            f"such as {paths[-1]}"
        )
    return [_parquet_file(path) for path in paths], ()


def _parquet_file(path: Path) -> _LabelledFile:
    parquet = require("pyarrow.parquet", "eval")
    column = one_column(path, LABEL_COLUMNS)
    found = parquet.read_table(path, columns=[column]).column(0)
    if found.null_count:
        raise InputError(
            f"expected a label in each row of {path}, got none in {found.null_count:,} of {len(found):,} rows of the "
            f"column {column}: name the file of a split with labels"
        )
    values = found.to_numpy()
    if values.dtype.kind not in "iu":
        raise InputError(
            f"expected whole numbers in the column {column} of {path}, got {values.dtype}: name a file whose labels "
            "are the numbers of the classes"
        )
    labels = values.astype(np.int64)
    check_labels(labels, path)
    return _LabelledFile(path, labels, _feature_names(parquet.read_schema(path).metadata, column))


def _feature_names(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...]:
    """Return the names of the classes that Hugging Face's metadata of a Parquet file hold; empty if there are none."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return _texts(features[column]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(value.decode() if isinstance(value, bytes) else str(value) for value in values)


def _digest(path: str) -> str:
    rows = open_rows(path)
    digest = hashlib.sha256()
    for row in np.linspace(0, len(rows) - 1, min(_HASHED, len(rows))).astype(int).tolist():
        digest.update(rows.row(row).tobytes())
    return f"{Path(path).name} {digest.hexdigest()}"
