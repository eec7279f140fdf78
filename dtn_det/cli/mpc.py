"""`dtn-det mpc`: evaluate detectors under every corruption."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from dtn_det.cli import sweep_options


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mpc`."""
    parser = subparsers.add_parser(
        "mpc",
        help="evaluate detectors under every corruption (mPC, rPC)",
        description="Evaluates detectors on the clean images and under 15 corruptions at 5 severities, each image "
        "loaded and corrupted once for all models, and prints P, mPC and rPC. The detections go to a store; stopped "
        "and started again, it continues. Several processes: torchrun --nproc-per-node N -m dtn_det.cli.main mpc ... "
        "--launcher pytorch.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="CONFIG CHECKPOINT or CONFIG@CHECKPOINT of MMDetection, torchvision:NAME with its pretrained weights, "
        "torchvision:NAME@FILE, hf:FOLDER or hf:NAME of transformers' object detectors, onnx:FILE with final boxes, or "
        "python:MODULE:FUNCTION, which takes a list of RGB images and returns boxes, scores and category_ids for each; "
        "NAME=MODEL names it",
    )
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="folder of the results")
    sweep_options.add_weights(parser)
    parser.add_argument("--names", "--name", nargs="+", metavar="NAME", help="what reports call the models")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data-root", metavar="DIR", help="folder of the COCO data set; of a config, in place of its data_root"
    )
    data.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="a COCO set in place of --data-root, once for each of several: the domains of COCO-O, or their common "
        "folder, COCO itself, and own sets; clean images alone unless --corruptions is given. The store of the set "
        "NAME is that folder in --store",
    )
    data.add_argument("--ann", type=Path, metavar="FILE", help="annotation file [the one in --data-root]")
    data.add_argument("--images", type=Path, metavar="DIR", help="folder of the images [the one that has them]")
    data.add_argument(
        "--category-ids",
        nargs="+",
        default=(),
        metavar="WAY",
        help="what the category ids of models are: dataset (ids of the file), index (its categories from 0), index1 "
        "(from 1), coco91 (COCO's ids) or coco80 (0 to 79); NAME=WAY for one model [by names, or by their number]",
    )
    data.add_argument("--split", choices=("test", "val"), default="test", help="dataloader of the config [%(default)s]")
    sweep_options.add_images(data)
    how = parser.add_argument_group("corruptions")
    sweep_options.add_cells(how)
    sweep_options.add_corruptor(how, "coco-c")
    how.add_argument(
        "--channel-order",
        choices=("rgb", "bgr"),
        default="rgb",
        help="what corruptions see; bgr as in published COCO-C numbers [%(default)s]",
    )
    run = parser.add_argument_group("the run")
    batch = "conditions of an image that the model sees at once"
    sweep_options.add_run(run, batch_size=4, batch=batch, unit_size=16)
    sweep_options.add_evaluator(run)
    run.add_argument("--cfg-options", nargs="+", metavar="KEY=VALUE", help="values that replace those of the config")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det mpc`."""
    from dtn_det.system.processes import interrupts_remembered

    with interrupts_remembered():
        from rich.console import Console

        from dtn_det.reports.collect import ReportOptions
        from dtn_det.reports.overview.results import print_overview_of
        from dtn_det.reports.sweep_results import print_sweep_report, sweep_report
        from dtn_det.robustness.detection.models.loading import parse_sources
        from dtn_det.robustness.detection.run import run_detection
        from dtn_det.robustness.detection.several import plan_detection_sets
        from dtn_det.robustness.options import DetectionOptions
        from dtn_det.system.files import reporting_file_errors
        from dtn_det.system.progress import meter, say

    values = {key: value for key, value in vars(args).items() if key in DetectionOptions.__dataclass_fields__}
    models = parse_sources(args.models, args.names)
    resolved = sweep_options.resolved(args, "none" if args.sets else "benchmark")
    options = DetectionOptions(**{**values, **resolved, "models": models})
    sets = plan_detection_sets(args.sets, options) if args.sets else (options,)
    with reporting_file_errors():
        console = Console()
        # Standard output is for the results only; progress and the output of MMDetection go to standard error.
        with contextlib.redirect_stdout(sys.stderr):
            found = run_detection(sets, console)
        bad = False
        for swept in found:
            with (
                contextlib.redirect_stdout(sys.stderr),
                meter(console, "COCO evaluation", len(swept.store.manifest.cells), "cells") as advance,
            ):
                report = sweep_report(
                    swept.store,
                    swept.names,
                    processes=options.workers,
                    on_cells=advance,
                    evaluator=args.evaluator,
                )
            if args.sets:
                say(console, f"{swept.store.folder.name}:")
            print_sweep_report(console, swept.store, report)
            bad = bad or any(report.bad_images.values())
        if args.sets and found:
            shown = ReportOptions(models=found[0].names, pairs=(), replicates=0, evaluator=args.evaluator)
            print_overview_of(console, options.store, shown)
        return 1 if bad else 0
