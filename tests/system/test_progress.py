from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from dtn_det.system.progress import duration, meter, size, stages


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


def show_stages(*, terminal: bool, log_seconds: float = 0.0) -> str:
    output = io.StringIO()
    with stages(Console(file=output, width=120, force_terminal=terminal), log_seconds) as add_stage:
        add_stage("Drawing", 500, done=500, note="reused")
        train = add_stage("Training", None, note="waiting")
        evaluate = add_stage("Evaluating", 2, note="waiting")
        for done in (600, 601, 1152):
            train(done, 1152, f"loss {done}")
        evaluate(0, note="clean")
    return output.getvalue()


def test_stages_are_lines_in_a_log():
    lines = show_stages(terminal=False).splitlines()
    assert lines[:2] == [
        "Drawing: 500 of 500 (100%), reused",
        "Training: 600 of 1,152 (52%), loss 600",
    ]
    # The rate is that of this run, not of the 600 steps that an earlier one did.
    assert re.fullmatch(r"Training: 601 of 1,152 \(52%\), loss 601, 0:00:\d\d left", lines[2])
    assert lines[3:] == ["Training: 1,152 of 1,152 (100%), loss 1152", "Evaluating: 0 of 2 (0%), clean"]


def test_the_first_and_last_step_of_a_stage_are_always_logged():
    lines = show_stages(terminal=False, log_seconds=60).splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "Drawing: 500 of 500",
        "Training: 600 of 1,152",
        "Training: 1,152 of 1,152",
        "Evaluating: 0 of 2",
    ]


def test_stages_are_bars_on_a_terminal():
    text = show_stages(terminal=True)
    for part in ("500/500", "1152/1152", "loss 1152", "0/2", "clean"):
        assert part in text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2.5e6, "2.5 MB"), (6.51e13, "65,100.0 GB")],
)
def test_sizes(num_bytes, text):
    assert size(num_bytes) == text


def test_durations():
    assert duration(0.4) == "0:00:00"
    assert duration(90061) == "1 day, 1:01:01"
