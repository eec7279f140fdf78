from __future__ import annotations

import io

import pytest
from rich.console import Console

from dtn_det.progress import duration, meter, size


def show(steps, *, terminal: bool, log_seconds: float = 0.0) -> str:
    output = io.StringIO()
    console = Console(file=output, width=120, force_terminal=terminal)
    with meter(console, "Working", 1200, "files", log_seconds) as advance:
        for step in steps:
            advance(step)
    return output.getvalue()


def test_a_log_gets_lines():
    lines = show([300, 900], terminal=False).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Working: 300 of 1,200 files (25%), ")
    assert " files/s, 0:00:00 left" in lines[0]
    assert lines[1].startswith("Working: 1,200 of 1,200 files (100%), ")
    assert "left" not in lines[1]


def test_but_not_too_many():
    assert len(show([1] * 1200, terminal=False, log_seconds=60).splitlines()) == 1


def test_a_terminal_gets_a_bar():
    text = show([300, 900], terminal=True)
    assert "Working" in text
    assert "1200/1200" in text
    assert "files/s" in text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2.5e6, "2.5 MB"), (6.51e13, "65,100.0 GB")],
)
def test_sizes(num_bytes, text):
    assert size(num_bytes) == text


def test_durations():
    assert duration(0.4) == "0:00:00"
    assert duration(90061) == "1 day, 1:01:01"
