"""Parts of data sets: the same images for ever, by paths and by ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.datasets.choosing import choose_ids, choose_paths, read_selection, selection_name

PATHS = [f"{folder}/{number}.jpg" for folder in ("ant", "bee/deep", "bee") for number in range(5)]


@pytest.mark.parametrize(
    ("seed", "chosen"),
    [
        (0, ["ant/1.jpg", "bee/deep/0.jpg", "bee/deep/2.jpg", "bee/deep/4.jpg"]),
        (3, ["ant/2.jpg", "ant/4.jpg", "bee/0.jpg", "bee/deep/0.jpg"]),
    ],
)
def test_paths_that_stored_runs_were_made_of(seed: int, chosen: list[str]) -> None:
    assert choose_paths(PATHS, 4, seed) == chosen
    assert choose_paths(PATHS[::-1], 4, seed) == chosen


@pytest.mark.parametrize(
    ("ids", "limit", "seed", "chosen"),
    [
        (list(range(20)), 5, 0, [0, 12, 13, 16, 17]),
        ([f"im{number}" for number in range(20)], 5, 7, [0, 2, 6, 9, 14]),
        ([1.5, "a", None, 7, 2**40], 2, 0, [1, 3]),
    ],
)
def test_ids_that_stored_runs_were_made_of(ids: list[object], limit: int, seed: int, chosen: list[int]) -> None:
    assert choose_ids(ids, limit, seed) == chosen


@given(st.integers(1, 15), st.integers(1, 15), st.integers(0, 2**32))
def test_a_smaller_part_is_contained_in_a_larger_one(one: int, other: int, seed: int) -> None:
    small, large = sorted((one, other))
    assert set(choose_paths(PATHS, small, seed)) <= set(choose_paths(PATHS, large, seed))
    assert set(choose_ids(PATHS, small, seed)) <= set(choose_ids(PATHS, large, seed))


def test_the_order_of_ids_does_not_matter() -> None:
    ids = list(range(100))
    chosen = choose_ids(ids, 10, 0)
    assert chosen != choose_ids(ids, 10, 1)
    assert {ids[::-1][place] for place in choose_ids(ids[::-1], 10, 0)} == set(chosen)


def test_no_limit_takes_all_as_they_come() -> None:
    assert choose_paths(PATHS, None, 0) is PATHS
    assert choose_ids(PATHS, None, 0) == list(range(15))
    assert choose_ids(PATHS, 99, 0) == list(range(15))


def test_names_of_bytes_that_are_no_text() -> None:
    assert choose_paths([*PATHS, "\udcff.png"], 16, 0)[-1] == "\udcff.png"
    assert choose_ids(["\udcff.png"], 1, 0) == [0]


@pytest.mark.parametrize("choose", [choose_paths, choose_ids])
def test_a_limit_below_one(choose) -> None:
    with pytest.raises(ValueError, match=r"^expected a limit of at least 1 image, got 0$"):
        choose(PATHS, 0, 0)


def test_names_of_selections() -> None:
    assert [selection_name(limit, 50, 3) for limit in (None, 50, 51, 7)] == [
        "all",
        "all",
        "all",
        "limit=7 of 50 seed=3",
    ]


@given(st.integers(1, 99), st.integers(1, 99), st.integers(0, 2**32))
def test_a_selection_is_read_as_it_was_named(limit: int, total: int, seed: int) -> None:
    name = selection_name(limit, total, seed)
    assert read_selection(name) == (None if name == "all" else (limit, seed))
    assert read_selection(f"{name} in the tree, of 50000 clean images") == read_selection(name)


def test_other_names_are_no_selection_by_a_seed() -> None:
    assert read_selection("30 of 50 in the tree") is None
