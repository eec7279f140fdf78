"""The demonstration from end to end."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console

from dtn_det.demo.dataset import MANIFEST, SPLITS, DatasetSpec, is_intact, write_dataset
from dtn_det.demo.picture import draw_picture
from dtn_det.demo.plan import CONFIGS, LABELS, Layout, Plan, config_folder, open_folder
from dtn_det.demo.worker import Progress as Step
from dtn_det.demo.worker import evaluated, is_trained, run_models
from dtn_det.errors import InputError
from dtn_det.reports.collect import ReportOptions
from dtn_det.reports.contents import Report
from dtn_det.reports.write import make_report
from dtn_det.system.files import locked
from dtn_det.system.progress import AddStage, Stage, stages

DATASET_ENTRIES = {"annotations", *SPLITS, MANIFEST}
COCO_CONFIG = "configs/dtn_swin/mask-rcnn_dtn-swin-t-p4-w7_fpn_1x_coco.py"


def run_demo(root: Path, plan: Plan, console: Console, *, fresh: bool = False) -> Report:
    """Make the detection set, train both models, evaluate them, and write the comparison.

    Finished work of an earlier call is reused, and an interrupted training continues from its last epoch.

    Raises:
        ValueError: The folder belongs to something else or to other settings, or is in use by another process.
        RuntimeError: A model's process failed.
        ImportError: An extra is missing.
    """
    started = time.monotonic()
    with locked(root, "--out"):
        layout = open_folder(root, plan, fresh=fresh)
        with stages(console) as add_stage:
            prepare_data(layout.data, plan.data, add_stage)
            _train_and_evaluate(plan, layout, add_stage)
            show = add_stage("Drawing boxes", 1)
            draw_picture(layout)
            show(1)
        report = make_report(
            [layout.store(model) for model in ("ln", "dtn")],
            layout.report,
            ReportOptions(seed=plan.data.seed),
            console,
            data=layout.data / "val",
        )
        _summarise(layout, console, time.monotonic() - started)
    return report


def prepare_data(root: Path, spec: DatasetSpec, add_stage: AddStage) -> None:
    """Write the detection set, unless the folder already holds an undamaged copy."""
    total = spec.num_train + spec.num_val
    if is_intact(root, spec):
        add_stage("Drawing the images", total, done=total, note="reused")
        return
    show = add_stage("Drawing the images", total)
    count = itertools.count(1)
    write_dataset(root, spec, lambda: show(next(count)))


def write_data_only(root: Path, spec: DatasetSpec, console: Console) -> None:
    """Write the detection set and nothing else.

    Args:
        root: Folder of the set; created if absent. A set in it is completed or replaced.

    Raises:
        ValueError: The folder holds other files.
    """
    with locked(root, "--data-only"):
        foreign = sorted({path.name for path in root.iterdir()} - DATASET_ENTRIES)
        if foreign:
            raise InputError(
                f"expected --data-only to be empty or a set written earlier, got {root} with {foreign[0]!r} in it: "
                "name another"
            )
        with stages(console) as add_stage:
            prepare_data(root, spec, add_stage)
    console.print(f"{root}: annotations/instances_{{train,val}}.json, train/, val/", soft_wrap=True, highlight=False)


def _train_and_evaluate(plan: Plan, layout: Layout, add_stage: AddStage) -> None:
    total_images = len(plan.cells()) * plan.data.num_val
    shows: dict[tuple[str, str], Stage] = {}
    unfinished = []
    for model in CONFIGS:
        # Only the Runner can compute the number of iterations, because training leaves out images without objects.
        iterations = json.loads(layout.training(model).read_text())["iterations"] if is_trained(layout, model) else None
        done_images = evaluated(layout, model, plan)
        if iterations is None or done_images < total_images:
            unfinished.append(model)
        for stage, done, total, text in (
            ("train", iterations or 0, iterations, f"Training {LABELS[model]}"),
            ("evaluate", done_images, total_images, f"Evaluating {LABELS[model]}"),
        ):
            note = "reused" if done == total else "waiting"
            shows[model, stage] = add_stage(text, total, done=done, note=note)

    def show(model: str, step: Step) -> None:
        shows[model, step.stage](step.done, step.total, step.note)

    run_models(unfinished, plan, layout, show)


def _summarise(layout: Layout, console: Console, seconds: float) -> None:
    console.print(
        "Two tiny detectors, trained for minutes with one seed: this shows that everything works, not which norm wins."
    )
    console.print(f"\nDone in {seconds / 60:.1f} minutes. What lies where:")
    places = {
        "the report, to open in a browser": layout.report / "report.html",
        "boxes on images": layout.picture,
        "the images, in COCO format": layout.data,
        "checkpoints, logs and detections of DTN": layout.model("dtn"),
        "those of LayerNorm": layout.model("ln"),
    }
    for what, path in places.items():
        console.print(f"  {what:40} {os.path.relpath(path)}", soft_wrap=True, highlight=False)
    console.print("\nNext, train on COCO (linked to data/coco, or named with --data-root DIR):")
    console.print(f"  {next_command()}", soft_wrap=True, highlight=False)


def next_command() -> str:
    """Return a command that trains on COCO. It can be run in the current folder, in any environment."""
    executable = Path(sys.executable)
    # Folders are compared, not the targets of links: in each environment `python` may be a link to the same file.
    found = shutil.which("python")
    python = "python" if found and Path(found).parent == executable.parent else _from_here(executable)
    checkout = config_folder().parents[1]
    return shlex.join([python, _from_here(checkout / "tools" / "train.py"), _from_here(checkout / COCO_CONFIG)])


def _from_here(path: Path) -> str:
    """Return a path, in relative form if it lies below the current folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
