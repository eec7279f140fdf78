"""Expressions of ListOps: values by another parser, and the distribution against the Arena's way of drawing."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, ks_2samp

from dtn_det.sequence import Expression, sample_expression

LENGTHS = {"min_length": 10, "max_length": 150}
ARENA = {"max_depth": 10, "max_args": 10}


def draw(rng: np.random.Generator, **options: int) -> Expression:
    while True:
        one = sample_expression(rng, **{**LENGTHS, **ARENA, **options})
        if one is not None:
            return one


def solve(source: str) -> tuple[int, int, int, list[int]]:
    """Value, length, depth and numbers of arguments of an expression, read with a stack."""
    stack: list[Any] = [[]]
    deepest, sizes = 0, []
    tokens = [token for token in source.split() if token not in "()"]
    for token in tokens:
        if token.startswith("["):
            stack.append([token])
            deepest = max(deepest, len(stack))
        elif token == "]":
            name, *values = stack.pop()
            sizes.append(len(values))
            middle = sorted(values)[(len(values) - 1) // 2 : len(values) // 2 + 1]
            value = {
                "[MIN": min(values),
                "[MAX": max(values),
                "[SM": sum(values) % 10,
                "[MED": sum(middle) // len(middle),
            }
            stack[-1].append(value[name])
        else:
            stack[-1].append(int(token))
    ((result,),) = stack
    return result, len(tokens), deepest, sizes


@given(seed=st.integers(0, 10**6), max_depth=st.integers(3, 10), max_args=st.integers(3, 10))
def test_expression_is_what_it_says(seed: int, max_depth: int, max_args: int) -> None:
    one = draw(np.random.default_rng(seed), max_depth=max_depth, max_args=max_args, min_length=5)
    value, length, depth, sizes = solve(one.source)
    assert (value, length) == (one.value, one.length)
    assert 5 < length < 150
    # Digits lie one deeper than the deepest operator.
    assert depth <= max_depth
    assert 2 <= min(sizes) <= max(sizes) <= max_args


def test_parentheses_are_the_arenas() -> None:
    """Each argument closes a pair with all before it: one pair for an argument or bracket."""
    rng = np.random.default_rng(0)
    source = draw(rng, max_depth=2, min_length=1, max_length=50).source
    name, *rest = [token for token in source.split() if token not in "()"]
    expected = name
    for token in rest:
        expected = f"( {expected} {token} )"
    assert source == expected


def arena_tree(rng: random.Random, depth: int, most: int) -> tuple[int, int, int]:
    """Length, operators and deepest level of a tree drawn root first, each argument to its end before the next."""
    if depth == ARENA["max_depth"] or rng.random() > 0.25:
        return 1, 0, depth
    length, operators, deepest = 2, 1, depth
    for _ in range(rng.randint(2, ARENA["max_args"])):
        if length > most:
            break  # too long already, whatever comes
        inner = arena_tree(rng, depth + 1, most)
        length, operators, deepest = length + inner[0], operators + inner[1], max(deepest, inner[2])
    return length, operators, deepest


def test_distribution_is_the_arenas() -> None:
    """Lengths, operators and depths of 3,000 trees of either way, in two-sample tests."""
    number = 3000
    theirs: list[tuple[int, int, int]] = []
    rng = random.Random(0)
    while len(theirs) < number:
        tree = arena_tree(rng, 1, LENGTHS["max_length"])
        if LENGTHS["min_length"] < tree[0] < LENGTHS["max_length"]:
            theirs.append(tree)
    generator = np.random.default_rng(1)
    ours = [solve(draw(generator).source) for _ in range(number)]
    columns = (
        ([length for _, length, _, _ in ours], [tree[0] for tree in theirs]),
        ([len(sizes) for *_, sizes in ours], [tree[1] for tree in theirs]),
        ([depth for _, _, depth, _ in ours], [tree[2] for tree in theirs]),
    )
    for left, right in columns:
        assert ks_2samp(left, right).pvalue > 0.01


def test_choices_are_uniform() -> None:
    rng = np.random.default_rng(2)
    tokens = [token for _ in range(300) for token in draw(rng).source.split()]
    assert chisquare([tokens.count(name) for name in ("[MIN", "[MAX", "[MED", "[SM")]).pvalue > 0.01
    assert chisquare([tokens.count(str(digit)) for digit in range(10)]).pvalue > 0.01


@pytest.mark.parametrize(
    ("source", "value"),
    [("( ( ( [MED 1 ) 4 ) ] )", 2), ("( ( ( ( [MED 1 ) 4 ) 9 ) ] )", 4), ("( ( ( [SM 7 ) 8 ) ] )", 5)],
)
def test_median_is_rounded_down(source: str, value: int) -> None:
    from dtn_det.sequence.trees import OPERATORS

    name, *digits = [token for token in source.split() if token not in "()]"]
    assert OPERATORS[name]([int(digit) for digit in digits]) == value == solve(source)[0]
