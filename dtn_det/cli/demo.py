"""`dtn-det demo`: train a tiny DTN detector and its LayerNorm twin, and compare them."""

from __future__ import annotations

import argparse
from pathlib import Path

from dtn_det.cli.sweep_options import output_folder

REQUIRED = (
    ("mmdet", "det"),
    ("cv2", "det"),
    ("pandas", "eval"),
    ("pyarrow", "eval"),
    ("numba", "corruptions"),
    ("scipy", "corruptions"),
    ("matplotlib", "report"),
    ("plotly", "report"),
    ("jinja2", "report"),
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="train a tiny DTN detector and its LayerNorm twin on generated images, and compare them",
        description="Draws a small detection set, trains a tiny DTN-Swin detector and its LayerNorm twin on it through "
        "MMDetection, evaluates both on clean and on corrupted images, and writes a report that compares them. "
        "A few minutes on two cores. Stopped and started again, it continues.",
    )
    parser.add_argument(
        "--out", type=output_folder, default=Path("work_dirs/dtn_demo"), help="folder for everything [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the images and of the training [%(default)s]")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help="continue what is in --out (this is the default)")
    group.add_argument("--fresh", action="store_true", help="delete what an earlier demo left in --out first")
    group.add_argument(
        "--data-only", type=output_folder, metavar="DIR", help="only write the images and annotations to DIR"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a check of the machinery in under a minute: its numbers mean nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det demo`."""
    from rich.console import Console

    from dtn_det.demo.dataset import DatasetSpec
    from dtn_det.demo.plan import Plan
    from dtn_det.demo.run import run_demo, write_data_only

    console = Console()
    if args.quick:
        data = DatasetSpec(seed=args.seed, num_train=16, num_val=8)
        plan = Plan(data=data, max_epochs=2, severities=(3,))
    else:
        plan = Plan(data=DatasetSpec(seed=args.seed))
    if args.data_only is not None:
        write_data_only(args.data_only, plan.data, console)
        return 0
    # Check now for the packages that the last steps need, so that a missing one is reported before the training.
    from dtn_det._optional import require

    for module, extra in REQUIRED:
        require(module, extra)
    run_demo(args.out, plan, console, fresh=args.fresh)
    return 0
