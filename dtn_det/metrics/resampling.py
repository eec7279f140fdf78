"""Bootstrap over images: how often each image is drawn, intervals and p-values, and Holm's adjustment of p-values."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dtn_det.corruptions.catalog import catalog_for
from dtn_det.corruptions.cells import Cell
from dtn_det.errors import InputError
from dtn_det.metrics.cells import describe, is_cell, severity_of

REPLICATES = 1000
LEVEL = 0.95

# _CHUNK: number of replicates for which a matrix product is quick. _CHUNK_NUMBERS: largest number of counts in a chunk,
# 128 MB. _KEPT_NUMBERS: up to this many counts, 256 MB, are kept for the next model.
_CHUNK = 500
_CHUNK_NUMBERS = 2**25
_KEPT_NUMBERS = 2**28


@dataclass(frozen=True)
class Samples:
    """One metric of a model on every cell, for all images and for each bootstrap replicate of them.

    A replicate draws the same images for all cells, and for any two models with the same images and seed.

    Attributes:
        metric: Name of the metric, such as `error` for classifiers and `AP50` for detectors.
        cells: The cells of the last axis, among them the clean cell if it was evaluated.
        point: The metric on all images, (cells,).
        values: The metric on each replicate, (replicates, cells); NaN where a replicate has no ground truth.
        num_images: Number of images that the replicates are drawn from.
        images: Digest of the images' names in their order.
    """

    metric: str
    cells: tuple[Cell, ...]
    point: NDArray[np.float64]
    values: NDArray[np.float64]
    num_images: int
    images: str
    seed: int

    def column(self, cell: Cell) -> int | None:
        """Return the index of a cell on the last axis; None if the cell was not evaluated."""
        return self.cells.index(cell) if cell in self.cells else None


@dataclass(frozen=True)
class Interval:
    """A number and its bootstrap percentile interval.

    Attributes:
        value: The number on all images.
        replicates: Number of replicates on which the number is defined; some may have no ground truth, for example.
    """

    value: float
    low: float
    high: float
    replicates: int


@dataclass(frozen=True)
class Difference(Interval):
    """The difference of two models on the same images, second minus first, with its paired interval and p-value.

    Attributes:
        p_value: Two-sided p-value ``2 * (1 + n) / (1 + replicates)``, at most 1. Here, n is the smaller of two counts:
            of replicates with a difference of at most 0, and of replicates with a difference of at least 0.
    """

    p_value: float


def image_counts(num_images: int, replicates: int, seed: int, chunk: int) -> Iterator[NDArray[np.int64]]:
    """Count how often each replicate draws each image.

    The counts of a replicate depend only on the number of images, the seed and the number of the replicate.

    Args:
        num_images: Number of images; each replicate draws this many, with replacement.
        chunk: Number of replicates to yield at once.

    Yields:
        Counts of the next replicates, (at most `chunk`, num_images).

    Raises:
        InputError: There is no image or no replicate, or the seed is negative.
    """
    if num_images < 1 or replicates < 1 or seed < 0:
        raise InputError(
            f"expected at least one image, one replicate and a seed of at least 0, got {num_images}, {replicates} and "
            f"{seed}"
        )
    for start in range(0, replicates, chunk):
        numbers = range(start, min(start + chunk, replicates))
        draws = (np.random.default_rng((seed, number)).integers(num_images, size=num_images) for number in numbers)
        yield np.stack([np.bincount(draw, minlength=num_images) for draw in draws])


def weights(num_images: int, replicates: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Yield :func:`image_counts` as float32 for matrix products, in chunks that fit into memory.

    The counts are kept, unless they take more than 256 MB, so that they need not be drawn again for the next model with
    the same arguments.

    Yields:
        Counts of the next replicates, (some replicates, num_images); the next chunk may overwrite them in place.

    Raises:
        InputError: There is no image or no replicate, or the seed is negative.
    """
    chunk = max(1, min(_CHUNK, _CHUNK_NUMBERS // max(1, num_images)))
    if num_images * replicates > _KEPT_NUMBERS:
        yield from (counts.astype(np.float32) for counts in image_counts(num_images, replicates, seed, chunk))
        return
    kept = _kept_counts(num_images, replicates, seed)
    memory = np.empty((min(chunk, replicates), num_images), np.float32)
    for start in range(0, replicates, chunk):
        counts = kept[start : start + chunk]
        memory[: len(counts)] = counts
        yield memory[: len(counts)]


@lru_cache(maxsize=1)
def _kept_counts(num_images: int, replicates: int, seed: int) -> NDArray[np.unsignedinteger]:
    """Return all of :func:`image_counts` in the smallest integer type, as (replicates, num_images)."""
    rows = [counts[0] for counts in image_counts(num_images, replicates, seed, 1)]
    return np.stack([row.astype(np.min_scalar_type(row.max())) for row in rows])


def digest(images: Sequence[object]) -> str:
    """Return the SHA-256 of the images' names in their order, in hexadecimal."""
    return hashlib.sha256("\0".join(map(str, images)).encode()).hexdigest()


def check_cells(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Check cells, and return them as :class:`Cell` with severities of type int.

    Raises:
        InputError: There is no cell, or a cell is malformed, unknown or repeated.
    """
    found = [_as_cell(cell) for cell in cells]
    catalog = catalog_for(str(cell[0]) for cell in found)
    unknown = [cell for cell in found if not is_cell(cell, catalog)]
    twice = [cell for cell in dict.fromkeys(found) if found.count(cell) > 1]
    if unknown or twice or not found:
        faults = "; ".join(
            f"{what}: {describe(which)}" for what, which in (("unknown", unknown), ("twice", twice)) if which
        )
        raise InputError(
            f"expected corruptions with severities 1 to 5, and ('clean', 0), each once, got {faults or 'none'}"
        )
    return tuple(Cell(str(name), int(str(severity))) for name, severity in found)


def _as_cell(value: object) -> tuple[object, object]:
    """Return the name and severity of a cell; for a value that is not a pair, its text and None, an invalid cell."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        return repr(value), None
    return str(value[0]), severity_of(value[1])


def check_samples(model: object) -> None:
    """Raise an InputError if the argument is not of class :class:`Samples`, for example a table."""
    if not isinstance(model, Samples):
        raise InputError(
            f"expected samples as error_samples and ap_samples make them, got {type(model).__name__}: an interval "
            "needs the records of the images"
        )


def check_paired(first: Samples, second: Samples) -> None:
    """Raise an InputError unless two models have the same metric, images, seed and number of replicates."""
    check_samples(first)
    check_samples(second)
    for name in ("metric", "num_images", "images", "seed"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            hint = "evaluate both on the same images in the same order" if "images" in name else "draw both alike"
            raise InputError(f"expected two models with the same {name} to pair them, got {one} and {other}: {hint}")
    if len(first.values) != len(second.values):
        raise InputError(
            f"expected as many replicates of both models, got {len(first.values)} and {len(second.values)}: "
            "draw both alike"
        )


def interval(point: float, values: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """Compute the percentile interval of a number.

    Args:
        values: The number on each replicate, (replicates,); NaN where it is undefined.
        level: Fraction of the replicates inside the interval, between 0 and 1.

    Raises:
        InputError: The level is not between 0 and 1, or the number is defined on no replicate.
    """
    low, high, kept = _ends(values, level)
    return Interval(float(point), low, high, len(kept))


def difference(point: float, values: NDArray[np.float64], level: float = LEVEL) -> Difference:
    """Compute the percentile interval of a difference and its p-value; arguments and errors as for :func:`interval`."""
    low, high, kept = _ends(values, level)
    rarer = min(np.count_nonzero(kept <= 0), np.count_nonzero(kept >= 0))
    # The observed sample counts as one more replicate, so that no p-value is 0.
    p_value = min(1.0, 2.0 * (1 + rarer) / (1 + len(kept)))
    return Difference(float(point), low, high, len(kept), p_value)


def _ends(values: NDArray[np.float64], level: float) -> tuple[float, float, NDArray[np.float64]]:
    if not 0 < level < 1:
        raise InputError(f"expected a level between 0 and 1, such as 0.95, got {level}")
    kept = values[np.isfinite(values)]
    if not len(kept):
        raise InputError("expected a replicate on which the number is defined, got none: evaluate more images")
    low, high = np.quantile(kept, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high), kept


K = TypeVar("K", bound=Hashable)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values, so that the chance of any false finding among all of them is at most the significance level.

    The i-th smallest of n p-values is multiplied by n - i + 1, then raised to the largest adjusted value before it. No
    independence of the comparisons is assumed. Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
    Scandinavian Journal of Statistics 6, 1979.

    Args:
        p_values: The p-values of one family, the comparisons that are adjusted together.

    Returns:
        The adjusted p-values in the order of the arguments, each at most 1.

    Raises:
        InputError: A p-value is outside [0, 1].

    >>> holm([0.04, 0.01, 0.03])
    (0.06, 0.03, 0.06)
    """
    outside = [p_value for p_value in p_values if not 0 <= p_value <= 1]
    if outside:
        raise InputError(f"expected p-values in [0, 1], got {', '.join(map(str, outside))}")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return tuple(adjusted)


def holm_by_key(p_values: Mapping[K, float]) -> dict[K, float]:
    """Adjust the p-values of one family by :func:`holm`, and return them by their keys. NaN values are left out.

    >>> holm_by_key({"fog": 0.04, "snow": 0.01, "frost": float("nan")})
    {'fog': 0.04, 'snow': 0.02}
    """
    known = {key: p_value for key, p_value in p_values.items() if p_value == p_value}
    return dict(zip(known, holm(list(known.values())), strict=True))
