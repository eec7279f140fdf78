"""`dtn-det import`: put results of other tools into a store."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `import`."""
    parser = subparsers.add_parser(
        "import",
        help="put results of RobustBench, MMDetection or evaluation scripts into a store",
        description="Reads results of other tools into a store, marked as imported, so that reports show them beside "
        "measured ones. Files are read as data: a pickle that would run code is refused.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files of results")
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--format",
        choices=("robustbench", "mmdet", "text"),
        required=True,
        help="robustbench: CSV of accuracies, with JSON files for the clean ones; mmdet: pickle of "
        "test_robustness.py; text: output of the ImageNet-C or game-of-noise scripts",
    )
    parser.add_argument(
        "--dataset",
        choices=("imagenet", "cifar10", "cifar100"),
        help="what the results of classifiers were measured on; only those on ImageNet-C get CE and mCE against "
        "AlexNet [what the files or the folders around them tell]",
    )
    parser.add_argument("--name", help="what reports call the model, or which one of several to take [as in the file]")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det import`."""
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
