"""Sweeps that are killed, and sweeps of several processes: the tables of one that ran through."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from class_folders import write_folders
from ranks import run_ranks
from warm_python import WarmPython

from dtn_det.cli.main import main
from dtn_det.reports.sweep_results import sweep_report
from dtn_det.robustness.store import Store

MODEL = """
import torch

class Colours(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 5, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(3), torch.nn.Flatten(),
            torch.nn.Linear(72, 4),
        )

    def forward(self, images):
        return self.layers(images)

def colours():
    torch.manual_seed(0)
    return Colours()
"""
KILL_SECONDS = 120


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "little_model.py").write_text(MODEL)
    write_folders(tmp_path / "data", ("ant", "bee", "cat", "dog"), per_class=6, side=32)
    return tmp_path


def command(store: str, *options: str) -> list[str]:
    arguments = ["mce", "python:little_model:colours", "--data", "data", "--store", store, "--profile", "cifar-c"]
    arguments += ["--corruptions", "gaussian_noise", "fog", "--unit-size", "1", "--device", "cpu", "--batch-size", "4"]
    return [*arguments, "--baseline", "colours", *options]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a sweep in this process, on one thread as the processes that are started; its tables."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delitem(sys.modules, "little_model", raising=False)

    def straight(store: str, *options: str) -> str:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            assert main(command(store, "--workers", "0", *options)) == 0
        finally:
            torch.set_num_threads(before)
        return table(capsys.readouterr().out)

    return straight


def table(out: str) -> str:
    return out[out.index("Classification: summary") :]


def rows(store: Path) -> list[dict[str, object]]:
    return [row for unit in Store.open(store).model("colours").batches() for row in unit.to_pylist()]


@pytest.fixture
def warm(warm_python: WarmPython) -> WarmPython:
    return warm_python.load("dtn_det.robustness.classification.run", "dtn_det.reports.sweep_results")


def killed(warm: WarmPython, folder: Path, store: str, seconds: float) -> int:
    """Start a run and kill it some time after it began to write; the units that it has finished."""
    process = warm.popen(
        ["-m", "dtn_det.cli.main", *command(store, "--workers", "0")],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    units = folder / store / "models" / "colours"
    before = len(list(units.glob("unit-*")))
    deadline = time.monotonic() + KILL_SECONDS
    # Until it has written something of its own, so that each kill meets the loop and not the imports: a whole unit
    # first, later the beginning of one.
    pattern = "*unit-*" if before else "unit-*"
    while len(list(units.glob(pattern))) == before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):  # it may have come to its end
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return len(list(units.glob("unit-*")))


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_table(
    folder: Path, run: Callable[..., str], warm: WarmPython, kills: int
) -> None:
    straight = run("straight")
    draw = random.Random(kills)
    finished = []
    for _ in range(kills):
        finished.append(killed(warm, folder, "killed", draw.uniform(0, 0.02 if kills > 2 else 0.06)))
    assert finished == sorted(finished)
    assert 0 < finished[0] < 24
    assert run("killed") == straight
    assert rows(folder / "killed") == rows(folder / "straight")
    assert not list((folder / "killed").rglob(".*"))


def test_two_processes_give_the_table_of_one(folder: Path, run: Callable[..., str], warm: WarmPython) -> None:
    straight = run("one")
    arguments = ["-m", "dtn_det.cli.main", *command("two", "--workers", "0", "--launcher", "pytorch")]
    first, other = run_ranks(warm, arguments, cwd=folder, env=environment())
    assert "process 1 of 2" in first
    assert table(first) == straight
    assert "summary" not in other
    assert rows(folder / "two") == rows(folder / "one")
    assert Store.open(folder / "two").model("colours").pending() == []


@pytest.mark.slow
def test_torchrun_and_workers_give_the_table_of_one_process(folder: Path, run: Callable[..., str]) -> None:
    straight = run("one")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launched = subprocess.run(
        [*launcher, "-m", "dtn_det.cli.main", *command("two", "--workers", "1", "--launcher", "pytorch")],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    assert "process 1 of 2" in launched.stdout
    assert table(launched.stdout) == straight
    assert rows(folder / "two") == rows(folder / "one")
    assert Store.open(folder / "two").model("colours").pending() == []


def test_the_estimate_before_the_end_says_so_and_the_end_does_not(folder: Path, run: Callable[..., str]) -> None:
    run("straight", "--limit", "6")
    store = Store.open(folder / "straight")
    (store.model("colours").folder / "unit-000003.parquet").unlink()
    (unfinished,) = sweep_report(store, ["colours"], baseline="colours").models
    assert "5 of 6 units of images" in unfinished.partial


PEAK = """
import resource, sys
from dtn_det.cli.main import main
code = main(sys.argv[1:])
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(folder: Path) -> None:
    peaks = []
    for count in (1000, 10000):
        data = folder / f"data{count}"
        write_folders(data, ("ant", "bee", "cat", "dog"), per_class=1, side=32)
        for path in list(data.rglob("*.png")):
            for number in range(1, count // 4):
                path.with_name(f"image_{number}.png").hardlink_to(path)
        arguments = ["mce", "python:little_model:colours", "--data", data.name, "--store", f"store{count}"]
        arguments += ["--profile", "cifar-c", "--corruptions", "contrast", "--severities", "1", "--workers", "0"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *arguments, "--device", "cpu"],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.rpartition("PEAK")[2]))
    assert peaks[1] < 1.1 * peaks[0], peaks
