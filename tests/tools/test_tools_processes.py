"""The tools as commands: two processes, a run that is killed and continued, MMDetection's own tools, mim."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from ranks import run_ranks, start_ranks
from tiny_coco import NUM_IMAGES, tiny_config
from warm_python import WarmPython

from dtn_det.training import launch

ROOT = Path(__file__).resolve().parents[2]
RETINANET = "retinanet_dtn-pvtv2-b0_fpn_1x_coco"
BATCH = 2
TIMEOUT = 300


@pytest.fixture
def config(tmp_path: Path, coco: Path) -> str:
    cfg = tiny_config(RETINANET)
    launch.set_data_root(cfg, str(coco))
    path = tmp_path / "config.py"
    cfg.dump(str(path))
    return str(path)


def environment() -> dict[str, str]:
    """With this interpreter first on the path, one thread a process, and a port that no other run holds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {"PATH": path, "PYTHONPATH": str(ROOT), "PORT": str(port), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **settings, "CUDA_VISIBLE_DEVICES": ""}


def run(*command: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def trained_iterations(log: str) -> list[tuple[int, int]]:
    """`(epoch, iteration)` of each line of training."""
    return [(int(epoch), int(step)) for epoch, step in re.findall(r"Epoch\(train\) +\[(\d+)\]\[ *(\d+)/", log)]


def killed_at(last: Path, text: str, processes: list[subprocess.Popen[bytes]], log: Path) -> None:
    """Kill the processes of a run as soon as a file holds a text."""
    try:
        deadline = time.monotonic() + TIMEOUT
        while not (last.is_file() and text in last.read_text()):
            assert all(process.poll() is None for process in processes), log.read_text()[-4000:]
            assert time.monotonic() < deadline, f"no {text} in {last.name}"
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def family(pid: int) -> list[int]:
    """A process and all its descendants: torchrun starts its workers in sessions of their own."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    return [pid, *(member for child in children for member in family(child))]


def test_killed_run_of_two_processes_continues_where_it_was(
    config: str, tmp_path: Path, warm_mmdet: WarmPython
) -> None:
    """The processes are those of `tools/dist_train.sh`, whose command `test_shell_tools.py` knows."""
    work_dir = tmp_path / "work"
    command = ["tools/train.py", config, "--launcher", "pytorch", "--work-dir", str(work_dir), "--cfg-options"]
    per_epoch = NUM_IMAGES // BATCH // 2
    last = work_dir / "last_checkpoint"

    # Far more epochs than will pass, so that the run is busy when it is killed.
    never = ["train_cfg.max_epochs=1000", "train_cfg.val_interval=1000", "env_cfg.dist_cfg.backend=gloo"]
    with (tmp_path / "killed.log").open("w") as log:
        ranks = start_ranks(warm_mmdet, [*command, *never], cwd=ROOT, env=environment(), stdout=log, stderr=log)
        killed_at(last, "epoch_2", ranks, tmp_path / "killed.log")

    epoch = int(re.search(r"epoch_(\d+)\.pth", last.read_text())[1])
    end = [f"train_cfg.max_epochs={epoch + 1}", f"train_cfg.val_interval={epoch + 1}"]
    arguments = [*command, *end, "env_cfg.dist_cfg.backend=gloo", "--resume"]
    log, _ = run_ranks(warm_mmdet, arguments, cwd=ROOT, env=environment())
    assert f"resumed epoch: {epoch}, iter: {epoch * per_epoch}" in log
    assert trained_iterations(log) == [(epoch + 1, step + 1) for step in range(per_epoch)]
    assert (work_dir / f"epoch_{epoch + 1}.pth").is_file()
    assert "coco/bbox_mAP:" in log


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes to interrupt in /proc")
def test_interrupted_run_says_how_to_continue(
    processes: int, config: str, tmp_path: Path, warm_mmdet: WarmPython
) -> None:
    work_dir, log = tmp_path / "work", tmp_path / "log.txt"
    start, command = warm_mmdet.popen, ["tools/train.py", config]
    if processes > 1:
        start, command = subprocess.Popen, ["bash", "tools/dist_train.sh", config, str(processes)]
    command += ["--work-dir", str(work_dir), "--cfg-options"]
    command += ["train_cfg.max_epochs=1000", "train_cfg.val_interval=1000", "env_cfg.dist_cfg.backend=gloo"]
    last = work_dir / "last_checkpoint"
    with log.open("w") as stream:
        process = start(command, cwd=ROOT, env=environment(), stdout=stream, stderr=stream, start_new_session=True)
        try:
            deadline = time.monotonic() + TIMEOUT
            while not (last.is_file() and last.read_text().strip()):
                assert process.poll() is None, log.read_text()[-4000:]
                assert time.monotonic() < deadline, "no checkpoint"
                time.sleep(0.05)
            # A terminal interrupts the whole group; the workers of torchrun are in others, and told by it.
            os.killpg(process.pid, signal.SIGINT)
            code = process.wait(timeout=90)
        finally:
            for pid in family(process.pid) if process.poll() is None else []:
                os.kill(pid, signal.SIGKILL)
    text = log.read_text()
    assert "expected the last scheduler (MultiStepLR) to end at max_epochs=1000, got end=12: add --cfg-options" in text
    (line,) = [line for line in text.splitlines() if line.startswith("interrupted ")]
    assert re.fullmatch(
        r"interrupted at epoch \d+, iteration \d+; continue from epoch_\d+\.pth with the same command and --resume",
        line,
    )
    if processes == 1:
        assert code == 130
        assert "Traceback" not in text


@pytest.mark.slow
def test_two_processes_share_the_test_set(config: str, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    register_all_modules()
    torch.save(MODELS.build(Config.fromfile(config).model).state_dict(), weights)
    log = run("bash", "tools/dist_test.sh", config, str(weights), "2", "--work-dir", str(tmp_path / "work"))
    assert f"Epoch(test) [{NUM_IMAGES // 2}/{NUM_IMAGES // 2}]" in log
    assert "coco/bbox_mAP:" in log


def test_mmdetections_own_tools_read_the_configs(config: str, tmp_path: Path, warm_libraries: WarmPython) -> None:
    """Training and testing one after the other in one process, which has nothing of ours but what the config names."""
    options = ["--work-dir", str(tmp_path), "--cfg-options", "train_cfg.max_epochs=1"]
    code = (
        "import json, runpy, sys\n"
        "for sys.argv in json.loads(sys.argv[1]):\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    tools = Path(mmdet.__file__).parent / ".mim" / "tools"
    train = [str(tools / "train.py"), config, *options]
    test = [str(tools / "test.py"), config, str(tmp_path / "epoch_1.pth"), *options, "visualizer.name=testing"]
    done = warm_libraries.run(
        ["-c", code, json.dumps([train, test])], cwd=ROOT, env=environment(), stderr=subprocess.STDOUT
    )
    log = done.stdout
    assert done.returncode == 0, log[-4000:]
    assert trained_iterations(log) == [(1, step + 1) for step in range(NUM_IMAGES // BATCH)]
    assert "coco/bbox_mAP:" in log[log.index("Load checkpoint from") :]


@pytest.mark.slow
def test_mim_reads_the_configs(config: str, tmp_path: Path) -> None:
    if shutil.which("mim", path=environment()["PATH"]) is None:
        pytest.skip("mim is not installed")
    train, test = (["mim", verb, "onedl-mmdetection"] for verb in ("train", "test"))
    options = ["--work-dir", str(tmp_path), "--cfg-options", "train_cfg.max_epochs=1"]
    log = run(*train, config, *options)
    assert trained_iterations(log) == [(1, step + 1) for step in range(NUM_IMAGES // BATCH)]
    assert "coco/bbox_mAP:" in run(*test, config, "--checkpoint", str(tmp_path / "epoch_1.pth"), *options)
