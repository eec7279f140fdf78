"""`dtn-det mpc` killed at any moment, within a commit too: what it goes on to is what a run without a kill gives."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("mmdet", reason="detectors need MMDetection")

from dtn_det.cli.main import main

FEW = ("--corruptions", "fog", "jpeg_compression", "--severities", "1", "3", "--unit-size", "1", "--device", "cpu")
IMAGES = 5
KILL_SECONDS = 120
# A run that kills itself in its n-th commit: on the way to the disk, before the file has its name, or just after.
DIES_IN_COMMIT = """
import os, signal, sys
from dtn_det.system import files
from dtn_det.cli.main import main

number, moment = int(sys.argv[1]), sys.argv[2]
fsync, replace = os.fsync, os.replace
written = 0

def die():
    os.killpg(0, signal.SIGKILL)

def short_fsync(descriptor):
    if is_last() and moment == "half":
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        die()
    fsync(descriptor)

def short_replace(source, target):
    global written
    if "unit-" in target.name and is_last() and moment == "before":
        die()
    replace(source, target)
    if "unit-" in target.name:
        written += 1
        if written == number and moment == "after":
            die()

def is_last():
    return written == number - 1 and any(units.glob("*/model.json"))

units = files.Path(sys.argv[sys.argv.index("--store") + 1]) / "models"
os.fsync, os.replace = short_fsync, short_replace
sys.exit(main(sys.argv[3:]))
"""


def arguments(detector: tuple[str, str], folder: Path, workers: int) -> list[str]:
    return ["mpc", *detector, "--store", str(folder), *FEW, "--workers", str(workers)]


def started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def units(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("models/*/unit-*.parquet")}


def killed_from_outside(detector: tuple[str, str], folder: Path, draw: random.Random) -> int:
    with started(["-m", "dtn_det.cli.main", *arguments(detector, folder, workers=1)]) as process:
        deadline = time.monotonic() + KILL_SECONDS
        while not units(folder) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
    return process.returncode


def killed_in_commit(detector: tuple[str, str], folder: Path, draw: random.Random) -> int:
    moment = [str(draw.randint(1, IMAGES)), draw.choice(["half", "before", "after"])]
    with started(["-c", DIES_IN_COMMIT, *moment, *arguments(detector, folder, workers=0)]) as process:
        return process.wait(KILL_SECONDS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_and_resumes_give_the_tables_of_a_run_without_any(
    detector: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def table(folder: Path) -> str:
        capsys.readouterr()
        assert main(arguments(detector, folder, workers=0)) == 0
        return capsys.readouterr().out

    straight = table(tmp_path / "straight")
    wanted = units(tmp_path / "straight")
    assert len(wanted) == IMAGES
    draw = random.Random(0)
    folder = tmp_path / "killed"
    cut, halves = 0, 0
    for number in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        kill = killed_in_commit if number % 2 else killed_from_outside
        assert kill(detector, folder, draw) == -signal.SIGKILL
        left = units(folder)
        assert left.items() <= wanted.items()
        cut += len(left) < IMAGES
        halves += bool(list(folder.rglob(".*.tmp")))
        assert table(folder) == straight
        assert units(folder) == wanted
        assert not list(folder.rglob(".*"))
    assert cut >= 10  # most kills left something to do
    assert halves >= 3  # and some a file that was not finished
