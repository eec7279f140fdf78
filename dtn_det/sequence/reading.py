"""Read ListOps files, those of this project and those of the Long-Range Arena."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dtn_det.errors import InputError
from dtn_det.sequence.trees import END, OPERATORS

VOCABULARY: Final = ("", *OPERATORS, END, *map(str, range(10)))
"""The tokens in the order of their numbers; number 0 is padding.

As in the Arena's input pipeline, parentheses are left out, because the brackets say the same. The Arena itself numbers
the 15 tokens in another order in each run."""
NUM_CLASSES: Final = 10
_NUMBERS = {token: number for number, token in enumerate(VOCABULARY) if token}
_COLUMNS = ["Source", "Target"]


def read_listops(path: Path, max_tokens: int | None = None) -> Iterator[tuple[bytes, int]]:
    """Read a file of the Arena's format line by line.

    A byte order mark and empty lines at the end, which some editors add, are skipped.

    Args:
        path: A TSV file with the header ``Source TAB Target``.
        max_tokens: Largest number of tokens in a sequence.

    Yields:
        The tokens of a sequence as numbers of :data:`VOCABULARY`, one byte each, and its label from 0 to 9.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: A row has another form, or a sequence is too long; the message names the file and the line.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a ListOps file at {path}, got nothing there: write the set with `dtn-det listops --out DIR`, or "
            "name its folder"
        )
    with path.open(encoding="utf-8-sig", errors="backslashreplace", newline="\n") as file:
        header = file.readline().rstrip("\r\n").split("\t")
        if header != _COLUMNS:
            raise InputError(
                f"expected the header Source TAB Target in {path}, line 1, got {_shown(' '.join(header))}: name a file "
                "of the Long-Range Arena's format"
            )
        empty = None
        for number, line in enumerate(file, start=2):
            row = line.rstrip("\r\n")
            if not row:
                empty = empty or number
                continue
            if empty is not None:
                raise InputError(f"expected a row in {path}, line {empty}, got an empty line: remove it")
            try:
                yield _read_row(row, max_tokens)
            except _RowError as error:
                raise InputError(f"{error} in {path}, line {number}: {error.remedy}") from None


class _RowError(ValueError):
    """A fault of a row; the message does not say where in the file the row stands."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def _read_row(line: str, max_tokens: int | None) -> tuple[bytes, int]:
    columns = line.split("\t")
    if len(columns) != len(_COLUMNS):
        raise _RowError(f"expected a sequence, a tab and a label, got {len(columns)} columns", "mend or remove the row")
    source, label = columns
    if label not in _NUMBERS or not label.isdigit():
        raise _RowError(f"expected a label from 0 to 9, got {_shown(label)}", "mend or remove the row")
    tokens = encode(source)
    if not tokens:
        raise _RowError("expected a sequence, got none", "mend or remove the row")
    if max_tokens is not None and len(tokens) > max_tokens:
        raise _RowError(
            f"expected at most {max_tokens} tokens, which is what the model takes, got {len(tokens)}",
            "raise max_tokens in the config, or draw shorter sequences",
        )
    return tokens, int(label)


def encode(source: str) -> bytes:
    """Return the numbers of the tokens of an expression, one byte each.

    Example:
        >>> list(encode("( ( ( [MAX 1 ) 2 ) ] )"))
        [2, 7, 8, 5]
    """
    tokens = source.replace("(", " ").replace(")", " ").split()
    try:
        return bytes(map(_NUMBERS.__getitem__, tokens))
    except KeyError:
        unknown = next(token for token in tokens if token not in _NUMBERS)
        raise _RowError(
            f"expected the tokens {' '.join(VOCABULARY[1:])}, got {_shown(unknown)}",
            "mend the row, or name a ListOps file",
        ) from None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
