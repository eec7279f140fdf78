"""`dtn-det mce`: evaluate classifiers under every corruption."""

from __future__ import annotations

import argparse
from pathlib import Path

from dtn_det._optional import require
from dtn_det.cli import sweep_options


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
        help="timm:NAME with its pretrained weights, timm:NAME@FILE, timm:NAME@random, "
        "timm:local-dir:FOLDER that `dtn-det export` has written, CONFIG.py@CHECKPOINT of "
        "mmpretrain, or python:MODULE:FUNCTION, which returns a module that takes RGB in [0, 1], or a module and a "
        "function that prepares its uint8 input",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="clean images in class folders, DIR/<wnid>/*.JPEG, DIR/val/<wnid>/*.JPEG, DIR/<number or name>/*, or "
        "corrupted ones, DIR/<corruption>/<severity>/<wnid>/*.JPEG or DIR/<corruption>.npy with labels.npy; also a "
        "pair of .npy, CIFAR's own batches, or a Parquet file",
    )
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="folder of the results")
    sweep_options.add_weights(parser)
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what reports call the models")
    parser.add_argument(
        "--baseline", metavar="NAME", help="what CE is relative to: alexnet or a model's name [alexnet for ImageNet-C]"
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--clean",
        type=Path,
        metavar="DIR",
        help="the clean images, where --data has corrupted ones, or ImageNet-R or -A",
    )
    data.add_argument(
        "--classes",
        choices=("imagenet", "folder", "sorted", "natural", "imagenet-r", "imagenet-a"),
        help="numbered by ImageNet's wnids, by the names of the folders (whole numbers from 0 or 1 are the classes, "
        "words are sorted), by the text order of any names as torchvision's ImageFolder does (10 before 2), or by "
        "their natural order as timm does (2 before 10), or the 200 classes of ImageNet-R or -A alone "
        "[imagenet where there are wnids or a thousand numbers, else "
        "folder]",
    )
    data.add_argument(
        "--labels", type=Path, metavar="FILE", help="real.json, the Real labels of ImageNet's validation images"
    )
    sweep_options.add_images(data)
    how = parser.add_argument_group("corruptions")
    sweep_options.add_cells(how)
    how.add_argument(
        "--partial",
        action="store_true",
        help="of a set of corrupted images that lacks corruptions or severities, evaluate those that are there",
    )
    sweep_options.add_corruptor(
        how, "imagenet-c", "imagenet-c, coco-c, cifar-c, tiny-imagenet-c, imagenet-c-bar or cifar-c-bar"
    )
    sweep_options.add_jpeg(how)
    run = parser.add_argument_group("the run")
    sweep_options.add_run(run, batch_size=128, batch="images of a batch", unit_size=64)


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det mce`."""
    from dtn_det.system.processes import interrupts_remembered

    with interrupts_remembered():
        # Report a missing package before the images are listed, which may take minutes.
        for source in args.models:
            if source.startswith("timm:"):
                require("timm", "cls")
            elif ".py@" in source:
                require("mmpretrain", "cls")
        from rich.console import Console

        from dtn_det.reports.sweep_results import print_drop, print_sweep_report, sweep_report
        from dtn_det.robustness.classification.data import twin_options
        from dtn_det.robustness.classification.run import run_classification
        from dtn_det.robustness.options import ClassificationOptions
        from dtn_det.system.files import reporting_file_errors

    values = {key: value for key, value in vars(args).items() if key in ClassificationOptions.__dataclass_fields__}
    options = ClassificationOptions(**{**values, **sweep_options.resolved_numbers(args)})
    with reporting_file_errors():
        console = Console()
        swept = run_classification(options, console)
        if swept is None:
            return 0
        report = sweep_report(swept.store, swept.names, baseline=options.baseline)
        print_sweep_report(console, swept.store, report)
        bad = any(report.bad_images.values())
        twin = twin_options(options, swept.store.manifest.protocol.get("classes", ""))
        if twin is not None and (clean := run_classification(twin, console)) is not None:
            of_clean = sweep_report(clean.store, clean.names)
            print_sweep_report(console, clean.store, of_clean)
            print_drop(console, report, of_clean, swept.store.manifest.recognised["dataset"])
            bad = bad or any(of_clean.bad_images.values())
        return 1 if bad else 0
