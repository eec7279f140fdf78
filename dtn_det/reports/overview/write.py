"""Writes a report of several sets: the overview, the summary of each set, and a whole report of each set."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det.errors import ReportError
from dtn_det.reports.collect import ReportOptions
from dtn_det.reports.contents import Provenance, Report
from dtn_det.reports.formats.csv_json import report_content
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.overview.collect import collect_overview
from dtn_det.reports.overview.contents import Overview
from dtn_det.reports.overview.grouping import SetSources
from dtn_det.reports.overview.page import render_overview
from dtn_det.reports.overview.results import print_overview
from dtn_det.reports.overview.tables import footer, overview_tables
from dtn_det.reports.tables.published import PublishedRow, published_for, rows_of_sets
from dtn_det.reports.tables.summary import summary_table
from dtn_det.reports.tables.table import Table, explained
from dtn_det.reports.write import (
    name_places,
    remove_earlier,
    report_folder,
    report_gallery,
    write_documents,
    write_report,
    write_table,
)
from dtn_det.system.files import write_text
from dtn_det.system.progress import stages

if TYPE_CHECKING:
    from rich.console import Console

FORMAT = "dtn-det report of several sets"
VERSION = 1


def make_overview(
    sets: Sequence[SetSources],
    out: Path,
    options: ReportOptions,
    console: Console,
    *,
    with_published: bool = False,
    data: Mapping[str, Path] | None = None,
    clean: Mapping[str, Path] | None = None,
    frost: Path | None = None,
    tensorboard: bool = False,
) -> Overview:
    """Compute the overview and the report of each set, and write all files.

    Args:
        out: Folder of the report, with that of the set NAME in ``sets/NAME``; an earlier report in it is replaced.
        with_published: Whether to add published results, in rows and tables of their own.
        data: Folder of the images of each set of which the page of the set shows some, by the name of the set.
        clean: Folder of the clean images, where ``data`` has corrupted images, by the name of the set.
        frost: Folder with the original frost textures, if they were used.

    Raises:
        ReportError: Models or options do not fit, a name is none of the sets, the images are not those that were
            evaluated, or `out` holds something other than a report.
        OSError: Files cannot be read or written.
    """
    data, clean = data or {}, clean or {}
    _check_names(sets, data, clean)
    with report_folder(out), stages(console) as add_stage:
        show = add_stage("Computing numbers and intervals", len(sets))
        begun: list[str] = []

        def on_set(name: str) -> None:
            show(len(begun), note=name)
            begun.append(name)

        overview = collect_overview(sets, options, on_set)
        show(len(sets))
        galleries = {}
        if data:
            show = add_stage("Corrupting sample images", len(data))
            sources = {one.name: one.sources for one in sets}
            for done, (name, folder) in enumerate(data.items()):
                show(done, note=overview.titles[name])
                report = overview.reports[name]
                galleries[name] = report_gallery(
                    report, sources[name], folder, clean=clean.get(name), frost=frost, seed=options.seed
                )
            show(len(data))
        show = add_stage("Writing tables, figures, and the pages", len(sets))
        remove_earlier(out, console)
        for done, (name, report) in enumerate(overview.reports.items()):
            show(done, note=overview.titles[name])
            published = published_for(report, overview.known[name]) if with_published else ()
            write_report(report, out / "sets" / name, galleries.get(name), published, tensorboard=tensorboard)
        classifiers = overview.some_report.task == "classification"
        rows = rows_of_sets() if with_published and classifiers else ()
        _write_overview(overview, out, rows)
        show(len(sets))
    print_overview(console, overview, rows)
    name_places(console, out, {"the report of each set": out / "sets"})
    return overview


def _check_names(sets: Sequence[SetSources], data: Mapping[str, Path], clean: Mapping[str, Path]) -> None:
    """Check that the folders of images are those of sets, and that clean images come with others."""
    names = [one.name for one in sets]
    for option, folders in (("data", data), ("clean", clean)):
        for name, folder in folders.items():
            if name not in names:
                example = f"--{option} {names[0]}={folder}"
                raise ReportError(
                    f"expected --{option} NAME=DIR with a set out of {', '.join(names)}, got "
                    f"{f'{name}={folder}' if name else folder}: name the set, such as {example}"
                )
            if name not in data:
                raise ReportError(
                    f"expected --clean {name}={folder} beside the corrupted images of {name}, got none: add --data "
                    f"{name}=DIR, or leave it out"
                )


def _write_overview(overview: Overview, out: Path, published: Sequence[PublishedRow]) -> None:
    tables = overview_tables(overview, published)
    for table in tables:
        write_table(table, _about(overview), out)
    summaries = list(_summaries(overview, with_published=bool(published)))
    for table, report in summaries:
        write_table(table, report, out)
    write_documents((*tables, *(table for table, _ in summaries)), out)
    write_text(out / "report.html", render_overview(overview, published))
    # Written last, as its presence says that a report is there.
    write_text(out / "report.json", overview_json(overview))


def _summaries(overview: Overview, *, with_published: bool) -> Iterator[tuple[Table, Report]]:
    """Yield the summary of each set and set of corruptions, as in the report of the set."""
    for name, report in overview.reports.items():
        for numbers in (Numbers.of(report, section) for section in report.sections):
            for which in numbers.sets:
                published = published_for(report, overview.known[name]) if with_published else ()
                table = summary_table(numbers, which, published if which == numbers.sets[0] else ())
                # "Classification: summary" becomes "ImageNet-R: summary", and "Boxes: summary" "COCO, boxes: summary".
                kind, _, what = table.title.partition(": ")
                set_title = overview.titles[name] + ("" if numbers.section.kind == "top1" else f", {kind.lower()}")
                told = replace(table, name=f"{table.name}-{name}", title=f"{set_title}: {what}")
                yield explained(replace(told, footer=footer(overview))), report


def _about(overview: Overview) -> Report:
    """Return a report whose provenance is that of all sets, for the lines of a CSV file."""
    reports = overview.reports.values()
    about: Provenance = replace(
        overview.some_report.provenance,
        data="; ".join(report.provenance.data for report in reports),
        data_hash="",
        num_images=sum(report.provenance.num_images for report in reports),
        selection="; ".join(dict.fromkeys(report.provenance.selection for report in reports)),
        corruption="; ".join(dict.fromkeys(report.provenance.corruption for report in reports)),
    )
    return replace(overview.some_report, provenance=about)


def overview_json(overview: Overview) -> str:
    """Return the contents of an overview as JSON; undefined numbers are null.

    ``numbers`` and ``differences`` are lists of objects, whose ``key`` is that of a column. ``sets`` has the contents
    of the report of each set, as :func:`dtn_det.reports.formats.csv_json.to_json` writes them.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "task": overview.some_report.task,
        "models": [asdict(model) for model in overview.models],
        "columns": [asdict(column) for column in overview.columns],
        "numbers": [
            {
                "model": model,
                "key": key,
                **_finite({"value": number.value, "low": number.low, "high": number.high}),
                "note": overview.notes.get((model, key), ""),
            }
            for (model, key), number in overview.numbers.items()
        ],
        "differences": [
            {"first": first, "second": second, "key": key, **_finite(change._asdict())}
            for (first, second, key), change in overview.differences.items()
        ],
        "remarks": list(overview.remarks),
        "sets": {
            name: {"title": overview.titles[name], **report_content(report)}
            for name, report in overview.reports.items()
        },
    }
    return json.dumps(content, allow_nan=False) + "\n"


def _finite(values: dict[str, float]) -> dict[str, Any]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
