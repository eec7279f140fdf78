"""Make the page of a report with its texts: one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from dtn_det._optional import require
from dtn_det.corruptions.identity import CorruptionOrigin
from dtn_det.reports.changes import Change, families, is_least
from dtn_det.reports.contents import KIND_TITLES, Direction, Provenance, Report
from dtn_det.reports.measures import corruption_measure
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.page.data import class_pictures, figure_data, gallery_data
from dtn_det.reports.page.tables import (
    calibration_views,
    cell_views,
    class_views,
    corruption_views,
    error_views,
    model_view,
    pair_views,
    severity_views,
    summary_views,
)
from dtn_det.reports.samples import Gallery
from dtn_det.reports.tables.published import PublishedRow
from dtn_det.reports.tables.table import number_text, supported_decimals
from dtn_det.system.files import write_text

_SCRIPTS = ("page.js", "tables.js", "plots.js", "figures.js", "gallery.js")
_NAMED = 2
_MOST_FINDINGS = 3
_LONGEST = 80
_WHAT = {"classification": "classifiers", "detection": "detectors"}


def render_page(report: Report, samples: Gallery | None = None, published: Sequence[PublishedRow] = ()) -> str:
    """Return a report as HTML.

    Returns:
        HTML with all data, scripts and images in it, which a browser opens without a network.
    """
    sections = [Numbers.of(report, section) for section in report.sections]
    figures = figure_data(report, sections)
    pairs = pair_views(sections)
    calibration = calibration_views(sections)
    classes = class_views(sections)
    errors = error_views(sections)
    script = _script()
    names = [("summary", "Summary"), ("corruptions", "Corruptions"), ("severities", "Severities")]
    names += [("differences", "Differences")] if pairs else []
    names += [("calibration", "Calibration")] if figures["reliability"] or calibration else []
    names += [("errors", "Error types")] if errors else []
    names += [("classes", "Classes")] if classes else []
    names += [("samples", "Images"), ("cells", "All conditions"), ("models", "Models"), ("provenance", "Provenance")]
    page: str = page_template("page.html").render(
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
        calibration=calibration,
        errors=errors,
        classes=[(view, class_pictures(name, samples)) for name, view in classes],
        reliability=bool(figures["reliability"]),
        cells=cell_views(sections),
        models=model_view(report),
        provenance=provenance(report),
        level=f"{100 * report.provenance.level:g}",
        figures=figures,
        gallery=None if samples is None else gallery_data(report, samples),
        gallery_remarks=() if samples is None else samples.remarks,
        css=page_file("page.css"),
        script=script,
        plotly=_plotly()[0],
        script_hashes=f"{script_hash(script)} {_plotly()[1]}",
    )
    return page


def write_page(
    path: Path, report: Report, samples: Gallery | None = None, published: Sequence[PublishedRow] = ()
) -> None:
    """Write the HTML of :func:`render_page` to a file. An interrupted call leaves no incomplete file.

    Raises:
        OSError: The file cannot be written.
    """
    write_text(path, render_page(report, samples, published))


@lru_cache(maxsize=2)
def page_template(name: str) -> Any:
    """Return a template of this folder, such as ``page.html``."""
    jinja = require("jinja2", "report")
    environment = jinja.Environment(
        autoescape=True, undefined=jinja.StrictUndefined, trim_blocks=False, loader=jinja.FunctionLoader(page_file)
    )
    return environment.get_template(name)


def page_file(name: str) -> str:
    """Return the text of a file of this folder: a template, a style sheet or a script."""
    return resources.files("dtn_det.reports.page").joinpath(name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _script() -> str:
    return "\n".join(page_file(name) for name in _SCRIPTS)


@lru_cache(maxsize=1)
def _plotly() -> tuple[str, str]:
    """Return Plotly's JavaScript, compressed by gzip and encoded as base64, and its :func:`script_hash`."""
    script: str = require("plotly.offline", "report").get_plotlyjs()
    # Compression also hides the link in a comment of the licence, so that the page's text has no link to the network.
    packed = gzip.compress(script.encode(), 9, mtime=0)
    return base64.b64encode(packed).decode(), script_hash(script)


def script_hash(script: str) -> str:
    """Return the hash with which the page's Content-Security-Policy allows this script alone."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@dataclass(frozen=True)
class Finding:
    """A finding on a pair of models, with its evidence.

    Attributes:
        verdict: Whether the second model is ``better``, ``worse``, or ``even`` if no difference is significant.
        evidence: A sentence with the numbers that support the claim.
    """

    verdict: str
    claim: str
    evidence: str


def page_title(report: Report) -> str:
    """Return the title of the page."""
    names = [model.name for model in report.models]
    if len(names) <= _NAMED:
        return f"{' and '.join(names)} under corruption"
    return f"{len(names)} {_WHAT[report.task]} under corruption"


def lead(report: Report) -> str:
    """Return a sentence that says on which images and under which corruptions the models were evaluated."""
    about = report.provenance
    cells = {
        (scope, severity)
        for section in report.sections
        for scope, severity in zip(section.numbers["scope"], section.numbers["severity"], strict=True)
        if severity and scope
    }
    corruptions = len({scope for scope, _ in cells})
    severities = len({severity for _, severity in cells})
    where = f"{about.num_images:,} images of {about.data}" if about.num_images else about.data
    if not cells:
        return f"Evaluated on {where}."
    return (
        f"Evaluated on {where}, under {corruptions} corruption{'s' if corruptions != 1 else ''} at {severities} "
        f"severit{'ies' if severities != 1 else 'y'}."
    )


def facts(report: Report) -> list[tuple[str, str]]:
    """Return the main facts as names and texts: images, corruptions, baseline, intervals and date."""
    about = report.provenance
    found = [("Images", f"{about.num_images:,} ({about.selection})")] if about.num_images else []
    found += list(_corruption_facts(about.corruption)) if report.is_corrupted else []
    if report.task == "classification":
        found.append(("Baseline", report.baseline or "none"))
    intervals = f"{100 * about.level:g} %, {about.replicates:,} replicates" if about.replicates else "none"
    return [*found, ("Intervals", intervals), ("Date", about.date)]


def provenance(report: Report) -> list[tuple[str, str]]:
    """Return all data and settings that the numbers depend on, as names and texts."""
    about = report.provenance
    found = [("Data", about.data), ("Images", f"{about.num_images:,}"), ("Selection", about.selection)]
    if about.data_hash:
        found.append(("Hash of the data", about.data_hash))
    if report.is_corrupted:
        found.append(("Corruptions", about.corruption))
    if about.replicates:
        found.append(
            ("Bootstrap", f"{about.replicates:,} replicates of the images, seed {about.seed}, level {about.level:g}")
        )
    found += [(_capital(key), _setting(key, value)) for key, value in about.settings.items()]
    bad = [f"{model.name}: {model.bad_images}" for model in report.models if model.bad_images]
    found.append(("Bad images left out", ", ".join(bad) or "none"))
    versions = ", ".join(f"{library} {version}" for library, version in about.versions.items())
    return [*found, ("Versions", versions), ("Date", about.date)]


def findings(report: Report, sections: Sequence[Numbers]) -> list[Finding]:
    """Return findings on the first few pairs of each section."""
    found = []
    for numbers in sections:
        if not numbers.sets:
            continue
        section = numbers.section
        kind = f"{KIND_TITLES[section.kind]}: " if len(report.sections) > 1 else ""
        measure = corruption_measure(numbers, numbers.sets[0])
        for pair in section.pairs[:_MOST_FINDINGS]:
            overall = families(numbers, pair, numbers.sets[0])[0].changes
            change = next((one for one in overall if one.name == measure.mean), None)
            if change is not None:
                beyond = next((one for one in overall if one.name.startswith(("relative ", "rPC "))), None)
                found.append(_finding(pair, change, beyond, measure.direction, report.provenance, kind))
    return found


def _finding(
    pair: tuple[str, str],
    change: Change,
    beyond: Change | None,
    direction: Direction,
    about: Provenance,
    kind: str,
) -> Finding:
    """Make the finding on a pair; ``beyond`` is the difference in rPC or relative mCE, None if undefined."""
    first, second = pair
    level = about.level
    decimals = supported_decimals(change.interval, 2)
    numbers = [number_text(value, min(decimals, 1)) for value in (change.first, change.second)]
    evidence = (
        f"{change.label} is {numbers[0]} for {first} and {numbers[1]} for {second}, a difference of "
        f"{number_text(change.value, decimals, True)}"
    )
    if change.interval is not None and change.p_value is not None:
        ends = " to ".join(number_text(end, decimals, True) for end in change.interval)
        sign = "≤" if is_least(change.p_value, about.replicates) else "="
        evidence += f" ({100 * level:g} % interval {ends}, p {sign} {change.p_value:.3f})"
    if not change.significant(level):
        return Finding("even", f"{kind}{first} and {second} cannot be told apart.", f"{evidence}.")
    better = change.better(direction)
    if beyond is not None and not (beyond.significant(level) and beyond.better(direction) == better):
        shift = number_text(beyond.value, supported_decimals(beyond.interval, 2), True)
        evidence += f"; beyond what the clean images differ by, nothing is shown ({beyond.label} {shift})"
    winner, loser = (second, first) if better else (first, second)
    return Finding(
        "better" if better else "worse", f"{kind}{winner} is better under corruption than {loser}.", f"{evidence}."
    )


def _corruption_facts(text: str) -> Iterator[tuple[str, str]]:
    """Yield profile, JPEG step and seed from a store's line on corruptions; the whole line if it has another form."""
    made_by = CorruptionOrigin.parse(text).made_by
    if made_by is None:
        yield "Profile", text
        return
    yield "Profile", made_by.profile
    yield "JPEG step", "none" if made_by.jpeg_quality is None else f"quality {made_by.jpeg_quality}"
    yield "Seed", str(made_by.seed)


def _setting(key: str, value: str) -> str:
    if key == "categories":
        return ", ".join(str(name) for _, name in json.loads(value))
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:].replace("_", " ")
