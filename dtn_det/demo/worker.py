"""Training and evaluation of the models, each in a separate process that :func:`run_models` starts and watches.

A process has one thread, so that both models run at once and results do not depend on the number of cores. It reports
to its parent in lines of JSON on its standard output. It ends when its standard input is closed, as happens whenever
the parent ends, even if the parent is killed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

from dtn_det.checkpoints.files import is_whole
from dtn_det.demo.dataset import DatasetSpec
from dtn_det.demo.plan import CONFIGS, LABELS, Layout, Plan, config_folder, load_config
from dtn_det.robustness.store import Store
from dtn_det.system.files import write_json

if TYPE_CHECKING:
    from mmengine.config import Config

ENVIRONMENT = {
    # One thread per process, so that numbers are summed in the same order on every machine.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # No GPU, because it could sum numbers in another order, and because an mmcv built without CUDA could not use it.
    "CUDA_VISIBLE_DEVICES": "",
}
LOG_LINES_SHOWN = 15


@dataclass(frozen=True)
class Progress:
    """The progress of a stage.

    Attributes:
        stage: ``'train'`` or ``'evaluate'``.
        done: Number of iterations or image evaluations done.
        note: Short text to show, such as the loss.
    """

    stage: str
    done: int
    total: int
    note: str = ""


Report = Callable[[Progress], None]


def run_models(models: Sequence[str], plan: Plan, layout: Layout, on_progress: Callable[[str, Progress], None]) -> None:
    """Train and evaluate the models at the same time, each in a separate process.

    Args:
        on_progress: Called in the calling thread with a model's name and its progress.

    Raises:
        RuntimeError: A process failed. The message contains the end of its log.
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
    """Start the process of a model, and stop the process at the end of the block."""
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
    """Return the command-line argument of a model's process, as JSON."""
    return json.dumps({"model": model, "plan": asdict(plan), "root": str(layout.root)})


def decode_job(text: str) -> tuple[str, Plan, Layout]:
    """Decode the command-line argument that :func:`encode_job` returned."""
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


def run_job(model: str, plan: Plan, layout: Layout, report: Report) -> None:
    """Train and evaluate a model, skipping finished work.

    Args:
        layout: Folder of the demonstration, with the detection set.
    """
    cfg = prepare_config(model, plan, layout)
    if not is_trained(layout, model):
        train(cfg, layout, model, report)
    evaluate(plan, layout, model, report)


def prepare_config(model: str, plan: Plan, layout: Layout) -> Config:
    """Return the model's config with the plan's paths, seed and number of epochs."""
    from dtn_det.training import launch

    cfg = load_config(model)
    launch.set_data_root(cfg, str(layout.data))
    cfg.work_dir = str(layout.model(model))
    cfg.randomness = {"seed": plan.data.seed}
    if plan.max_epochs is not None:
        cfg.train_cfg.max_epochs = plan.max_epochs
        cfg.train_cfg.val_interval = plan.max_epochs
    return cfg


def is_trained(layout: Layout, model: str) -> bool:
    """Return whether the training has ended and its checkpoint exists."""
    return layout.training(model).is_file() and _last_checkpoint(layout.model(model)) is not None


def train(cfg: Config, layout: Layout, model: str, report: Report) -> None:
    """Train with MMEngine's Runner, continuing from the last checkpoint if there is one."""
    checkpoint = _last_checkpoint(layout.model(model))
    if checkpoint is not None:
        cfg.load_from, cfg.resume = str(checkpoint), True
    # No validation here, because the evaluation after the training includes clean images.
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = Runner.from_cfg(cfg)
    runner.register_hook(ReseedHook(cfg.randomness["seed"]))
    runner.register_hook(ProgressHook(report))
    runner.train()
    write_json(layout.training(model), {"epochs": runner.max_epochs, "iterations": runner.max_iters})


def evaluate(plan: Plan, layout: Layout, model: str, report: Report) -> None:
    """Evaluate the images that the model's store lacks, as `dtn-det mpc` does."""
    import torch
    from rich.console import Console

    from dtn_det.robustness.detection.run import prepare_detection
    from dtn_det.robustness.options import DetectionOptions, DetectorSource
    from dtn_det.robustness.sweep import Rank, run_sweep

    corruptor, cells = plan.corruptor, plan.cells()
    options = DetectionOptions(
        models=[
            DetectorSource(
                str(config_folder() / CONFIGS[model]), str(_last_checkpoint(layout.model(model))), LABELS[model]
            )
        ],
        store=layout.store(model),
        data_root=str(layout.data),
        corruptions=plan.corruptions,
        severities=plan.severities,
        profile=corruptor.profile,
        seed=corruptor.seed,
    )
    (store,), task = prepare_detection(options, Rank(), torch.device("cpu"), Console(stderr=True))
    total = len(cells) * plan.data.num_val
    done = itertools.count(evaluated(layout, model, plan) + len(cells), len(cells))

    def on_image(count: int) -> None:
        report(Progress("evaluate", next(done), total))

    run_sweep(store.store, [store], replace(task, on_image=on_image), workers=0)


def evaluated(layout: Layout, model: str, plan: Plan) -> int:
    """Return the number of evaluations in the model's store, each of one image under one condition."""
    if not (layout.store(model) / "store.json").is_file():
        return 0
    store = Store.open(layout.store(model))
    found = store.models().get(LABELS[model])
    finished = found.finished() if found else ()
    return sum(len(store.manifest.unit(number)) for number in finished) * len(plan.cells())


def _last_checkpoint(folder: Path) -> Path | None:
    """Return the complete checkpoint of the latest epoch; None if no checkpoint is complete."""
    found = sorted(folder.glob("epoch_*.pth"), key=lambda path: int(path.stem.removeprefix("epoch_")))
    return next((path for path in reversed(found) if is_whole(path)), None)


class ReseedHook(Hook):  # type: ignore[misc]
    """Seeds all random generators at the start of each epoch.

    So a training that was killed and resumed draws the same random numbers as an uninterrupted one.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_epoch(self, runner: Any) -> None:
        """Seed all random generators from the run's seed and the epoch."""
        set_random_seed((self.seed * 1000 + runner.epoch) % 2**32)


class ProgressHook(Hook):  # type: ignore[misc]
    """Reports each iteration."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Report the iteration and its loss."""
        loss = f"loss {float(outputs['loss']):.2f}" if outputs else ""
        self.report(Progress("train", runner.iter + 1, runner.max_iters, loss))


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Run the job that the arguments of the process describe."""
    # Reports are written to a copy of the standard output. The standard output itself is redirected to the log, because
    # libraries print to it.
    with os.fdopen(os.dup(1), "w", buffering=1) as channel:
        os.dup2(2, 1)
        threading.Thread(target=_die_with_parent, daemon=True).start()
        run_job(*decode_job(sys.argv[1]), lambda progress: print(json.dumps(asdict(progress)), file=channel))


if __name__ == "__main__":
    main()
