"""Draw the figures of a report for print, and write them to files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dtn_det._optional import require

require("matplotlib", "report")

from matplotlib.figure import Figure

from dtn_det.errors import NothingToDrawError
from dtn_det.metrics.error_costs import ERROR_METRICS
from dtn_det.reports.contents import KIND_TITLES, Report, Section
from dtn_det.reports.figures.curves import draw_corruptions, draw_severities
from dtn_det.reports.figures.data import FigureData
from dtn_det.reports.figures.errors import draw_errors
from dtn_det.reports.figures.forest import draw_forest
from dtn_det.reports.figures.heatmap import draw_heatmap
from dtn_det.reports.figures.layout import about_files
from dtn_det.reports.figures.means import draw_clean_corrupted, draw_groups
from dtn_det.reports.figures.reliability import draw_reliability
from dtn_det.system.drawing import rendered
from dtn_det.system.files import write_bytes

Draw = Callable[[Report, Section], Figure]

FIGURES: Mapping[str, tuple[str, Draw]] = {
    "severities": ("Mean performance by severity", draw_severities),
    "corruptions": ("Performance under each corruption by severity", draw_corruptions),
    "heatmap": ("Every corruption and model", draw_heatmap),
    "groups": ("Performance under each group of corruptions", draw_groups),
    "clean_corrupted": ("Clean against corrupted performance", draw_clean_corrupted),
    "reliability": ("Reliability of the confidences", draw_reliability),
    "errors": ("Cost of each type of error by severity", draw_errors),
    "forest": ("Paired differences", draw_forest),
}
"""Title and drawing function of each figure by its name. The functions do not change matplotlib's settings."""


@dataclass(frozen=True)
class Drawn:
    """The figures of a report.

    Attributes:
        figures: The figures by name: the name in :data:`FIGURES`, an underscore, and the kind of the section.
        about: Description of each figure for the metadata of its files.
        left_out: For each figure that was not drawn, the reason.
    """

    figures: Mapping[str, Figure]
    titles: Mapping[str, str]
    about: Mapping[str, str]
    left_out: Mapping[str, str]


def draw_figures(report: Report) -> Drawn:
    """Draw all figures that a report has numbers for."""
    figures: dict[str, Figure] = {}
    titles: dict[str, str] = {}
    about: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for section in report.sections:
        for name, (title, draw) in FIGURES.items():
            full = f"{name}_{section.kind}"
            if name in ("reliability", "errors") and not _has_data(name, section):
                continue
            try:
                figures[full] = draw(report, section)
            except NothingToDrawError as error:
                left_out[full] = str(error)
                continue
            titles[full] = f"{title} ({KIND_TITLES[section.kind].lower()})"
            about[full] = about_files(FigureData.of(report, section))
    return Drawn(figures, titles, about, left_out)


def _has_data(name: str, section: Section) -> bool:
    """Return whether the figure fits the section: of classifiers, or of detectors whose errors have known costs."""
    if name == "reliability":
        return section.kind == "top1"
    return bool(section.numbers["name"].isin(ERROR_METRICS).any())


def write_figures(report: Report, folder: Path) -> tuple[dict[str, list[Path]], Mapping[str, str]]:
    """Write the figures as PDF, SVG and PNG; each file is complete or absent.

    Args:
        folder: Folder for the files, created if it does not exist.

    Returns:
        The files of each figure by its name, and :attr:`Drawn.left_out`.
    """
    drawn = draw_figures(report)
    found: dict[str, list[Path]] = {}
    for name, figure in drawn.figures.items():
        for kind, data in rendered(figure, drawn.titles[name], drawn.about[name]).items():
            path = folder / f"{name}.{kind}"
            write_bytes(path, data)
            found.setdefault(name, []).append(path)
    return found, drawn.left_out
