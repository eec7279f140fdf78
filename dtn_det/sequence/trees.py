"""Random expressions of ListOps, following the rules of the Long-Range Arena (Tay et al., arXiv:2011.04006).

An argument is an operator with probability 1/4 if the tree may grow deeper, and otherwise a digit. An operator has 2 to
``max_args`` arguments. All choices are uniform. The Arena draws whole trees and keeps the trees of the wanted length.
Here a tree is drawn level by level, the numbers of arguments first, and most trees of another length are abandoned
after a few random numbers. The distribution is the same, because all choices are independent.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

OPERATOR_PROBABILITY: Final = 0.25
OPERATORS: Final[dict[str, Callable[[Sequence[int]], int]]] = {
    "[MIN": min,
    "[MAX": max,
    # The median of an even number of values is the mean of the middle two, rounded down.
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
END: Final = "]"


@dataclass(frozen=True)
class Expression:
    """An expression of ListOps.

    Attributes:
        source: The text of the expression, as in the Arena's files: ``( ( ( [MAX 1 ) 2 ) ] )``.
        value: The value of the expression, from 0 to 9.
        length: Number of tokens, without parentheses.
    """

    source: str
    value: int
    length: int


@dataclass(frozen=True)
class _Level:
    """The operators at one depth: how many arguments each operator has, and which arguments are operators."""

    counts: NDArray[np.int64]
    is_operator: NDArray[np.bool_]


def sample_expression(
    rng: np.random.Generator, *, min_length: int, max_length: int, max_depth: int, max_args: int
) -> Expression | None:
    """Draw one tree, and return its expression if it has the wanted length.

    The root is always an operator, because an expression of a single digit has length 1, which
    :class:`~dtn_det.sequence.listops.ListOps` never allows.

    Args:
        min_length: Exclusive lower bound of the number of tokens.
        max_length: Exclusive upper bound of the number of tokens.
        max_depth: Largest depth of the tree; a digit alone has depth 1.
        max_args: Largest number of arguments of an operator.

    Returns:
        The expression; None if it does not have the wanted length.
    """
    levels = _sample_levels(rng, max_length, max_depth, max_args)
    if levels is None:
        return None
    length = _length(levels)
    if not min_length < length < max_length:
        return None
    source, value = _write(levels, rng)
    return Expression(source, value, length)


def _sample_levels(rng: np.random.Generator, max_length: int, max_depth: int, max_args: int) -> list[_Level] | None:
    levels: list[_Level] = []
    operators, length = 1, 0
    for depth in range(1, max_depth):
        counts = rng.integers(2, max_args + 1, operators)
        num_args = int(counts.sum())
        if depth + 1 < max_depth:
            is_operator = rng.random(num_args) < OPERATOR_PROBABILITY
        else:
            is_operator = np.zeros(num_args, dtype=np.bool_)
        levels.append(_Level(counts, is_operator))
        inner = int(is_operator.sum())
        length += 2 * operators + num_args - inner
        # Each inner operator needs at least 4 tokens: 2 for itself and 2 for its arguments.
        if length + 4 * inner >= max_length:
            return None
        operators = inner
        if not operators:
            break
    return levels


def _length(levels: Sequence[_Level]) -> int:
    """Return the number of tokens: one for each digit, and two for each operator (``[MAX`` and ``]``)."""
    return sum(2 * len(level.counts) + int((~level.is_operator).sum()) for level in levels)


def _write(levels: Sequence[_Level], rng: np.random.Generator) -> tuple[str, int]:
    """Draw digits and operators; build the text and the value of the tree, from the deepest level up."""
    names = list(OPERATORS)
    texts: list[str] = []
    values: list[int] = []
    for level in reversed(levels):
        inner = iter(zip(texts, values, strict=True))
        digits = rng.integers(0, 10, len(level.is_operator)).tolist()
        arguments = [
            next(inner) if is_operator else (str(digit), digit)
            for is_operator, digit in zip(level.is_operator.tolist(), digits, strict=True)
        ]
        texts, values, start = [], [], 0
        choices = rng.integers(0, len(names), len(level.counts)).tolist()
        for count, choice in zip(level.counts.tolist(), choices, strict=True):
            own = arguments[start : start + count]
            start += count
            texts.append(_text(names[choice], [text for text, _ in own]))
            values.append(OPERATORS[names[choice]]([value for _, value in own]))
    return texts[0], values[0]


def _text(operator: str, arguments: Sequence[str]) -> str:
    """Return the text of an operator in the Arena's nested form: ``( ( ( [MAX 1 ) 2 ) ] )``."""
    parts = [operator, *arguments, END]
    return "( " * (len(parts) - 1) + parts[0] + " " + " ) ".join(parts[1:]) + " )"
