"""`dtn-det check`: identify folders and files, and check whether they fit a model, without running the model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `check`."""
    parser = subparsers.add_parser(
        "check",
        help="say what a data folder, annotation file, checkpoint or store is, and whether it fits a model",
        description="Says what each path is, what a command would leave out of it or decide about it, and whether it "
        "fits a model, without running anything. Exits with 1 where a command would stop or the model does not fit.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="DIR_OR_FILE",
        help="folder of images, COCO data set, annotation file, checkpoint or store",
    )
    parser.add_argument(
        "--config",
        metavar="CONFIG",
        help="what the paths must fit: a config of MMDetection or mmpretrain, or a model of timm "
        "as `dtn-det mce` takes it: timm:NAME, timm:NAME@FILE, timm:local-dir:FOLDER",
    )
    parser.add_argument(
        "--classes",
        choices=("imagenet", "folder", "sorted", "natural"),
        help="how class folders are numbered, as of `dtn-det mce` [what their names tell]",
    )
    parser.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help="values that replace those of the config")
    parser.add_argument("--json", action="store_true", help="print the results as a JSON list")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det check`."""
    import contextlib
    import sys

    from dtn_det.check import inspect_paths
    from dtn_det.check.model import read_target
    from dtn_det.training.config import parse_options

    # Libraries print while they load; standard output is for the results only.
    with contextlib.redirect_stdout(sys.stderr):
        target = None
        if args.config is not None:
            target = read_target(args.config, options=parse_options(args.cfg_options))
        results = inspect_paths(args.paths, target, args.classes)
    if args.json:
        print(json.dumps([result.to_dict() for result in results], indent=2))
    else:
        print("\n".join(line for result in results for line in result.lines()))
    return 0 if all(result.is_good for result in results) else 1
