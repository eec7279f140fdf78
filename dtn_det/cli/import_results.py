"""`dtn-det import`: put results of other tools into a store."""

from __future__ import annotations

import argparse
from pathlib import Path

_DETECTIONS = "coco-results"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `import`."""
    parser = subparsers.add_parser(
        "import",
        help="put results of other tools into a store: detections of any detector, RobustBench, MMDetection, ...",
        description="Reads results of other tools into a store, marked as imported, so that reports show them beside "
        "measured ones. Detections in COCO's result format become records of images, with intervals and paired "
        "differences. Files are read as data: a pickle that would run code is refused.",
    )
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="files of results; for coco-results one folder of <corruption>/<severity>/NAME.json, "
        "<corruption>_<severity>.json and clean.json, or one file of the clean images",
    )
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--format",
        choices=("coco-results", "robustbench", "mmdet", "text"),
        required=True,
        help="coco-results: detections of any detector, a JSON file for each corruption and severity; "
        "robustbench: CSV of accuracies, with JSON files for the clean ones; mmdet: pickle of "
        "test_robustness.py; text: output of the ImageNet-C or game-of-noise scripts",
    )
    parser.add_argument(
        "--dataset",
        choices=("imagenet", "cifar10", "cifar100"),
        help="what the results of classifiers were measured on; only those on ImageNet-C get CE and mCE against "
        "AlexNet [what the files or the folders around them tell]",
    )
    parser.add_argument(
        "--ann", type=Path, metavar="FILE", help="for coco-results, the annotation file of the images, in COCO's format"
    )
    parser.add_argument("--name", help="what reports call the model, or which one of several to take [as in the file]")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det import`."""
    if (args.format == _DETECTIONS) != (args.ann is not None):
        from dtn_det.errors import InputError

        raise InputError(
            f"expected --ann FILE, the annotation file, with --format {_DETECTIONS} and only with it, got "
            f"--format {args.format} {'without' if args.ann is None else 'with'} --ann"
        )
    if args.format == _DETECTIONS:
        return _import_detections(args)
    from dtn_det.datasets.remarks import tell
    from dtn_det.robustness.importing import MMDET_DETECTIONS, MMDET_RULE, write_imported
    from dtn_det.robustness.importing.read import import_files

    for results in import_files(args.files, args.format, args.name, args.dataset):
        write_imported(args.store, results)
        kinds = ", ".join(f"{len(frame)} rows of {kind}" for kind, frame in results.frames.items())
        means = ", means over the severities" if results.source.severity_means else ""
        left = f"; left out: {', '.join(results.source.left_out)}" if results.source.left_out else ""
        print(f"{results.name}: {kinds}{means}{left}")
        if results.source.detections == MMDET_DETECTIONS:
            print(f"note: {results.name}: {MMDET_RULE}")
        tell(results.source.remarks, print)
    return 0


def _import_detections(args: argparse.Namespace) -> int:
    from rich.console import Console

    from dtn_det.datasets.remarks import counted, tell
    from dtn_det.errors import InputError
    from dtn_det.robustness.importing.detections import import_detections
    from dtn_det.system.files import reporting_file_errors
    from dtn_det.system.progress import say, stages

    if len(args.files) > 1 or args.dataset is not None:
        got = "--dataset" if args.dataset is not None else f"{len(args.files)} of them"
        raise InputError(f"expected one folder of results and no --dataset with --format {_DETECTIONS}, got {got}")
    console = Console()
    with reporting_file_errors(), stages(Console(stderr=True)) as add_stage:
        stage = add_stage("Reading results", None)
        found = import_detections(args.files[0], args.ann, args.store, args.name, stage)
    store = found.model.store.manifest
    what = "boxes and masks" if found.masks else "boxes"
    say(
        console,
        f"{found.model.manifest.name}: {counted(found.detections, 'detection')} ({what}) in "
        f"{counted(store.num_images, 'image')} under {counted(len(store.cells), 'condition')}",
    )
    tell(found.remarks, lambda text: say(console, text))
    say(console, f"numbers with intervals: dtn-det report {args.store} --out DIR")
    return 0
