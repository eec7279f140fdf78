"""Makes the page of a report, one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from dtn_det._optional import require
from dtn_det.reports.contents import Report
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.page.data import figure_data, gallery_data
from dtn_det.reports.page.findings import facts, findings, lead, page_title, provenance
from dtn_det.reports.page.tables import (
    cell_views,
    corruption_views,
    model_view,
    pair_views,
    severity_views,
    summary_views,
)
from dtn_det.reports.samples import Gallery
from dtn_det.reports.tables.published import PublishedRow
from dtn_det.system.files import write_text

_SCRIPTS = ("page.js", "tables.js", "plots.js", "figures.js", "gallery.js")


def render_page(report: Report, samples: Gallery | None = None, published: Sequence[PublishedRow] = ()) -> str:
    """Return a report as HTML.

    Returns:
        HTML with all data, scripts and images in it, which a browser opens without a network.
    """
    sections = [Numbers.of(report, section) for section in report.sections]
    figures = figure_data(report, sections)
    pairs = pair_views(sections)
    script = _script()
    names = [("summary", "Summary"), ("corruptions", "Corruptions"), ("severities", "Severities")]
    names += [("differences", "Differences")] if pairs else []
    names += [("calibration", "Calibration")] if figures["reliability"] else []
    names += [("samples", "Images"), ("cells", "All conditions"), ("models", "Models"), ("provenance", "Provenance")]
    page: str = _template().render(
        title=page_title(report),
        lead=lead(report),
        facts=facts(report),
        navigation=names,
        findings=findings(report, sections),
        remarks=report.remarks,
        summary=summary_views(sections, published),
        corruptions=corruption_views(sections),
        severities=severity_views(sections),
        pairs=pairs,
        reliability=bool(figures["reliability"]),
        cells=cell_views(sections),
        models=model_view(report),
        provenance=provenance(report),
        level=f"{100 * report.provenance.level:g}",
        figures=figures,
        gallery=None if samples is None else gallery_data(report, samples),
        gallery_remarks=() if samples is None else samples.remarks,
        css=_file("page.css"),
        script=script,
        plotly=_plotly()[0],
        script_hashes=f"{_hash(script)} {_plotly()[1]}",
    )
    return page


def write_page(
    path: Path, report: Report, samples: Gallery | None = None, published: Sequence[PublishedRow] = ()
) -> None:
    """Write the HTML of :func:`render_page` to a file, which is then complete or absent.

    Raises:
        OSError: The file cannot be written.
    """
    write_text(path, render_page(report, samples, published))


@lru_cache(maxsize=1)
def _template() -> Any:
    jinja = require("jinja2", "report")
    environment = jinja.Environment(autoescape=True, undefined=jinja.StrictUndefined, trim_blocks=False)
    return environment.from_string(_file("page.html"))


def _file(name: str) -> str:
    return resources.files("dtn_det.reports.page").joinpath(name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _script() -> str:
    return "\n".join(_file(name) for name in _SCRIPTS)


@lru_cache(maxsize=1)
def _plotly() -> tuple[str, str]:
    """Return Plotly's JavaScript, compressed by gzip and encoded as base64, and its :func:`_hash`."""
    script: str = require("plotly.offline", "report").get_plotlyjs()
    # Compression also hides the link in a comment of the licence, so that the page's text has no link to the network.
    packed = gzip.compress(script.encode(), 9, mtime=0)
    return base64.b64encode(packed).decode(), _hash(script)


def _hash(script: str) -> str:
    """Return the hash with which the page's Content-Security-Policy allows this script, while it forbids others."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
