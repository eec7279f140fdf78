"""Images that are rows of a file, read when they are needed: NumPy arrays, CIFAR's own batches, Parquet files.

A NumPy array is never loaded: rows are read from their place in the file, so that the memory of a process does not
depend on the size of the file. A batch of CIFAR is a pickle of 30 MB, which a process loads once. For a Parquet file, a
process keeps one row group in memory.
"""

from __future__ import annotations

import io
import math
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.corruptions.image import ByteImage, to_rgb
from dtn_det.errors import BadImageError, InputError

_CIFAR_SIDE = 32
_PLANES = 3 * _CIFAR_SIDE**2


class Rows(Protocol):
    """A file whose rows are images."""

    def __len__(self) -> int:
        """Number of rows."""

    def row(self, number: int) -> ByteImage:
        """Return an image, ``(H, W, 3)`` uint8 RGB.

        Raises:
            BadImageError: The row cannot be read.
        """


@dataclass(frozen=True)
class NpyHeader:
    """The contents of the header of a ``.npy`` file.

    Attributes:
        offset: Position of the first number in the file, in bytes.
        by_columns: True for Fortran order, in which the pixels of one image are not adjacent in the file.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    by_columns: bool

    @property
    def text(self) -> str:
        """Dtype and shape for messages, such as ``uint8 of shape 50000 x 32 x 32 x 3``."""
        return f"{self.dtype} of shape {' x '.join(map(str, self.shape)) or 'one number'}"

    @property
    def is_images(self) -> bool:
        """Whether the array has the shape and dtype of 8-bit RGB images, ``(N, H, W, 3)``."""
        return len(self.shape) == 4 and self.shape[3] == 3 and self.dtype == np.uint8

    @property
    def is_labels(self) -> bool:
        """Whether the array is a list of whole numbers, ``(N,)`` or ``(N, 1)``."""
        flat = len(self.shape) == 1 or (len(self.shape) == 2 and self.shape[1] == 1)
        return flat and self.dtype.kind in "iu"


def read_header(path: Path) -> NpyHeader:
    """Read the header of a ``.npy`` file, and check that the file is complete.

    Raises:
        InputError: The file is not one of NumPy's, holds Python objects, or was cut off.
    """
    try:
        with path.open("rb") as file:
            forms: Any = np.lib.format
            read = forms.read_array_header_1_0 if forms.read_magic(file)[0] == 1 else forms.read_array_header_2_0
            shape, by_columns, dtype = read(file)
            offset = file.tell()
    except ValueError as error:
        raise InputError(f"expected an array of NumPy in {path}, got {error}: fetch the file again") from error
    if dtype.hasobject:
        raise InputError(f"expected an array of numbers in {path}, got Python objects: save it as uint8 again")
    needed = offset + math.prod(shape) * dtype.itemsize
    if (there := path.stat().st_size) < needed:
        raise InputError(
            f"expected {needed:,} bytes in {path} for its {dtype} of shape {shape}, got {there:,}: fetch the file again"
        )
    return NpyHeader(path, shape, dtype, offset, bool(by_columns) and len(shape) > 1)


def check_images(header: NpyHeader) -> None:
    """Check that an array holds 8-bit images, ``(N, H, W, 3)``.

    Raises:
        InputError: The array has another dtype, shape or order, or the images are not square.
    """
    shape, path = header.shape, header.path
    wanted = f"expected 8-bit RGB images in {path}, rows x height x width x 3 of uint8, got {header.text}"
    if len(shape) == 4 and shape[1] == 3 and shape[3] != 3:
        raise InputError(f"{wanted}, with the channels first: save array.transpose(0, 2, 3, 1)")
    if len(shape) != 4 or shape[3] != 3:
        raise InputError(f"{wanted}: save it in that shape, or move the file away")
    if header.dtype != np.uint8:
        raise InputError(f"{wanted}: save values from 0 to 255 as uint8")
    if header.by_columns:
        raise InputError(f"{wanted} in Fortran's order: save numpy.ascontiguousarray(array)")
    if shape[1] != shape[2] or not shape[0] or not shape[1]:
        raise InputError(f"{wanted}: save at least one image, each of them a square")


def read_numbers(header: NpyHeader) -> NDArray[np.int64]:
    """Read an array of labels.

    Raises:
        InputError: The array is not a list of whole numbers from 0 on.
    """
    if not header.is_labels:
        raise InputError(
            f"expected labels in {header.path}, one whole number for each image, got {header.text}: save the numbers "
            "of the classes as integers"
        )
    values: NDArray[np.int64] = np.load(header.path, allow_pickle=False).reshape(-1).astype(np.int64)
    check_labels(values, header.path)
    return values


def check_labels(values: NDArray[np.int64], path: Path) -> None:
    """Check that there are labels, and that none is negative.

    Raises:
        InputError: There is no label, or one is negative.
    """
    if not len(values) or values.min() < 0:
        got = f"the label {values.min()} of row {int(values.argmin())}" if len(values) else "none"
        advice = "fetch the file again"
        if len(values) and values.max() < 0:
            got = f"no label but {values.min()}, as in splits whose labels are not published"
            advice = "name the file of a split with labels"
        raise InputError(f"expected labels from 0 on in {path}, got {got}: {advice}")


class NpyRows:
    """The rows of a ``.npy`` file.

    Args:
        header: The header of an array that :func:`check_images` accepts.
    """

    def __init__(self, header: NpyHeader) -> None:
        self.header = header
        self._shape = header.shape[1:]
        self._size = math.prod(self._shape)

    def __len__(self) -> int:
        return self.header.shape[0]

    @cached_property
    def _file(self) -> io.FileIO:
        return io.FileIO(self.header.path)

    def row(self, number: int) -> ByteImage:
        """See :class:`Rows`."""
        return self.block(number, 1)[0]

    def block(self, first: int, count: int) -> NDArray[np.uint8]:
        """Return the images of ``count`` rows from row ``first`` on, ``(count, H, W, 3)`` uint8 RGB.

        Raises:
            BadImageError: The file ends before the last of these rows.
        """
        content = os.pread(self._file.fileno(), count * self._size, self.header.offset + first * self._size)
        if len(content) != count * self._size:
            raise BadImageError(f"{self.header.path}: row {first + len(content) // self._size} is cut off")
        return np.frombuffer(content, np.uint8).reshape(count, *self._shape)


class _BatchUnpickler(pickle.Unpickler):
    """Reads a batch of CIFAR. Only containers, numbers, bytes and arrays are allowed."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a constructor of NumPy arrays by its name; refuse all other names."""
        allowed = {("numpy", "dtype"), ("numpy", "ndarray"), ("numpy._core.multiarray", "_reconstruct")}
        allowed |= {("numpy._core.multiarray", "scalar"), ("_codecs", "encode")}
        # NumPy 2 renamed numpy.core to numpy._core.
        place = (module.replace("numpy.core", "numpy._core"), name)
        if place not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name}, which is no plain data")
        return super().find_class(module, name)


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary, the format of CIFAR's own files, without running code from it.

    Raises:
        InputError: The file is not a pickled dictionary of plain data.
    """
    try:
        with path.open("rb") as file:
            content = _BatchUnpickler(file, encoding="bytes").load()
        return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in content.items()}
    except OSError:
        raise
    # A damaged pickle can raise any error.
    except Exception as error:
        raise InputError(
            f"expected a batch of CIFAR in {path}, got {type(error).__name__}: {error}: fetch the file again"
        ) from error


class BatchRows:
    """The rows of a batch of CIFAR: ``(N, 3072)`` uint8, the 1,024 red values of an image first."""

    def __init__(self, path: Path) -> None:
        data = read_pickle(path).get("data")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PLANES:
            got = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
            raise InputError(f"expected rows of {_PLANES:,} bytes in `data` of {path}, got {got}: fetch it again")
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def row(self, number: int) -> ByteImage:
        """See :class:`Rows`."""
        planes = self._data[number].reshape(3, _CIFAR_SIDE, _CIFAR_SIDE)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))


class ParquetRows:
    """The rows of a Parquet file with encoded images.

    Args:
        column: Name of the column of images, whose values are bytes or have a field ``bytes``.
    """

    def __init__(self, path: Path, column: str) -> None:
        self.path, self.column = path, column
        self._file = require("pyarrow.parquet", "eval").ParquetFile(path)
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._group, self._values = -1, None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, number: int) -> ByteImage:
        """See :class:`Rows`."""
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        if group != self._group:
            self._values = self._file.read_row_group(group, columns=[self.column]).column(0)
            self._group = group
        return self._decoded(self._values, number - int(self._starts[group]), number)

    def _decoded(self, values: Any, place: int, number: int) -> ByteImage:
        from PIL import Image

        value = values[place].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            place_only = value.get("path") if isinstance(value, dict) else None
            has = f"the path of an image, {place_only}, but not its bytes" if place_only else "no bytes of an image"
            raise BadImageError(
                f"{self.path}: row {number} has {has}: write the file again with the content of the image files in "
                f"the column {self.column!r} (in its field 'bytes')"
            )
        try:
            with Image.open(io.BytesIO(content)) as picture:
                return np.array(to_rgb(picture))
        # Pillow raises many classes of errors for broken files.
        except Exception as error:
            raise BadImageError(f"{self.path}: row {number} cannot be read ({error})") from error


IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "labels", "fine_label")
"""Names of the columns of images and of labels in Parquet files, as Hugging Face distributes data sets."""


@cache
def open_rows(path: str) -> Rows:
    """Open a file of images. Each process opens a file only once.

    Raises:
        InputError: The file is damaged, or holds no images of 8 bits.
    """
    file = Path(path)
    if file.suffix == ".npy":
        header = read_header(file)
        check_images(header)
        return NpyRows(header)
    if file.suffix == ".parquet":
        return ParquetRows(file, one_column(file, IMAGE_COLUMNS))
    return BatchRows(file)


def one_column(path: Path, names: Sequence[str]) -> str:
    """Return the only column of a Parquet file with one of these names.

    Raises:
        InputError: The file is damaged, or has none or several of these columns.
    """
    try:
        there = require("pyarrow.parquet", "eval").read_schema(path).names
    # pyarrow raises its own classes of errors for damaged files.
    except Exception as error:
        raise InputError(f"expected a Parquet file in {path}, got {error}: fetch the file again") from error
    found = [name for name in names if name in there]
    if len(found) != 1:
        raise InputError(
            f"expected one column out of {', '.join(names)} in {path}, got {', '.join(found or there)}: name a file "
            "with encoded images and their labels"
        )
    return found[0]
