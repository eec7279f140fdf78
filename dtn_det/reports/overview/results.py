"""Prints an overview, and hands its numbers on to other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dtn_det.reports.collect import ReportOptions
from dtn_det.reports.formats.flat import flat_numbers
from dtn_det.reports.formats.terminal import print_tables
from dtn_det.reports.overview.collect import collect_overview
from dtn_det.reports.overview.contents import Overview
from dtn_det.reports.overview.grouping import open_sets
from dtn_det.reports.overview.tables import overview_tables
from dtn_det.reports.tables.published import PublishedRow
from dtn_det.system.progress import say

if TYPE_CHECKING:
    from rich.console import Console


def print_overview(console: Console, overview: Overview, published: Sequence[PublishedRow] = ()) -> None:
    """Print the tables of the overview and its remarks."""
    print_tables(console, overview_tables(overview, published))
    for remark in overview.remarks:
        say(console, remark)


def print_overview_of(console: Console, folder: Path, options: ReportOptions) -> Overview:
    """Compute the overview of the stores in a folder, print it, and say how to get intervals.

    Raises:
        ReportError: Stores of a set do not fit together.
        StoreError: A store is damaged.
    """
    overview = collect_overview(open_sets([folder], options.models), options)
    print_overview(console, overview)
    say(console, f"with intervals and differences: dtn-det report {folder} --out DIR")
    return overview


def flat_overview(overview: Overview) -> dict[str, dict[str, float]]:
    """Return the numbers of each model by their names, such as ``imagenet-c/mce``, as W&B and MLflow take them.

    They are the numbers of the overview, and of each set those of :func:`dtn_det.reports.formats.flat.flat_numbers`.
    """
    found: dict[str, dict[str, float]] = {}
    for model in (model.name for model in overview.models):
        own = {key: number.value for (name, key), number in overview.numbers.items() if name == model}
        for name, report in overview.reports.items():
            own |= {f"{name}/{key}": value for key, value in flat_numbers(report, model).items()}
        found[model] = own
    return found
