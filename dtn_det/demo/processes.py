"""Start the processes that train and evaluate the models, and follow their progress."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dtn_det.demo.dataset import DatasetSpec
from dtn_det.demo.plan import Layout, Plan

ENVIRONMENT = {
    # One thread each, so that numbers are summed in the same order on every machine.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # No GPU, for the same reason, and because an mmcv built without CUDA could not use it.
    "CUDA_VISIBLE_DEVICES": "",
}
LOG_LINES_SHOWN = 15


@dataclass(frozen=True)
class Progress:
    """How far a stage has come.

    Attributes:
        stage: ``'train'`` or ``'evaluate'``.
        done: Number of iterations or image evaluations done.
        total: Their number in all.
        note: A few words, such as the loss.
    """

    stage: str
    done: int
    total: int
    note: str = ""


Report = Callable[[Progress], None]


def run_models(models: Sequence[str], plan: Plan, layout: Layout, on_progress: Callable[[str, Progress], None]) -> None:
    """Train and evaluate the models at the same time, each in a process of its own.

    Args:
        models: Names of the models.
        plan: The demonstration.
        layout: Its folder.
        on_progress: Called with a model's name and its progress, from the calling thread.

    Raises:
        RuntimeError: A process failed; the message shows the end of its log.
    """
    events: queue.Queue[tuple[str, Progress | None]] = queue.Queue()
    with contextlib.ExitStack() as stack:
        processes = {model: stack.enter_context(_started(model, plan, layout)) for model in models}
        for model, process in processes.items():
            threading.Thread(target=_read, args=(model, process, events), daemon=True).start()
        running = set(models)
        while running:
            model, progress = events.get()
            if progress is not None:
                on_progress(model, progress)
                continue
            running.remove(model)
            if (code := processes[model].wait()) != 0:
                raise RuntimeError(_failure(model, code, layout.log(model)))


@contextlib.contextmanager
def _started(model: str, plan: Plan, layout: Layout) -> Iterator[subprocess.Popen[str]]:
    """Start the process of a model, which does not outlive the block."""
    layout.log(model).parent.mkdir(parents=True, exist_ok=True)
    with layout.log(model).open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dtn_det.demo.worker", encode_job(model, plan, layout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _read(model: str, process: subprocess.Popen[str], events: queue.Queue[tuple[str, Progress | None]]) -> None:
    try:
        if process.stdout is not None:
            for line in process.stdout:
                events.put((model, Progress(**json.loads(line))))
    finally:
        events.put((model, None))


def encode_job(model: str, plan: Plan, layout: Layout) -> str:
    """Return the command-line argument of the process of a model, as JSON."""
    return json.dumps({"model": model, "plan": asdict(plan), "root": str(layout.root)})


def decode_job(text: str) -> tuple[str, Plan, Layout]:
    """Read the argument that :func:`encode_job` has made."""
    job = json.loads(text)
    plan: dict[str, Any] = job["plan"]
    plan["data"] = DatasetSpec(**plan["data"])
    plan["corruptions"], plan["severities"] = tuple(plan["corruptions"]), tuple(plan["severities"])
    return job["model"], Plan(**plan), Layout(Path(job["root"]))


def _failure(model: str, code: int, log: Path) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
    memory = " (out of memory, perhaps)" if code == -9 else ""
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
    return (
        f"the process of model {model!r} {how}{memory}; the same command continues where it stopped. "
        f"The end of {log}:\n{tail}"
    )
