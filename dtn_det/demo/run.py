"""The demonstration from end to end."""

from __future__ import annotations

import os
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from dtn_det.demo.dataset import MANIFEST, SPLITS, DatasetSpec, is_intact, write_dataset
from dtn_det.demo.picture import draw_picture
from dtn_det.demo.plan import CONFIGS, LABELS, Layout, Plan, load_config, open_folder
from dtn_det.demo.processes import run_models
from dtn_det.demo.progress import Progress as Step
from dtn_det.demo.report import HEADER, Row, write_report
from dtn_det.demo.worker import is_trained
from dtn_det.files import locked

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("{task.fields[note]}"),
)
DATASET_ENTRIES = {"annotations", *SPLITS, MANIFEST}
COCO_CONFIG = "configs/dtn_swin/mask-rcnn_dtn-swin-t-p4-w7_fpn_1x_coco.py"


def run_demo(root: Path, plan: Plan, console: Console, *, fresh: bool = False) -> tuple[Row, ...]:
    """Make the detection set, train both models, evaluate them, and write the comparison.

    What an earlier call finished is reused, and a training that was interrupted continues from its last epoch.

    Args:
        root: Folder for everything.
        plan: The demonstration.
        console: Where progress and the summary go.
        fresh: Delete what is there and start again.

    Returns:
        The rows of the comparison.

    Raises:
        ValueError: The folder belongs to something else or to other settings, or another process works in it.
        RuntimeError: A model's process failed.
        ImportError: An extra is missing.
    """
    started = time.monotonic()
    with locked(root, "--out"):
        layout = open_folder(root, plan, fresh=fresh)
        with Progress(*COLUMNS, console=console) as bars:
            prepare_data(layout.data, plan.data, bars)
            _train_and_evaluate(plan, layout, bars)
            task = bars.add_task("Writing table and picture", total=2, note="")
            rows = write_report(plan, layout)
            bars.advance(task)
            draw_picture(layout)
            bars.advance(task)
        _summarise(rows, layout, console, time.monotonic() - started)
    return rows


def prepare_data(root: Path, spec: DatasetSpec, bars: Progress) -> None:
    """Write the detection set unless it is there, undamaged."""
    total = spec.num_train + spec.num_val
    task = bars.add_task("Drawing the images", total=total, note="")
    if is_intact(root, spec):
        bars.update(task, completed=total, note="reused")
        return
    write_dataset(root, spec, lambda: bars.advance(task))


def write_data_only(root: Path, spec: DatasetSpec, console: Console) -> None:
    """Write the detection set and nothing else.

    Args:
        root: Folder; made if absent. A set in it is completed or replaced.
        spec: What to draw.
        console: Where progress goes.

    Raises:
        ValueError: The folder holds other files.
    """
    with locked(root, "--data-only"):
        foreign = sorted({path.name for path in root.iterdir()} - DATASET_ENTRIES)
        if foreign:
            raise ValueError(
                f"expected --data-only to be empty or a set written earlier, got {root} with {foreign[0]!r} in it: "
                "name another"
            )
        with Progress(*COLUMNS, console=console) as bars:
            prepare_data(root, spec, bars)
    console.print(f"{root}: annotations/instances_{{train,val}}.json, train/, val/", soft_wrap=True, highlight=False)


def _train_and_evaluate(plan: Plan, layout: Layout, bars: Progress) -> None:
    cells = plan.cells()
    tasks: dict[tuple[str, str], TaskID] = {}
    unfinished = []
    for model in CONFIGS:
        trained = is_trained(layout, model)
        done = sum(layout.is_evaluated(model, cell) for cell in cells)
        iterations = _iterations(model, plan)
        if not trained or done < len(cells):
            unfinished.append(model)
        for stage, completed, total, text in (
            ("train", iterations if trained else 0, iterations, f"Training {LABELS[model]}"),
            ("evaluate", done, len(cells), f"Evaluating {LABELS[model]}"),
        ):
            reused = completed == total
            note = "reused" if reused else "waiting"
            tasks[model, stage] = bars.add_task(text, start=reused, total=total, completed=completed, note=note)

    def show(model: str, step: Step) -> None:
        task = tasks[model, step.stage]
        bars.start_task(task)
        bars.update(task, completed=step.done, total=step.total, note=step.note)

    run_models(unfinished, plan, layout, show)


def _iterations(model: str, plan: Plan) -> int:
    cfg = load_config(model)
    epochs = plan.max_epochs or cfg.train_cfg.max_epochs
    return int(-(-plan.data.num_train // cfg.train_dataloader.batch_size) * epochs)


def _summarise(rows: tuple[Row, ...], layout: Layout, console: Console, seconds: float) -> None:
    table = Table(title="Box AP in percent", title_justify="left")
    for name in HEADER:
        table.add_column(name, justify="left" if name == HEADER[0] else "right")
    for row in rows:
        table.add_row(*row.texts())
    console.print(table)
    console.print(
        "Two tiny detectors, trained for minutes with one seed: this shows that everything works, not which norm wins."
    )
    console.print(f"\nDone in {seconds / 60:.1f} minutes. What lies where:")
    places = {
        "the comparison": layout.table,
        "the same for programs": layout.csv,
        "boxes on images": layout.picture,
        "the images, in COCO format": layout.data,
        "checkpoints and logs of DTN": layout.model("dtn"),
        "checkpoints and logs of LayerNorm": layout.model("ln"),
    }
    for what, path in places.items():
        console.print(f"  {what:34} {os.path.relpath(path)}", soft_wrap=True, highlight=False)
    console.print("\nNext, train on COCO (linked to data/coco):")
    console.print(f"  python tools/train.py {COCO_CONFIG}", soft_wrap=True, highlight=False)
