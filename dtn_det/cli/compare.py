"""`dtn-det compare`: whether one model is more robust than another, under which corruptions, and how certainly."""

from __future__ import annotations

import argparse
from pathlib import Path

from dtn_det.cli.sweep_options import num_cores


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `compare`."""
    parser = subparsers.add_parser(
        "compare",
        help="is model B more robust than A, where, by how much, how sure",
        description="Compares two evaluated models image by image and prints one screen: the answer, then groups and "
        "corruptions by what B gains, with paired intervals and tests. Models are given as STORE A B, as STORE:A "
        "STORE:B, as two stores with one model each, or as one store with two.",
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="A and B, each perhaps as STORE:NAME; or a STORE")
    parser.add_argument("--store", type=Path, metavar="DIR", help="folder of both models, if not named with them")
    parser.add_argument(
        "--baseline", metavar="NAME", help="what CE is relative to: alexnet or a model's name [alexnet for ImageNet-C]"
    )
    parser.add_argument("--kind", choices=("bbox", "segm"), help="of detections [bbox]")
    parser.add_argument("--metric", default="AP", help="of detectors: AP, AP50, AP75, APs, APm or APl [%(default)s]")
    parser.add_argument("--replicates", type=int, default=1000, metavar="N", help="of the bootstrap [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap [%(default)s]")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON instead")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det compare`."""
    from rich.console import Console
    from rich.text import Text

    from dtn_det.reports.collect import ReportOptions, collect
    from dtn_det.reports.compare import compare, comparison_json, find_targets
    from dtn_det.reports.formats.terminal import print_comparison
    from dtn_det.reports.labels import one_line

    targets = find_targets(args.models, args.store)
    pair = (targets.first, targets.second)
    with_baseline = args.baseline is not None and args.baseline not in (*pair, "alexnet")
    options = ReportOptions(
        models=(*pair, args.baseline) if with_baseline else pair,
        baseline=args.baseline,
        pairs=[":".join(pair)],
        replicates=args.replicates,
        seed=args.seed,
        processes=num_cores(),
    )
    with Console(stderr=True).status("") as status:
        report = collect(targets.stores, options, lambda name: status.update(Text(f"reading {one_line(name)}")))
    comparison = compare(report, *pair, metric=args.metric, kind=args.kind)
    if args.json:
        print(comparison_json(comparison))
    else:
        print_comparison(Console(), comparison)
    return 0
