"""Write and read the ListOps data set: three TSV files in the format of the Long-Range Arena.

The set is drawn on all cores, in numbered parts. Each part has its own random stream and is drawn by any free process.
The parts are joined in the order of their numbers, so the files depend only on the settings. An existing part is not
drawn again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from dtn_det.errors import InputError
from dtn_det.sequence.trees import END, OPERATORS, sample_expression
from dtn_det.system.files import locked, write_json, write_text
from dtn_det.system.processes import end_with_parent, interrupts_blocked, interrupts_remembered, worker_environment
from dtn_det.system.progress import meter

MANIFEST: Final = "listops.json"
COLUMNS: Final = ("Source", "Target")
FILES: Final = {"train": "basic_train.tsv", "val": "basic_val.tsv", "test": "basic_test.tsv"}
"""Names of the Arena's files."""
VOCABULARY: Final = ("", *OPERATORS, END, *map(str, range(10)))
"""The tokens in the order of their numbers; number 0 is padding.

As in the Arena's input pipeline, parentheses are left out, because the brackets contain the same information. The Arena
itself numbers the 15 tokens in another order in each run."""
NUM_CLASSES: Final = 10
_NUMBERS = {token: number for number, token in enumerate(VOCABULARY) if token}
# Version of the generator. Increase it when the same settings produce other files.
_GENERATOR = 1
_TREES_PER_PART = 2000
# Number of successive parts without a new sequence after which the search ends.
_PATIENCE = 25


@dataclass(frozen=True)
class ListOps:
    """The settings of a data set. The defaults are the Arena's.

    Attributes:
        min_length: Exclusive lower bound of the number of tokens of a sequence, without parentheses.
        max_length: Exclusive upper bound of the number of tokens of a sequence, without parentheses.
        max_depth: Largest depth of a tree; the digits count as a level.
        max_args: Largest number of arguments of an operator.

    Raises:
        ValueError: A value is out of range.
    """

    train: int = 96000
    val: int = 2000
    test: int = 2000
    min_length: int = 500
    max_length: int = 2000
    max_depth: int = 10
    max_args: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"train": 1, "val": 1, "test": 1, "min_length": 1, "max_depth": 2, "max_args": 2, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InputError(f"expected {name} to be at least {bound}, got {getattr(self, name)}")
        if self.max_length - self.min_length < 2:
            raise InputError(
                f"expected lengths between min_length and max_length, both excluded, got {self.min_length} and "
                f"{self.max_length}: raise max_length"
            )

    @property
    def splits(self) -> dict[str, int]:
        """Number of sequences of each split."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def total(self) -> int:
        """Number of sequences in all splits together."""
        return sum(self.splits.values())


def draw_part(settings: ListOps, index: int) -> list[str]:
    """Draw the lines of one part.

    Returns:
        Lines ``source TAB value CR LF``. The line end is that of Python's :mod:`csv`, which the Arena uses.
    """
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(index,)))
    drawn = (
        sample_expression(
            rng,
            min_length=settings.min_length,
            max_length=settings.max_length,
            max_depth=settings.max_depth,
            max_args=settings.max_args,
        )
        for _ in range(_TREES_PER_PART)
    )
    return [f"{one.source}\t{one.value}\r\n" for one in drawn if one is not None]


def write_listops(folder: Path, settings: ListOps, workers: int, console: Console) -> bool:
    """Write the data set, or continue the work of an earlier call.

    At any moment, each file is complete or absent. No sequence occurs twice, and the files do not depend on the number
    of processes. While the files are being written, they need twice their final size on the disk: 1.4 GB with the
    Arena's settings.

    Returns:
        False if the data set was complete before, else True.

    Raises:
        ValueError: The folder holds something else, or the settings do not produce enough different sequences.
        RuntimeError: A process died.
    """
    if workers < 1:
        raise InputError(f"expected at least 1 worker, got {workers}")
    manifest = {"generator": _GENERATOR, "numpy": np.__version__, **asdict(settings)}
    with locked(folder, "--out"):
        _check_folder(folder, manifest)
        if (folder / MANIFEST).exists() and all((folder / name).exists() for name in FILES.values()):
            return False
        write_json(folder / MANIFEST, manifest)
        parts = folder / _parts_name(manifest)
        parts.mkdir(exist_ok=True)
        with interrupts_remembered() as check, meter(console, "Drawing", settings.total, "sequences") as advance:

            def drawn(new: int) -> None:
                check()
                advance(new)

            try:
                chosen = _choose(parts, settings, workers, drawn)
            except ValueError:  # these settings produce no data set, so other settings may use the folder
                (folder / MANIFEST).unlink()
                shutil.rmtree(parts)
                raise
            _join(folder, parts, settings, chosen)
        shutil.rmtree(parts)
    return True


def _parts_name(manifest: dict[str, int | str]) -> str:
    """Return the name of the folder for parts. It depends on the settings, so parts of other settings are not used."""
    digest = hashlib.blake2b(json.dumps(manifest, sort_keys=True).encode(), digest_size=6).hexdigest()
    return f".listops-parts-{digest}"


def _check_folder(folder: Path, manifest: dict[str, int | str]) -> None:
    path = folder / MANIFEST
    if not path.exists():
        found = [name for name in FILES.values() if (folder / name).exists()]
        if found:
            raise InputError(
                f"expected a folder without ListOps files, got {folder} with {', '.join(found)} of another origin: "
                "name another with --out"
            )
        return
    try:
        there = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"expected the settings of a data set in {path}, got a damaged file: name another folder with --out, or "
            f"delete the whole of {folder}"
        ) from error
    if there != manifest:
        differing = ", ".join(key for key in manifest if there.get(key) != manifest[key])
        raise InputError(
            f"expected {folder} to hold what these settings draw, got a data set of another {differing}: name another "
            "folder with --out, or delete the whole of this one"
        )


def _choose(parts: Path, settings: ListOps, workers: int, drawn: Callable[[int], None]) -> list[list[int]]:
    """Draw parts until there are enough different lines, and choose these lines.

    Returns:
        For each part, the numbers of the lines that have not occurred before: ``settings.total`` lines in all parts
        together.
    """
    seen: set[bytes] = set()
    chosen: list[list[int]] = []
    barren = 0
    with closing(_parts(parts, settings, workers)) as found:
        for digests in found:
            new = []
            for number, digest in enumerate(digests):
                if digest not in seen and len(seen) < settings.total:
                    seen.add(digest)
                    new.append(number)
            chosen.append(new)
            drawn(len(new))
            if len(seen) == settings.total:
                return chosen
            barren = 0 if new else barren + 1
            if barren == _PATIENCE:
                raise InputError(
                    f"expected settings with {settings.total:,} different sequences, found {len(seen):,}: ask for "
                    "fewer, or for a wider range of lengths"
                )
    raise RuntimeError("expected no end of parts")


def _parts(folder: Path, settings: ListOps, workers: int) -> Generator[list[bytes], None, None]:
    """Write parts in worker processes until the generator is closed, and yield the digests of each part's lines."""
    context = multiprocessing.get_context("spawn")
    with worker_environment(), ProcessPoolExecutor(workers, context, end_with_parent) as pool:
        pending: deque[Future[list[bytes]]] = deque()
        try:
            for index in count():
                with interrupts_blocked():  # processes that start here inherit the blocked signal
                    pending.append(pool.submit(_write_part, _part(folder, index), settings, index))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
        except BrokenProcessPool:
            raise RuntimeError(
                "a worker process died (out of memory, perhaps): run the same command again, with fewer --workers"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _part(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.tsv"


def _write_part(path: Path, settings: ListOps, index: int) -> list[bytes]:
    if not path.exists():
        write_text(path, "".join(draw_part(settings, index)))
    return [hashlib.blake2b(line, digest_size=16).digest() for line in _lines(path)]


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _join(folder: Path, parts: Path, settings: ListOps, chosen: list[list[int]]) -> None:
    """Write the files from the chosen lines. A file gets its final name when it is complete."""
    rows = _chosen_lines(parts, chosen)
    for split, size in settings.splits.items():
        unfinished = parts / FILES[split]
        with unfinished.open("wb") as file:
            file.write("\t".join(COLUMNS).encode() + b"\r\n")
            for _ in range(size):
                file.write(next(rows))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, folder / FILES[split])


def _chosen_lines(parts: Path, chosen: list[list[int]]) -> Iterator[bytes]:
    for index, numbers in enumerate(chosen):
        wanted = frozenset(numbers)
        yield from (line for number, line in enumerate(_lines(_part(parts, index))) if number in wanted)


def read_listops(path: Path, max_tokens: int | None = None) -> Iterator[tuple[bytes, int]]:
    """Read a file of the Arena's format line by line.

    A byte order mark and empty lines at the end are skipped, because some editors add them.

    Args:
        max_tokens: Largest number of tokens in a sequence.

    Yields:
        The tokens of a sequence as indices in :data:`VOCABULARY`, one byte each, and its label from 0 to 9.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: A row has another form, or a sequence is too long. The message contains the file and the line.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a ListOps file at {path}, got nothing there: write the set with `dtn-det listops --out DIR`, or "
            "name its folder"
        )
    with path.open(encoding="utf-8-sig", errors="backslashreplace", newline="\n") as file:
        header = tuple(file.readline().rstrip("\r\n").split("\t"))
        if header != COLUMNS:
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
    """A faulty row. The caller adds the file and the line to the message."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def _read_row(line: str, max_tokens: int | None) -> tuple[bytes, int]:
    columns = line.split("\t")
    if len(columns) != len(COLUMNS):
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
    """Return the tokens of an expression as indices in :data:`VOCABULARY`, one byte each.

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
