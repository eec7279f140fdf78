"""`dtn-det complexity`: FLOPs and parameters of a config's detector and of its LayerNorm twin."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dtn_det.cost.complexity import Complexity


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `complexity`."""
    parser = subparsers.add_parser(
        "complexity",
        help="count the FLOPs and parameters of a config's detector",
        description="Count the FLOPs and parameters of a config's detector by part and kind of module, DTN's own "
        "included, beside those of its LayerNorm twin. Takes any MMDetection config.",
    )
    parser.add_argument("config", help="path of the config")
    parser.add_argument(
        "--shape", nargs=2, type=int, default=(800, 1280), metavar=("H", "W"), help="input size (default: 800 1280)"
    )
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument(
        "--json", action="store_const", dest="format", const="json", help="print JSON, every layer in it"
    )
    formats.add_argument("--csv", action="store_const", dest="format", const="csv", help="print CSV")
    formats.add_argument("--markdown", action="store_const", dest="format", const="markdown", help="print Markdown")


def run(args: argparse.Namespace) -> int:
    """Run `dtn-det complexity`."""
    from dtn_det.cost.complexity import config_complexity
    from dtn_det.training.config import load_config

    # MMDetection prints while it builds models, and its output must not end up in the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        result = config_complexity(load_config(args.config), tuple(args.shape))
    if args.format == "json":
        print(json.dumps(result.to_dict(), indent=2))
    elif args.format == "csv":
        print(result.to_csv(), end="")
    elif args.format == "markdown":
        print(result.to_markdown())
    else:
        print_tables(result)
    return 0


def print_tables(result: Complexity) -> None:
    """Print to the terminal the tables that :meth:`Complexity.to_markdown` writes."""
    from dtn_det._optional import require
    from dtn_det.cost.complexity import HEADINGS, dtn_parts

    table_class = require("rich.table", "cli").Table
    console = require("rich.console", "cli").Console()
    console.print(result.title)
    table = table_class()
    part, kind, *numbers = HEADINGS
    table.add_column(part, no_wrap=True)
    table.add_column(kind)
    for heading in numbers:
        table.add_column(heading, justify="right")
    for row in result.rows:
        table.add_row(*row.texts())
    table.add_section()
    table.add_row(*result.total.texts())
    console.print(table)
    if not result.layers:
        console.print("No DTN layers.")
        return
    parts = table_class()
    parts.add_column(f"{len(result.layers)} DTN layers")
    parts.add_column("FLOPs (G)", justify="right")
    for name, value in dtn_parts(result.dtn):
        parts.add_row(name, f"{value / 1e9:.3f}")
    console.print(parts)
