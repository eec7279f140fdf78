"""`dtn-det mce`: evaluate classifiers under every corruption."""

from __future__ import annotations

import argparse
from pathlib import Path

from dtn_det.cli import classifier_options, sweep_options


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mce`."""
    parser = subparsers.add_parser(
        "mce",
        help="evaluate classifiers under every corruption (mCE, relative mCE)",
        description="Evaluates classifiers on clean images and under 15 corruptions at 5 severities, each image "
        "decoded and corrupted once for all models, and prints errors, CE, mCE and relative mCE. The answers go to a "
        "store; stopped and started again, it continues. Several processes: torchrun --nproc-per-node N -m "
        "dtn_det.cli.main mce ... --launcher pytorch. Several sets: `dtn-det evaluate`.",
    )
    classifier_options.add_models(parser, "folder of the results")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="clean images in class folders, DIR/<wnid>/*.JPEG, DIR/val/<wnid>/*.JPEG, DIR/<number or name>/*, or "
        "corrupted ones, DIR/<corruption>/<severity>/<wnid>/*.JPEG or DIR/<corruption>.npy with labels.npy; also a "
        "pair of .npy, CIFAR's own batches, or a Parquet file",
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
        help=classifier_options.CLASSES,
    )
    data.add_argument(
        "--labels", type=Path, metavar="FILE", help="real.json, the Real labels of ImageNet's validation images"
    )
    sweep_options.add_images(data)
    how = parser.add_argument_group("corruptions")
    sweep_options.add_cells(how)
    classifier_options.add_partial(how)
    sweep_options.add_corruptor(how, "imagenet-c", classifier_options.PROFILES)
    sweep_options.add_jpeg(how)
    classifier_options.add_run(parser)


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det mce`."""
    return classifier_options.evaluate(
        args, lambda: (classifier_options.options_of(args),), lambda swept, console: None
    )
