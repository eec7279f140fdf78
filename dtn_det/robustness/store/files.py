"""The files of a store: names, Parquet and JSON."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.errors import StoreError

if TYPE_CHECKING:
    import pyarrow

BAD_IMAGES = b"bad_images"
"""Key in the metadata of a unit's records: JSON, number of each image that has no rows as it is bad, to why."""

# What a model's folder may be called on any file system.
_UNSAFE = re.compile(r"[^A-Za-z0-9._+@=-]+")
_LONGEST_NAME = 80


def bad_images_of(table: pyarrow.Table) -> dict[int, str]:
    """Return the images that a unit has no rows of, by number, and what is wrong with each."""
    told = (table.schema.metadata or {}).get(BAD_IMAGES)
    return {} if told is None else {int(number): str(text) for number, text in json.loads(told).items()}


def check_name(name: str) -> None:
    """Check that a name can be given to a model.

    Raises:
        StoreError: The name is empty or cannot be printed on one line.
    """
    if not name.strip() or not name.isprintable():
        raise StoreError(f"expected a name that can be printed on one line, got {name!r}: give another")


def folder_name(name: str) -> str:
    """Return the name of a model's folder: its own name, or one made of it that every file system takes."""
    safe = _UNSAFE.sub("_", name)
    if safe == name and len(name) <= _LONGEST_NAME and not name.startswith("."):
        return name
    # Different names may have the same safe form.
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe.lstrip('.')[:_LONGEST_NAME]}-{digest}"


def read_parquet(path: Path, columns: list[str] | None = None) -> pyarrow.Table:
    """Some columns of a Parquet file, or all; pyarrow raises its own kinds of errors where it is damaged."""
    parquet = require("pyarrow.parquet", "eval")
    table: pyarrow.Table = parquet.read_table(path, columns=columns, page_checksum_verification=True)
    return table


def parquet_bytes(table: pyarrow.Table) -> bytes:
    """A table as a Parquet file with checksums."""
    pyarrow = require("pyarrow", "eval")
    parquet = require("pyarrow.parquet", "eval")
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        StoreError: It is damaged.
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
