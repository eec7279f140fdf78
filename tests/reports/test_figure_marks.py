from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.corruptions.catalog import ALL, GROUPS
from dtn_det.reports.figures.data import MOST_HIGHLIGHTED, marks_of
from dtn_det.reports.figures.layout import fitted, printable, shorten, width, wrapped
from dtn_det.reports.labels import groups_of, short, title


@given(st.integers(1, 40), st.integers(0, 20), st.booleans())
def test_no_two_models_look_alike(count: int, twins: int, star: bool) -> None:
    names = [f"m{number}" for number in range(count)]
    if star:
        pairs = [(names[0], name) for name in names[1:]]
    else:
        pairs = list(zip(names[::2], names[1::2], strict=False))[:twins]
    marks = marks_of(names, pairs)
    assert list(marks) == names
    assert len({(mark.colour, mark.marker, mark.filled) for mark in marks.values()}) == count
    highlighted = [mark for mark in marks.values() if mark.highlighted]
    assert len(highlighted) <= MOST_HIGHLIGHTED
    assert len(highlighted) >= min(count, MOST_HIGHLIGHTED - 1)
    # In lines with markers alone, without colour.
    assert len({(str(mark.line), mark.marker, mark.filled) for mark in highlighted}) == len(highlighted)


def test_twins_differ_in_filling_and_line() -> None:
    marks = marks_of(["dtn", "ln", "other"], [("ln", "dtn")])
    assert (marks["ln"].filled, marks["dtn"].filled, marks["other"].filled) == (False, True, True)
    assert marks["ln"].line != marks["dtn"].line
    assert len({mark.colour for mark in marks.values()}) == 3


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8, unique=True), st.sampled_from([40, 70, 200]))
def test_fitted_names_fit_and_differ(names: list[str], points: int) -> None:
    labels = fitted(names, points)
    assert list(labels) == names
    assert len(set(labels.values())) == len(names)
    assert all(width(label) <= points for label in labels.values())


@given(st.text(max_size=80))
def test_wrapped_lines_fit_and_lose_nothing(text: str) -> None:
    plain = printable(text)
    lines = wrapped(plain, 60).split("\n")
    assert all(width(line) <= 60 for line in lines)
    assert "".join(lines).replace(" ", "") == plain.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "plain"),
    [("a\tb\n c", "a b c"), ("$é_ß→", "$é_ß→"), ("模", r"\u6a21"), ("\x00", r"\x00"), ("\ud800", r"\ud800")],
)
def test_printable(text: str, plain: str) -> None:
    assert printable(text) == plain


def test_the_middle_is_left_out() -> None:
    short_name = shorten("swin_tiny_patch4_window7_224.ms_in22k_ft_in1k", 80)
    assert short_name.startswith("swin_t")
    assert short_name.endswith("_in1k")
    assert "…" in short_name
    assert shorten("abc", 1) == "…"


def test_every_corruption_has_names_and_a_group() -> None:
    assert groups_of(set(ALL)) == {group: list(names) for group, names in GROUPS.items()}
    assert groups_of({"fog"}) == {"weather": ["fog"]}
    assert len({title(name) for name in ALL}) == len(ALL)
    for names in GROUPS.values():
        assert len({short(name) for name in names}) == len(names)
    assert title("jpeg_compression") == "JPEG compression"
    assert short("jpeg_compression") == "JPEG"
