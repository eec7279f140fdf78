"""`dtn-det mce`: classifiers under every corruption."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mce`."""
    parser = subparsers.add_parser(
        "mce",
        help="evaluate classifiers under every corruption (mCE, relative mCE)",
        description="Evaluates classifiers on clean images and under 15 corruptions at 5 severities, each image "
        "decoded and corrupted once for all models, and prints errors, CE, mCE and relative mCE. The answers go to a "
        "store; stopped and started again, it continues. Several processes: torchrun --nproc-per-node N -m "
        "dtn_det.cli.main mce ... --launcher pytorch.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="timm:NAME with its pretrained weights, timm:NAME@FILE, timm:NAME@random, CONFIG.py@CHECKPOINT of "
        "mmpretrain, or python:MODULE:FUNCTION, which returns a module that takes RGB in [0, 1], or a module and a "
        "function that prepares its uint8 input",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="clean images, DIR/<wnid>/*.JPEG or DIR/val/<wnid>/*.JPEG, or corrupted ones, "
        "DIR/<corruption>/<severity>/<wnid>/*.JPEG",
    )
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what reports call the models")
    parser.add_argument(
        "--baseline", metavar="NAME", help="what CE is relative to: alexnet or a model's name [alexnet for ImageNet-C]"
    )
    data = parser.add_argument_group("data")
    data.add_argument("--clean", type=Path, metavar="DIR", help="the clean images, where --data has corrupted ones")
    data.add_argument(
        "--classes",
        choices=("imagenet", "folder"),
        help="numbered by ImageNet's wnids or by the sorted names of the folders [imagenet where there are wnids]",
    )
    data.add_argument("--limit", type=int, metavar="N", help="no more than N images, chosen at random, always the same")
    data.add_argument("--limit-seed", type=int, default=0, metavar="N", help="of that choice [%(default)s]")
    data.add_argument(
        "--on-bad-image",
        choices=("fail", "record"),
        default="fail",
        help="stop at a file that cannot be read, or leave it out of every number and say so [%(default)s]",
    )
    how = parser.add_argument_group("corruptions")
    how.add_argument(
        "--corruptions",
        nargs="+",
        metavar="NAME",
        help="names, groups (noise, blur, weather, digital, extra), benchmark or all [benchmark]",
    )
    how.add_argument("--severities", nargs="+", type=int, default=(1, 2, 3, 4, 5), metavar="N", help="[1 2 3 4 5]")
    how.add_argument("--profile", help="imagenet-c, coco-c, cifar-c or tiny-imagenet-c [imagenet-c]")
    how.add_argument("--seed", type=int, default=0, help="of all randomness [%(default)s]")
    how.add_argument("--frost", type=Path, metavar="DIR", help="folder with the original frost textures")
    how.add_argument("--jpeg", action=argparse.BooleanOptionalAction, help="the JPEG step [that of the profile]")
    run = parser.add_argument_group("the run")
    run.add_argument("--workers", type=int, metavar="N", help="processes that load and corrupt images [one a core]")
    run.add_argument("--batch-size", type=int, default=128, metavar="N", help="images of a batch [%(default)s]")
    run.add_argument("--unit-size", type=int, default=64, metavar="N", help="images written together [%(default)s]")
    run.add_argument("--device", help="cpu, cuda:0, ... [a GPU if there is one]")
    run.add_argument("--amp", action="store_true", help="mixed precision")
    run.add_argument("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none", help="[%(default)s]")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det mce`."""
    from dtn_det._optional import require

    for module, extra in (("cv2", "corruptions"), ("numba", "corruptions"), ("pyarrow", "eval"), ("rich", "eval")):
        require(module, extra)
    from rich.console import Console

    from dtn_det.corruptions.selection import select_corruptions, select_severities
    from dtn_det.robustness.classification_data import ClassificationRun
    from dtn_det.robustness.classification_run import run_classification

    workers = args.workers
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for option, value, least in (
        ("workers", workers, 0),
        ("batch-size", args.batch_size, 1),
        ("unit-size", args.unit_size, 1),
    ):
        if value < least:
            raise ValueError(f"expected --{option} to be at least {least}, got {value}")
    values = {key: value for key, value in vars(args).items() if key in ClassificationRun.__dataclass_fields__}
    wanted = ClassificationRun(
        **{
            **values,
            "corruptions": select_corruptions(args.corruptions or ["benchmark"]),
            "severities": select_severities(args.severities),
            "workers": workers,
            "records_bad": args.on_bad_image == "record",
        }
    )
    return 1 if run_classification(wanted, Console(), args.launcher, args.device) else 0
