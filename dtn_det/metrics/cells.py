"""Checks of tables of results: every cell is present, no cell is repeated, and the values are in the right unit.

A cell (:class:`dtn_det.corruptions.cells.Cell`) is a corruption at a severity, or the clean images.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtn_det.corruptions.catalog import (
    ALL,
    BENCHMARK,
    EVERY,
    EXTRA,
    IMAGENET_C_CATALOG,
    SEVERITIES,
    Catalog,
    catalog_for,
)
from dtn_det.corruptions.cells import CLEAN, Cell
from dtn_det.errors import CellError, InputError

CorruptionSet = Literal["benchmark", "extra", "all"]

SETS: dict[str, tuple[str, ...]] = {"benchmark": BENCHMARK, "extra": EXTRA, "all": ALL}
"""The sets over which means are computed, for ImageNet-C: the paper's fifteen, the four hold-outs, or both."""

_SUFFIX = {"benchmark": "", "extra": " (4 extra)", "all": " (15+4)"}


def corruptions_of(name: str, catalog: Catalog = IMAGENET_C_CATALOG) -> tuple[str, ...]:
    """Return the corruptions of a set in the order of the benchmark's tables.

    Args:
        name: `benchmark` for the corruptions over which the benchmark's mean is taken, `extra` for the benchmark's
            other corruptions, or `all`.
        catalog: The corruptions of the benchmark.

    Raises:
        InputError: The name is unknown.
    """
    if not isinstance(name, str) or name not in SETS:
        raise InputError(f"expected corruptions to be one of {', '.join(SETS)}, got {name!r}")
    return {"benchmark": catalog.benchmark, "extra": catalog.extra, "all": catalog.names}[name]


def metric_name(metric: str, corruptions: CorruptionSet) -> str:
    """Return the name of a mean, with a suffix if the mean is not over the paper's fifteen corruptions."""
    return metric + _SUFFIX[corruptions]


def all_cells(corruptions: CorruptionSet, catalog: Catalog = IMAGENET_C_CATALOG) -> tuple[Cell, ...]:
    """Return all corrupted cells of one of a benchmark's sets, in the order of the benchmark's tables."""
    return tuple(Cell(name, severity) for name in corruptions_of(corruptions, catalog) for severity in SEVERITIES)


def is_cell(cell: tuple[object, object], catalog: Catalog = IMAGENET_C_CATALOG) -> bool:
    """Return whether a pair is the clean cell or a corruption of a benchmark with a severity from 1 to 5."""
    return cell == CLEAN or (cell[0] in catalog.names and cell[1] in SEVERITIES)


def severity_of(value: object) -> int | str | None:
    """Read a severity from a table: an integer for a whole number, None for a missing value, text for anything else."""
    if value is None or type(value).__name__ == "NAType":
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        return repr(value)
    number = float(value)
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() else f"{number:g}"


def describe(cells: Iterable[tuple[object, object]]) -> str:
    """List cells as text, such as ``clean, fog 1 2 5``: each once, in the paper's order, unknown names last."""
    severities: dict[str, list[str]] = {}
    for name, severity in dict.fromkeys(cells):
        severities.setdefault(str(name), []).append("" if (name, severity) in (CLEAN, (name, None)) else f" {severity}")
    order = {name: index for index, name in enumerate((CLEAN[0], *EVERY))}
    names = sorted(severities, key=lambda name: order.get(name, len(order)))
    return ", ".join(name + "".join(sorted(severities[name])) for name in names)


@dataclass(frozen=True)
class CellLayout:
    """The indices of cells on the last axis of an array, by corruption and by severity.

    Attributes:
        corruptions: Corruptions that have a cell, in the paper's order.
        columns: For each corruption, the indices of its cells.
        severities: For each severity that has a cell, the indices of its cells.
    """

    corruptions: tuple[str, ...]
    columns: tuple[NDArray[np.intp], ...]
    severities: dict[int, NDArray[np.intp]]

    @classmethod
    def of(cls, cells: Sequence[Cell]) -> CellLayout:
        """Return the layout of an axis along which the corrupted cells lie in the given order."""
        having = {cell[0] for cell in cells}
        names = tuple(name for name in catalog_for(having).names if name in having)
        return cls(
            names,
            tuple(np.flatnonzero([cell[0] == name for cell in cells]) for name in names),
            {
                severity: np.flatnonzero([cell[1] == severity for cell in cells])
                for severity in SEVERITIES
                if any(cell[1] == severity for cell in cells)
            },
        )

    def groups(self) -> dict[str, NDArray[np.intp]]:
        """Return the indices of each group's corruptions in :attr:`corruptions`; empty groups are left out."""
        groups = catalog_for(self.corruptions).groups
        found = {
            group: np.flatnonzero([name in members for name in self.corruptions]) for group, members in groups.items()
        }
        return {group: indices for group, indices in found.items() if len(indices)}


NO_GROUND_TRUTH = -1.0
"""The value that COCO's evaluation gives where there is no ground truth, such as APs without small objects."""

_NO_SEVERITY = "no severity, as in means over the severities"

# Types that are not numbers, but that NumPy would convert to numbers without an error.
_NO_NUMBERS = ("bool", "complex", "datetime", "timedelta", "str", "category")


def cell_error(what: str, problems: dict[str, tuple[tuple[object, object], ...]], hint: str) -> CellError:
    """Make the error that lists the faulty cells of a table.

    Args:
        hint: What to do, as the end of the sentence.
    """
    faults = "; ".join(f"{fault} ({len(cells)}): {describe(cells)}" for fault, cells in problems.items())
    return CellError(f"expected one sound row for each cell of {what}, got {faults}: {hint}", problems)


@dataclass(frozen=True)
class CellValues:
    """The numbers of one column of a table, one for each cell.

    Attributes:
        cells: The corrupted cells, in the paper's order.
        values: Their values, (cells,).
        clean: The value of the clean images; None if the table has no clean row.
        expected_cells: Number of corrupted cells of the whole set.
        num_images: Number of images behind each cell; None if the table has no such column.
    """

    cells: tuple[Cell, ...]
    values: NDArray[np.float64]
    clean: float | None
    expected_cells: int
    num_images: int | None


def checked_cells(
    frame: pd.DataFrame,
    column: str,
    *,
    corruptions: CorruptionSet = "benchmark",
    needs_clean: bool = False,
    allow_partial: bool = False,
    at_most: float | None = 1.0,
    coco: bool = False,
    what: str = "the table",
) -> CellValues:
    """Read one column of a tidy table, and check every row of it.

    Args:
        frame: Table with the columns `corruption`, `severity`, `column`, and `num_images` where known. The row of the
            clean images has corruption `clean`, severity 0.
        corruptions: The set of corruptions to read; other corruptions in the table are ignored. The set belongs to the
            first benchmark that has all known corruptions of the table.
        at_most: The largest value to accept (1 for fractions); None for no limit.
        coco: Whether the error message explains that a value of -1 means missing ground truth, as in COCO's evaluation.

    Raises:
        CellError: Cells are missing, duplicated or unknown, values are NaN, negative or too large, rows have no
            severity, or image counts differ; the message lists all faults with their cells.
        InputError: `frame` is not a table, a column is absent, occurs twice or holds no numbers, or the table has no
            corrupted cell of the set.
    """
    check_columns(frame, ("corruption", "severity", column), what)
    numbers = _numbers(frame, column, what)
    names = [str(name) for name in frame["corruption"].tolist()]
    found = [(name, severity_of(value)) for name, value in zip(names, frame["severity"].tolist(), strict=True)]
    catalog = catalog_for(names)
    wanted = all_cells(corruptions, catalog)

    problems: dict[str, Iterable[tuple[object, object]]] = {}
    rows = dict(zip(found, numbers, strict=True))
    needed = (*(() if allow_partial else wanted), *((CLEAN,) if needs_clean else ()))
    problems["missing"] = [cell for cell in needed if cell not in rows]
    problems["duplicated"] = [cell for cell, times in Counter(found).items() if times > 1]
    without = [cell for cell in found if cell[1] is None]
    problems[_NO_SEVERITY] = without
    problems["unknown"] = [cell for cell in found if cell not in without and not is_cell(cell, catalog)]
    problems[f"`{column}` not finite"] = _where(found, ~np.isfinite(numbers))
    empty = (numbers == NO_GROUND_TRUTH) & coco
    problems[f"`{column}` -1, COCO's mark for no ground truth of that size (leave this metric out)"] = _where(
        found, empty
    )
    problems[f"`{column}` negative"] = _where(found, (numbers < 0) & ~empty)
    if at_most is not None:
        problems[f"`{column}` above {at_most:g} (percent where a fraction is expected?)"] = _where(
            found, numbers > at_most
        )
    counts = _numbers(frame, "num_images", what) if "num_images" in frame.columns else None
    if counts is not None:
        sound = np.isfinite(counts) & (counts > 0) & (np.floor(counts) == counts)
        most_common = _most_common(counts[sound])
        problems["`num_images` not a positive whole number"] = _where(found, ~sound)
        problems[f"`num_images` other than {most_common}"] = _where(found, sound & (counts != most_common))
    raise_problems(what, problems)
    cells = tuple(cell for cell in wanted if cell in rows)
    if not cells:
        raise InputError(f"expected corrupted cells in {what}, got none: evaluate at least one corruption")
    return CellValues(
        cells,
        np.array([rows[cell] for cell in cells]),
        float(rows[CLEAN]) if CLEAN in rows else None,
        len(wanted),
        int(counts[0]) if counts is not None else None,
    )


def raise_problems(what: str, problems: dict[str, Iterable[tuple[object, object]]]) -> None:
    """Raise one :class:`~dtn_det.errors.CellError` that lists the faults and their cells, if there are any.

    Args:
        problems: The faulty cells by the description of their fault; a fault without cells is ignored.
    """
    faults = {fault: tuple(dict.fromkeys(cells)) for fault, cells in problems.items()}
    faults = {fault: cells for fault, cells in faults.items() if cells}
    if not faults:
        return
    hints = []
    if "missing" in faults:
        hints.append("evaluate what is missing, or allow partial results, which are labelled so")
    if "duplicated" in faults:
        hints.append("keep one row a cell (two models, or boxes and masks, are two tables)")
    if _NO_SEVERITY in faults:
        hints.append("get the results of each severity")
    if set(faults) - {"missing", "duplicated", _NO_SEVERITY}:
        hints.append("mend the rows listed")
    raise cell_error(what, faults, "; ".join(hints))


def check_columns(frame: object, columns: Sequence[str], what: str) -> None:
    """Check that `frame` is a pandas DataFrame that has each of the given columns exactly once.

    Raises:
        InputError: `frame` is not a DataFrame, or a column is absent or occurs twice.
    """
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"expected a pandas DataFrame as {what}, got {type(frame).__name__}: make one of it")
    names = [str(name) for name in frame.columns]
    absent = [str(name) for name in columns if str(name) not in names]
    if absent:
        raise InputError(
            f"expected the columns {', '.join(map(str, columns))} in {what}, got {', '.join(names) or 'none'}: "
            f"add {', '.join(absent)}"
        )
    twice = [name for name in columns if names.count(name) > 1]
    if twice:
        raise InputError(f"expected each column of {what} once, got {', '.join(twice)} twice: drop one")


def _numbers(frame: pd.DataFrame, column: str, what: str) -> NDArray[np.float64]:
    values = frame[column]
    mixed = values.dtype == object
    strange = [one for one in values if (type(one).__name__ if mixed else str(values.dtype)).startswith(_NO_NUMBERS)]
    if strange:
        raise InputError(f"expected numbers in the column `{column}` of {what}, got {strange[0]!r}: convert them")
    try:
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected numbers in the column `{column}` of {what}, got {error}: convert them") from error


def _where(cells: Sequence[tuple[str, object]], faulty: NDArray[np.bool_]) -> list[tuple[str, object]]:
    return [cell for cell, fault in zip(cells, faulty, strict=True) if fault]


def _most_common(counts: NDArray[np.float64]) -> int:
    values, frequencies = np.unique(counts, return_counts=True)
    return int(values[frequencies.argmax()]) if len(values) else 0
