"""Makes the page of an overview: one HTML file with the tables of all sets, and links to the page of each set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dtn_det.reports.numbers import Numbers
from dtn_det.reports.overview.contents import Overview
from dtn_det.reports.overview.tables import footer, overview_tables
from dtn_det.reports.page import lead, page_file, page_template, script_hash
from dtn_det.reports.page.tables import PageTable, apart_views, summary_views
from dtn_det.reports.tables.published import PublishedRow, published_for

_SCRIPTS = ("page.js", "tables.js")
_NAMED = 3


@dataclass(frozen=True)
class SetView:
    """What the page shows of a set."""

    name: str
    title: str
    lead: str
    views: tuple[PageTable, ...]


def render_overview(overview: Overview, published: Sequence[PublishedRow] = ()) -> str:
    """Return the page as HTML, which a browser opens without a network; links lead to the pages of the sets.

    Args:
        published: Rows of published numbers; see :func:`dtn_det.reports.tables.published.rows_of_sets`.
    """
    script = "\n".join(page_file(name) for name in _SCRIPTS)
    about = overview.some_report.provenance
    titles = list(overview.titles.values())
    names = [model.name for model in overview.models]
    kind = "detectors" if overview.some_report.task == "detection" else "classifiers"
    who = " and ".join(names) if len(names) < _NAMED else f"{len(names)} {kind}"
    intervals = f"{100 * about.level:g} %, {about.replicates:,} replicates" if about.replicates else "none"
    page: str = page_template("overview.html").render(
        title=f"{who} on {titles[0] if len(titles) == 1 else f'{len(titles)} sets'}",
        lead=f"Evaluated on {', '.join(titles)}.",
        facts=[("Models", str(len(names))), ("Sets", str(len(titles))), ("Intervals", intervals), ("Date", about.date)],
        sets=_set_views(overview, with_published=bool(published)),
        remarks=overview.remarks,
        overview=[view for table in overview_tables(overview, published) for view in apart_views(table)],
        footer=footer(overview),
        level=f"{100 * about.level:g}",
        css=page_file("page.css"),
        script=script,
        script_hashes=script_hash(script),
    )
    return page


def _set_views(overview: Overview, *, with_published: bool) -> list[SetView]:
    found = []
    for name, report in overview.reports.items():
        published = published_for(report, overview.known[name]) if with_published else ()
        views = summary_views([Numbers.of(report, section) for section in report.sections], published)
        # Ids are unique on the page.
        own = tuple(replace(view, id=f"{view.id}-{name}") for view in views)
        found.append(SetView(name, overview.titles[name], lead(report), own))
    return found
