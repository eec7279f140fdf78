"""Read pickles of plain data: dicts, lists, numbers, text and numpy's numbers. Nothing in a file is ever executed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from dtn_det.errors import InputError, UnsafePickleError

_LARGEST = 64 * 1024 * 1024
_KINDS = "biuf"


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle.

    Args:
        path: Of at most 64 MB.

    Returns:
        Plain containers and Python's numbers; numpy's arrays become lists.

    Raises:
        UnsafePickleError: It would run code, or create other objects.
        ValueError: It is no pickle, was cut off, or is too large.
    """
    if path.stat().st_size > _LARGEST:
        raise InputError(f"expected results of at most {_LARGEST >> 20} MB in {path}, got more: name another file")
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"expected plain results in {path}, got {error}: nothing of it was run") from error
    except Exception as error:  # a damaged pickle fails in every way there is
        raise InputError(
            f"expected a pickle of results in {path}, got {type(error).__name__}: {error}: name another file"
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    """Gives a file no function but stand-ins that build plain data, made anew for each file."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name; all other names are refused."""
        # numpy 2 moved its core: files name the place that their numpy had.
        place = (module.replace("numpy.core", "numpy._core"), name)
        stand_ins: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): lambda *items: dict(*items),
            ("numpy", "dtype"): lambda code, *_: _Kind(code),
            ("numpy", "ndarray"): "ndarray",
            ("numpy._core.multiarray", "scalar"): lambda kind, content: kind.numbers(content)[0],
            ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Values(),
            # Of protocol 5: bytes, kind, shape, order.
            ("numpy._core.numeric", "_frombuffer"): lambda content, kind, *_: _Values(kind.numbers(content)),
            ("_codecs", "encode"): lambda text, encoding="latin1": text.encode("latin1"),
        }
        if place not in stand_ins:
            raise UnsafePickleError(f"{module}.{name}, which is no plain data")
        return stand_ins[place]


class _Kind:
    """Stands in for a numpy dtype of numbers."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any) -> None:
        found = np.dtype(code) if isinstance(code, str) and len(code) <= 4 else None
        if found is None or found.kind not in _KINDS:
            raise UnsafePickleError(f"an array of {code!r}, which are no numbers")
        self.code, self.order = found.str[1:], found.byteorder

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def numbers(self, content: Any) -> list[Any]:
        """The numbers of raw bytes."""
        raw = content.encode("latin1") if isinstance(content, str) else content
        values: list[Any] = np.frombuffer(raw, np.dtype(self.order + self.code)).tolist()
        return values


class _Values(list[Any]):
    """Stands in for a numpy array; its numbers in one row."""

    def __setstate__(self, state: Any) -> None:
        _, _, kind, _, content = state
        self[:] = kind.numbers(content)
