"""`dtn-det listops`: write the Long ListOps data set of the Long-Range Arena."""

from __future__ import annotations

import argparse

from dtn_det.cli import sweep_options

_COUNTS = {"train": 96000, "val": 2000, "test": 2000}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `listops`."""
    parser = subparsers.add_parser(
        "listops",
        help="draw the Long ListOps data set of the Long-Range Arena",
        description="Writes basic_train.tsv, basic_val.tsv and basic_test.tsv, by the rules and in the format of the "
        "Long-Range Arena. The files depend on these options alone, not on the number of processes. Stopped and "
        "started again, it continues.",
    )
    parser.add_argument(
        "--out", type=sweep_options.output_folder, required=True, metavar="DIR", help="folder of the files"
    )
    for split, number in _COUNTS.items():
        parser.add_argument(f"--{split}", type=int, default=number, metavar="N", help="sequences [%(default)s]")
    what = parser.add_argument_group("the sequences")
    what.add_argument("--min-length", type=int, default=500, metavar="N", help="more tokens than that [%(default)s]")
    what.add_argument("--max-length", type=int, default=2000, metavar="N", help="fewer tokens than that [%(default)s]")
    what.add_argument("--max-depth", type=int, default=10, metavar="N", help="of their trees [%(default)s]")
    what.add_argument("--max-args", type=int, default=10, metavar="N", help="of an operator [%(default)s]")
    what.add_argument("--seed", type=int, default=0, help="of all randomness [%(default)s]")
    parser.add_argument("--workers", type=int, metavar="N", help="processes [one a core]")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det listops`."""
    from rich.console import Console

    from dtn_det.sequence.listops import FILES, ListOps, write_listops
    from dtn_det.system.files import reporting_file_errors
    from dtn_det.system.progress import say

    settings = ListOps(**{key: value for key, value in vars(args).items() if key in ListOps.__dataclass_fields__})
    console = Console()
    workers = args.workers if args.workers is not None else sweep_options.num_cores()
    with reporting_file_errors():
        drawn = write_listops(args.out, settings, workers, console)
    say(console, f"{', '.join(FILES.values())} {'written to' if drawn else 'are complete in'} {args.out}")
    return 0
