"""The shell scripts hand on their arguments and environment; stand-ins for `python` and `srun` print what they get."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stand_ins(tmp_path: Path) -> dict[str, str]:
    for name in ("python", "srun"):
        script = tmp_path / name
        script.write_text('#!/bin/sh\nprintf "%s\\n" "$PYTHONPATH" "$@"\n')
        script.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def call(script: str, *arguments: str, env: dict[str, str]) -> list[str]:
    done = subprocess.run(["bash", f"tools/{script}", *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("script", ["dist_train.sh", "dist_test.sh", "slurm_train.sh", "slurm_test.sh"])
def test_too_few_arguments_print_the_usage(script: str) -> None:
    done = subprocess.run(["bash", f"tools/{script}", "config.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: tools/{script} ")


def test_dist_train_starts_one_process_per_gpu(stand_ins: dict[str, str]) -> None:
    path, *arguments = call("dist_train.sh", "a b.py", "8", "--cfg-options", "x=[1, 2]", env=stand_ins)
    assert path.split(":")[0] == f"{ROOT}/tools/.."
    assert arguments == [
        *("-m", "torch.distributed.run", "--nnodes=1", "--node_rank=0", "--master_addr=127.0.0.1"),
        *("--master_port=29500", "--nproc_per_node=8", f"{ROOT}/tools/train.py", "a b.py"),
        *("--launcher", "pytorch", "--cfg-options", "x=[1, 2]"),
    ]


def test_dist_test_spans_several_machines(stand_ins: dict[str, str]) -> None:
    env = {**stand_ins, "NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "PORT": "1234"}
    arguments = call("dist_test.sh", "a.py", "a.pth", "4", "--out", "a.pkl", env=env)[1:]
    assert arguments == [
        *("-m", "torch.distributed.run", "--nnodes=2", "--node_rank=1", "--master_addr=10.0.0.1"),
        *("--master_port=1234", "--nproc_per_node=4", f"{ROOT}/tools/test.py", "a.py", "a.pth"),
        *("--launcher", "pytorch", "--out", "a.pkl"),
    ]


def test_slurm_train_asks_for_the_gpus(stand_ins: dict[str, str]) -> None:
    env = {**stand_ins, "GPUS": "16", "SRUN_ARGS": "--time=1:00 --exclusive"}
    arguments = call("slurm_train.sh", "part", "job", "a.py", "work", "--amp", env=env)[1:]
    assert arguments == [
        *("--partition=part", "--job-name=job", "--gres=gpu:8", "--ntasks=16", "--ntasks-per-node=8"),
        *("--cpus-per-task=5", "--kill-on-bad-exit=1", "--time=1:00", "--exclusive", "python", "-u"),
        *(f"{ROOT}/tools/train.py", "a.py", "--work-dir", "work", "--launcher", "slurm", "--amp"),
    ]


def test_slurm_test_takes_a_checkpoint(stand_ins: dict[str, str]) -> None:
    env = {**stand_ins, "GPUS": "1", "GPUS_PER_NODE": "1", "CPUS_PER_TASK": "2"}
    arguments = call("slurm_test.sh", "part", "job", "a b.py", "a.pth", "--cfg-options", "x=[1, 2]", env=env)[1:]
    assert arguments == [
        *("--partition=part", "--job-name=job", "--gres=gpu:1", "--ntasks=1", "--ntasks-per-node=1"),
        *("--cpus-per-task=2", "--kill-on-bad-exit=1", "python", "-u"),
        *(f"{ROOT}/tools/test.py", "a b.py", "a.pth", "--launcher", "slurm", "--cfg-options", "x=[1, 2]"),
    ]


def test_tools_work_from_any_folder(stand_ins: dict[str, str], tmp_path: Path) -> None:
    script = os.path.relpath(ROOT / "tools" / "slurm_train.sh", tmp_path)
    arguments = [script, "part", "job", "a.py", "work"]
    done = subprocess.run(arguments, cwd=tmp_path, env=stand_ins, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path, *rest = done.stdout.splitlines()
    assert path.split(":")[0] == f"{ROOT}/tools/.."
    assert rest[-6:] == [f"{ROOT}/tools/train.py", "a.py", "--work-dir", "work", "--launcher", "slurm"]
