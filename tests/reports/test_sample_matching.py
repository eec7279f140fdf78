"""Which detections of an image are right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.reports.samples.detection import Objects, match


def objects(*boxes, labels=None, crowd=()):
    count = len(boxes)
    return Objects(
        np.array(boxes, float).reshape(-1, 4),
        np.array(labels or [0] * count, int),
        np.array([place in crowd for place in range(count)], bool),
    )


def matched(truth, *boxes, labels=None):
    return match(truth, np.array(boxes, float).reshape(-1, 4), np.array(labels or [0] * len(boxes), int))


SQUARE, SHIFTED, FAR = (0, 0, 10, 10), (0, 0, 10, 19), (50, 50, 60, 60)


@pytest.mark.parametrize(
    ("found", "labels", "right"),
    [
        ([SQUARE], [0], [True]),
        ([SHIFTED], [0], [True]),
        ([(0, 0, 10, 21)], [0], [False]),
        ([FAR], [0], [False]),
        ([SQUARE], [1], [False]),
        ([SQUARE, SHIFTED], [0, 0], [True, False]),
        ([SHIFTED, SQUARE], [0, 0], [True, False]),
        ([], [], []),
    ],
    ids=["same", "half", "less than half", "elsewhere", "class", "second", "score first", "none"],
)
def test_one_object(found, labels, right):
    result = matched(objects(SQUARE), *found, labels=labels)
    assert result.right.tolist() == right
    assert (result.found, result.false, result.objects) == (sum(right), len(right) - sum(right), 1)


def test_what_is_in_a_crowd_does_not_count():
    result = matched(objects(SQUARE, (40, 40, 100, 100), crowd=(1,)), SQUARE, FAR, (200, 200, 210, 210))
    assert result.right.tolist() == [True, False, False]
    assert result.ignored.tolist() == [False, True, False]
    assert (result.objects, result.found, result.false) == (1, 1, 1)


def test_f1():
    assert matched(objects()).f1 == 1
    assert matched(objects(SQUARE)).f1 == 0
    assert matched(objects(), SQUARE).f1 == 0
    assert matched(objects(SQUARE, FAR), SQUARE, (80, 80, 90, 90)).f1 == pytest.approx(0.5)


@given(
    st.lists(st.tuples(*[st.integers(0, 20)] * 4), max_size=6),
    st.lists(st.tuples(*[st.integers(0, 20)] * 4), max_size=6),
)
def test_no_object_is_found_twice(truth, found):
    boxes = [[(x, y, x + w, y + h) for x, y, w, h in one] for one in (truth, found)]
    result = matched(objects(*boxes[0]), *boxes[1])
    assert result.found <= min(len(truth), len(found))
    assert result.found + result.false == len(found)
    assert 0 <= result.f1 <= 1
