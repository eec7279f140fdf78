"""`dtn-det report`: write tables, figures and a page of the results in stores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dtn_det.cli.sweep_options import add_evaluator, num_cores, output_file, output_folder
from dtn_det.errors import ReportError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `report`."""
    parser = subparsers.add_parser(
        "report",
        help="tables, figures and a page of the results in stores",
        description="Computes every number of the models in one or more stores, with confidence intervals, and the "
        "differences of pairs of models, and writes them as tables (Markdown, CSV, JSON, LaTeX), figures (PDF, SVG, "
        "PNG) and one page that needs no network.",
    )
    parser.add_argument(
        "stores",
        nargs="+",
        metavar="STORE",
        help="folder that `dtn-det mce`, `evaluate` or `mpc` wrote, or LABEL=FOLDER, which calls its models "
        "LABEL/NAME; of several sets, an overview is made",
    )
    parser.add_argument("--out", type=output_folder, required=True, metavar="DIR", help="folder of the report")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only these, in this order [all]")
    parser.add_argument(
        "--baseline", metavar="NAME", help="what CE is relative to: alexnet or a model's name [alexnet for ImageNet-C]"
    )
    parser.add_argument(
        "--pairs",
        nargs="+",
        metavar="FIRST:SECOND",
        help="models to compare [LayerNorm and DTN twins by their names, else all against the baseline or the first]",
    )
    parser.add_argument("--with-published", action="store_true", help="add published results, set apart")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="the images: the page then shows some of them; with several sets, those of the set NAME",
    )
    parser.add_argument("--replicates", type=int, default=1000, metavar="N", help="of the bootstrap, 0 for none [1000]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap [0]")
    add_evaluator(parser)
    parser.add_argument(
        "--selective",
        action="store_true",
        help="AURC, AUGRC, coverage at 5 %% risk, risk at 80 %% coverage and adaptive ECE under all corruptions too",
    )
    parser.add_argument(
        "--errors",
        action="store_true",
        help="what each type of error of detectors costs: wrong class, bad localization, background, missed, ...",
    )
    parser.add_argument(
        "--classwise", action="store_true", help="the categories of which detectors lose most and least AP"
    )
    parser.add_argument(
        "--clean",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="the clean images, where --data has corrupted ones",
    )
    parser.add_argument("--frost", type=Path, metavar="DIR", help="folder with the original frost textures, if used")
    parser.add_argument(
        "--json",
        type=output_file,
        metavar="FILE",
        help="also write the main numbers of each model in a flat dictionary (imagenet-c/mce, ...), for W&B or MLflow",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="also write scalars and figures for TensorBoard to DIR/vis_data"
    )


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det report`."""
    from rich.console import Console

    from dtn_det.reports.collect import ReportOptions
    from dtn_det.reports.formats.flat import flat_numbers
    from dtn_det.reports.overview.grouping import open_sets
    from dtn_det.reports.overview.results import flat_overview
    from dtn_det.reports.overview.write import make_overview
    from dtn_det.reports.write import make_report
    from dtn_det.system.files import write_json

    options = ReportOptions(
        models=args.models or (),
        baseline=args.baseline,
        pairs=args.pairs,
        replicates=args.replicates,
        seed=args.seed,
        selective=args.selective,
        errors=args.errors,
        classwise=args.classwise,
        processes=num_cores(),
        evaluator=args.evaluator,
    )
    sets = open_sets(args.stores, options.models)
    if sets:
        overview = make_overview(
            sets,
            args.out,
            options,
            Console(),
            with_published=args.with_published,
            data=_by_set("data", args.data),
            clean=_by_set("clean", args.clean),
            frost=args.frost,
            tensorboard=args.tensorboard,
        )
        numbers = flat_overview(overview)
    else:
        report = make_report(
            args.stores,
            args.out,
            options,
            Console(),
            with_published=args.with_published,
            data=_only("data", args.data),
            clean=_only("clean", args.clean),
            frost=args.frost,
            tensorboard=args.tensorboard,
        )
        numbers = {model.name: flat_numbers(report, model.name) for model in report.models}
    if args.json is not None:
        write_json(args.json, numbers)
    return 0


def _by_set(option: str, words: Sequence[str]) -> dict[str, Path]:
    """Return the folders by the names of the sets; a folder without a name goes under the empty name."""
    found: dict[str, Path] = {}
    for word in words:
        name, sign, folder = word.partition("=")
        # An existing folder may have the sign in its own name.
        name, folder = (name, folder) if sign and not Path(word).is_dir() else ("", word)
        if name in found:
            raise ReportError(f"expected --{option} once for each set, got {found[name]} and {folder}: leave one out")
        found[name] = Path(folder)
    return found


def _only(option: str, words: Sequence[str]) -> Path | None:
    """Return the folder of the only set of a report; None if the user named none."""
    found = _by_set(option, words)
    if len(found) > 1:
        several = " and ".join(words)
        raise ReportError(f"expected one --{option} with the stores of one set, got {several}: leave one out")
    return next(iter(found.values()), None)
