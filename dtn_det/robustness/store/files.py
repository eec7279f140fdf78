"""The files of a store: names, Parquet and JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dtn_det._optional import require
from dtn_det.errors import InputError, StoreError

if TYPE_CHECKING:
    import pyarrow

BAD_IMAGES = b"bad_images"
"""Key in the metadata of a unit's records. Its value is JSON: for each image that could not be evaluated, and so has no
rows, the image's number and the reason."""

# Characters that not every file system allows in the name of a folder.
_UNSAFE = re.compile(r"[^A-Za-z0-9._+@=-]+")
_LONGEST_NAME = 80


def bad_images_of(table: pyarrow.Table) -> dict[int, str]:
    """Return the reason why each bad image of a unit has no rows; the keys are the numbers of the images."""
    told = (table.schema.metadata or {}).get(BAD_IMAGES)
    return {} if told is None else {int(number): str(text) for number, text in json.loads(told).items()}


def with_bad_images(table: pyarrow.Table, bad: Mapping[int, str]) -> pyarrow.Table:
    """Return records with the reason why each bad image has no rows, by the number of the image."""
    return table.replace_schema_metadata({BAD_IMAGES: json.dumps(dict(bad)).encode()} if bad else None)


def check_rows(table: pyarrow.Table, images: range, cells: Sequence[int]) -> None:
    """Check that records have one row for each image and cell, but none for images that are named as bad.

    Args:
        images: Numbers of the images.
        cells: Numbers of the cells.

    Raises:
        InputError: Rows are missing, repeated, of other images or of other cells.
    """
    if table["image"].null_count or table["cell"].null_count:
        raise InputError("rows without an image or a cell")
    image, cell = (table[name].to_numpy().astype(np.int64) for name in ("image", "cell"))
    if not ((image >= images.start) & (image < images.stop) & np.isin(cell, cells)).all():
        raise InputError("rows of other images or cells")
    count = max(cells) + 1
    rows = np.bincount((image - images.start) * count + cell, minlength=len(images) * count)
    wanted = np.zeros((len(images), count), np.int64)
    wanted[:, list(cells)] = 1
    wanted[[bad - images.start for bad in bad_images_of(table)]] = 0
    if not np.array_equal(rows, wanted.reshape(-1)):
        raise InputError(f"{int((rows != wanted.reshape(-1)).sum())} rows that are missing or come twice")


def check_name(name: str) -> None:
    """Check that a name is allowed for a model.

    Raises:
        StoreError: The name is empty or cannot be printed on one line.
    """
    if not name.strip() or not name.isprintable():
        raise StoreError(f"expected a name that can be printed on one line, got {name!r}: give another")


def folder_name(name: str) -> str:
    """Return the name of a model's folder: the model's name, or one derived from it that every file system allows."""
    safe = _UNSAFE.sub("_", name)
    if safe == name and len(name) <= _LONGEST_NAME and not name.startswith("."):
        return name
    # Add a hash, because different names may have the same safe form.
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe.lstrip('.')[:_LONGEST_NAME]}-{digest}"


def read_parquet(path: Path, columns: list[str] | None = None) -> pyarrow.Table:
    """Read a Parquet file, by default all columns. If the file is damaged, pyarrow raises several types of errors."""
    parquet = require("pyarrow.parquet", "eval")
    table: pyarrow.Table = parquet.read_table(path, columns=columns, page_checksum_verification=True)
    return table


def parquet_bytes(table: pyarrow.Table) -> bytes:
    """Return the content of a Parquet file, with checksums, that holds a table."""
    pyarrow = require("pyarrow", "eval")
    parquet = require("pyarrow.parquet", "eval")
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        StoreError: The file is damaged, or holds something else than an object.
    """
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise StoreError(
            f"expected JSON in {path}, got a damaged file ({error}): put back a copy of it, or evaluate again into "
            "another folder"
        ) from error
    if not isinstance(values, dict):
        raise StoreError(
            f"expected a JSON object in {path}, got {type(values).__name__}: put back a copy of it, or evaluate again "
            "into another folder"
        )
    return values
