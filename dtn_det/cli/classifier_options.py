"""Shared by `mce` and `evaluate`: options, and the run that evaluates classifiers and prints the results."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.cli import sweep_options

if TYPE_CHECKING:
    from rich.console import Console

    from dtn_det.robustness.options import ClassificationOptions
    from dtn_det.robustness.sweep import Swept

CLASSES = (
    "numbered by ImageNet's wnids, by the names of the folders (whole numbers from 0 or 1 are the classes, words are "
    "sorted), by the text order of any names as torchvision's ImageFolder does (10 before 2), or by their natural "
    "order as timm does (2 before 10), or the 200 classes of ImageNet-R or -A alone [imagenet where there are wnids or "
    "a thousand numbers, else folder]"
)
PROFILES = "imagenet-c, coco-c, cifar-c, tiny-imagenet-c, imagenet-c-bar or cifar-c-bar"


def add_models(parser: argparse.ArgumentParser, store: str) -> None:
    """Add the models, `--store`, `--weights`, `--names` and `--baseline`.

    Args:
        store: Help text of `--store`.
    """
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="timm:NAME with its pretrained weights, timm:NAME@FILE, timm:NAME@random, "
        "timm:local-dir:FOLDER that `dtn-det export` has written, hf:FOLDER or hf:NAME of transformers' image "
        "classifiers, CONFIG.py@CHECKPOINT of "
        "mmpretrain, or python:MODULE:FUNCTION, which returns a module that takes RGB in [0, 1], or a module and a "
        "function that prepares its uint8 input",
    )
    parser.add_argument("--store", type=sweep_options.output_folder, required=True, metavar="DIR", help=store)
    sweep_options.add_weights(parser)
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what reports call the models")
    parser.add_argument(
        "--baseline", metavar="NAME", help="what CE is relative to: alexnet or a model's name [alexnet for ImageNet-C]"
    )


def add_partial(group: argparse._ArgumentGroup) -> None:
    """Add `--partial`."""
    group.add_argument(
        "--partial",
        action="store_true",
        help="of a set of corrupted images that lacks corruptions or severities, evaluate those that are there",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options on how to run: device, batch size and the like, without models and data."""
    sweep_options.add_order(parser.add_argument_group("the order"))
    run = parser.add_argument_group("the run")
    sweep_options.add_run(run, batch_size=128, batch="images of a batch", unit_size=64)


def options_of(args: argparse.Namespace, **values: Any) -> ClassificationOptions:
    """Build the options of a run from the arguments of the same names.

    Args:
        values: Options that replace the values of arguments.
    """
    from dtn_det.robustness.options import ClassificationOptions

    given = {key: value for key, value in vars(args).items() if key in ClassificationOptions.__dataclass_fields__}
    return ClassificationOptions(**{**given, **sweep_options.resolved_numbers(args), **values})


def evaluate(
    args: argparse.Namespace,
    sets: Callable[[], Sequence[ClassificationOptions]],
    after: Callable[[Sequence[Swept], Console], None] = lambda swept, console: None,
) -> int:
    """Evaluate classifiers on sets, and print the results of each set.

    Args:
        sets: Returns the options of each set. It is called after a check for the packages that the models need.
        after: Called in the first process with all sets when they are evaluated.

    Returns:
        The exit code: 1 if an image could not be read and was left out, else 0.
    """
    from dtn_det.system.processes import interrupts_remembered

    with interrupts_remembered():
        # Report a missing package before the images are listed, which may take minutes.
        for source in args.models:
            if source.startswith("timm:"):
                require("timm", "cls")
            elif ".py@" in source:
                require("mmpretrain", "cls")
        from rich.console import Console

        from dtn_det.reports.sweep_results import SweepPrinter
        from dtn_det.robustness.classification.run import run_classification
        from dtn_det.system.files import reporting_file_errors

    with reporting_file_errors():
        console = Console()
        printer = SweepPrinter(console, args.baseline)
        run_classification(sets(), console, printer)
        if printer.swept:
            after(printer.swept, console)
    return 1 if printer.left_out else 0
