"""Make a report from stores of results, and write all its files: tables, figures and the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dtn_det.corruptions.cells import Cell
from dtn_det.errors import ReportError
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.contents import Report
from dtn_det.reports.figures import write_figures
from dtn_det.reports.formats.csv_json import csv_table, to_json
from dtn_det.reports.formats.latex import latex, latex_document
from dtn_det.reports.formats.markdown import markdown, markdown_document
from dtn_det.reports.formats.terminal import print_tables
from dtn_det.reports.page import write_page
from dtn_det.reports.samples import Gallery, make_samples
from dtn_det.reports.sources import Sources, open_sources, title_of
from dtn_det.reports.tables import report_tables
from dtn_det.reports.tables.published import PublishedRow, published_for
from dtn_det.reports.tables.table import Table
from dtn_det.reports.visualizer import log_report
from dtn_det.system.files import is_temporary, locked, write_text
from dtn_det.system.progress import say, stages

if TYPE_CHECKING:
    from rich.console import Console

# Names of all files and folders of a report; a folder that contains anything else is not overwritten.
_FOLDERS = ("tables", "figures", "vis_data", "sets")
_FILES = ("report.html", "report.md", "report.tex", "report.json")


def make_report(
    stores: Sequence[str | Path],
    out: Path,
    options: ReportOptions,
    console: Console,
    *,
    with_published: bool = False,
    data: Path | None = None,
    clean: Path | None = None,
    frost: Path | None = None,
    tensorboard: bool = False,
) -> Report:
    """Compute a report and write all its files.

    Args:
        stores: See :func:`dtn_det.reports.collect.collect`.
        out: Folder of the report; an earlier report in it is replaced.
        with_published: Whether to add published results, in rows and tables of their own.
        data: Folder of the images that were evaluated, to show some of them on the page; None for a page without
            images.
        clean: Folder of the clean images, if `data` has corrupted images.

    Raises:
        ReportError: The stores are of different tasks, images or corruptions, or `out` holds something other than a
            report.
        OSError: Files cannot be read or written.
    """
    # The stores are opened first, so that a wrong store leaves no empty folder behind.
    sources = open_sources(stores, options.models)
    with report_folder(out), stages(console) as add_stage:
        count = len(sources.models)
        show = add_stage("Computing numbers and intervals", count)
        begun: list[str] = []

        def on_model(name: str) -> None:
            show(len(begun), note=name)
            begun.append(name)

        report = collect(sources, options, on_model)
        show(count)
        gallery = None
        if data is not None:
            show = add_stage("Corrupting sample images", 1)
            gallery = report_gallery(report, sources, data, clean=clean, frost=frost, seed=options.seed)
            show(1)
        show = add_stage("Writing tables, figures, and the page", 1)
        remove_earlier(out, console)
        title = title_of(sources.stores[0].manifest) if sources.stores else ""
        published = published_for(report, title) if with_published else ()
        left_out = write_report(report, out, gallery, published, tensorboard=tensorboard)
        show(1)
    _summarise(report, report_tables(report, published), out, console)
    for figure, reason in left_out.items():
        say(console, f"no figure {figure}: {reason}")
    return report


def report_gallery(
    report: Report, sources: Sources, data: Path, *, clean: Path | None, frost: Path | None, seed: int
) -> Gallery:
    """Make the sample images of a report, with those of its classes: see :func:`make_samples`."""
    pairs = [pair for section in report.sections for pair in section.pairs]
    columns = ["model", "image", "corruption", "severity"]
    shown = [
        (str(model), int(image), Cell(str(corruption), int(severity)))
        for section in report.sections
        for model, image, corruption, severity in section.classes[columns].to_numpy().tolist()
    ]
    return make_samples(sources, data, pairs, clean=clean, frost=frost, seed=seed, classes=shown)


@contextmanager
def report_folder(out: Path) -> Iterator[None]:
    """Make the folder of a report, check that nothing else is in it, and keep other processes from writing there.

    Raises:
        ReportError: The folder cannot be made, or holds something other than a report.
    """
    _make_folder(out)
    with _kept_if_filled(out), locked(out, "--out"):
        for entry in out.iterdir():
            # A process that was killed may have left a temporary file.
            if is_temporary(entry.name) and entry.is_file():
                entry.unlink()
        foreign = sorted({entry.name for entry in out.iterdir()} - {*_FOLDERS, *_FILES})
        if foreign:
            raise ReportError(
                f"expected --out to be empty or the folder of an earlier report, got {out} with {foreign[0]!r} in it: "
                "name another"
            )
        yield


def remove_earlier(out: Path, console: Console) -> None:
    """Remove an earlier report; to be called only after all arguments of the user have proved valid."""
    if (out / _FILES[-1]).exists():
        say(console, f"the report in {out} is replaced")
    for name in _FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def write_report(
    report: Report,
    out: Path,
    gallery: Gallery | None = None,
    published: Sequence[PublishedRow] = (),
    *,
    tensorboard: bool = False,
) -> Mapping[str, str]:
    """Write all files of a report into a folder, and return the reason for each figure that could not be drawn."""
    write_tables(report, report_tables(report, published), out)
    _, left_out = write_figures(report, out / "figures")
    if tensorboard:
        log_report(report, out)
    write_page(out / _FILES[0], report, gallery, published)
    return left_out


def _make_folder(out: Path) -> None:
    if out.is_file():
        raise ReportError(f"expected --out to be a folder, got the file {out}: name another")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(
            f"expected --out to be a folder that can be made, got {out}: {error.strerror}: name another"
        ) from error
    if not os.access(out, os.W_OK):
        raise ReportError(f"expected --out to be a folder that can be written to, got {out}: name another")


@contextmanager
def _kept_if_filled(folder: Path) -> Iterator[None]:
    """On leaving the context, also after an error, remove the folder if it is empty."""
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()


def write_tables(report: Report, tables: Sequence[Table], out: Path) -> None:
    """Write a Markdown, CSV and LaTeX file for each table, and report.md, report.tex and report.json for all."""
    for table in tables:
        write_table(table, report, out)
    write_documents(tables, out)
    write_text(out / "report.json", to_json(report))


def write_table(table: Table, report: Report, out: Path) -> None:
    """Write a Markdown, CSV and LaTeX file for a table into the folder ``tables`` of a report."""
    path = out / "tables" / table.name
    write_text(path.with_name(f"{table.name}.md"), markdown(table))
    write_text(path.with_name(f"{table.name}.csv"), csv_table(table, report))
    write_text(path.with_name(f"{table.name}.tex"), latex(table))


def write_documents(tables: Sequence[Table], out: Path) -> None:
    """Write report.md and report.tex with all tables."""
    write_text(out / "report.md", markdown_document(tables))
    write_text(out / "report.tex", latex_document(tables))


def _summarise(report: Report, tables: Sequence[Table], out: Path, console: Console) -> None:
    print_tables(console, tables[:1])
    for remark in report.remarks:
        say(console, remark)
    name_places(console, out, {"figures as .pdf, .svg, .png": out / "figures"})


def name_places(console: Console, out: Path, more: Mapping[str, Path]) -> None:
    """Print where the files of a report lie.

    Args:
        more: Further files or folders, by what they are.
    """
    places = {
        "the page": out / "report.html",
        "all tables for reading": out / "report.md",
        "all tables for a paper": out / "report.tex",
        "each table as .md, .csv, .tex": out / "tables",
        **more,
        "all numbers": out / "report.json",
    }
    for what, path in places.items():
        say(console, f"  {what:32} {os.path.relpath(path)}")
