"""`dtn-det evaluate`: evaluate classifiers on several sets of images in one run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dtn_det.cli import classifier_options, sweep_options

if TYPE_CHECKING:
    from rich.console import Console

    from dtn_det.robustness.options import ClassificationOptions
    from dtn_det.robustness.sweep import Swept


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `evaluate`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="evaluate classifiers on several sets: ImageNet-C, -C-bar, -3DCC, -R, -A, -V2, -Sketch, CIFAR-10-C, ...",
        description="Evaluates classifiers on several sets of images, one after the other, each in a store of its own "
        "in the folder of --store, as `dtn-det mce` writes it. All sets and models are checked before the first image "
        "is evaluated; stopped and started again, it continues. Where an option takes [NAME=]VALUE, a value with the "
        "name of a set is for this set, and one without a name for all sets that take it.",
    )
    classifier_options.add_models(parser, "folder of the stores: that of the set NAME is DIR/NAME")
    parser.add_argument(
        "--set",
        dest="sets",
        action="append",
        required=True,
        metavar="[NAME=]DIR",
        help="a set of images, once for each: any folder or file that `dtn-det mce --data` takes. Its name is that of "
        "the set that its files tell, such as imagenet-r, or NAME",
    )
    parser.add_argument(
        "--json",
        type=sweep_options.output_file,
        metavar="FILE",
        help="write the main numbers of each model as a flat dictionary, such as imagenet-c/mce, for W&B or MLflow",
    )
    data = parser.add_argument_group("data")
    _per_set(data, "--clean", "DIR", "clean images, for corrupted ones on disk and for ImageNet-R and -A")
    _per_set(data, "--labels", "FILE", "real.json, the Real labels, for ImageNet's validation images")
    _per_set(data, "--classes", "HOW", f"imagenet, folder, sorted or natural: {classifier_options.CLASSES}")
    sweep_options.add_images(data)
    how = parser.add_argument_group("corruptions")
    _per_set(
        how,
        "--corruptions",
        "NAME",
        "corruptions or groups of them, or none for the clean images alone; sets of natural shifts such as ImageNet-R "
        "are corrupted only if they are named [benchmark]",
    )
    sweep_options.add_severities(how)
    classifier_options.add_partial(how)
    _per_set(how, "--profile", "PROFILE", f"{classifier_options.PROFILES}, for clean images [by their size]")
    sweep_options.add_randomness(how)
    sweep_options.add_jpeg(how)
    classifier_options.add_run(parser)


def _per_set(group: argparse._ArgumentGroup, option: str, value: str, text: str) -> None:
    group.add_argument(option, nargs="+", action="extend", default=[], metavar=f"[NAME=]{value}", help=text)


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det evaluate`."""
    if args.baseline == "alexnet":
        # By default AlexNet is the baseline of each set that its published errors fit. For other sets it cannot be one.
        args.baseline = None
    return classifier_options.evaluate(
        args, lambda: _sets(args), lambda swept, console: _overview(args, swept, console)
    )


def _overview(args: argparse.Namespace, swept: Sequence[Swept], console: Console) -> None:
    """Print the overview of all sets in the folder of the stores, and write its numbers if the user wants them."""
    from dtn_det.reports.collect import ReportOptions
    from dtn_det.reports.overview.results import flat_overview, print_overview_of
    from dtn_det.system.files import write_json

    options = ReportOptions(models=swept[0].names, baseline=args.baseline, pairs=(), replicates=0)
    overview = print_overview_of(console, args.store, options)
    if args.json is not None:
        write_json(args.json, flat_overview(overview))


def _sets(args: argparse.Namespace) -> Sequence[ClassificationOptions]:
    from dtn_det.robustness.classification.several import PER_SET, plan_sets

    whole = dict.fromkeys(PER_SET)
    options = classifier_options.options_of(args, data=Path(), **whole)
    return plan_sets(args.sets, options, {option: getattr(args, option) for option in PER_SET})
