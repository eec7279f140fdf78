"""Where the numbers of a report come from, as lines under its tables."""

from __future__ import annotations

from dtn_det.metrics import BASELINES
from dtn_det.reports.contents import Report


def footer(report: Report) -> tuple[str, ...]:
    """Data, corruptions, baseline, intervals, versions and date, one a line."""
    about = report.provenance
    lines = [f"Data: {_data(report)}.", f"Corruptions: {about.corruption}."]
    if report.task == "classification":
        lines.append(f"CE and relative CE: {_baseline(report.baseline)}.")
    lines.append(_intervals(report))
    versions = ", ".join(f"{library} {version}" for library, version in about.versions.items())
    lines.append(f"Versions: {versions}. Report of {about.date}.")
    return tuple(lines)


def _data(report: Report) -> str:
    about = report.provenance
    if not about.num_images:
        return about.data
    chosen = "all" if about.selection == "all" else f"selection {about.selection}"
    hashed = f", list of files {about.data_hash[:12]}" if about.data_hash else ""
    return f"{about.data}, {about.num_images:,} images ({chosen}{hashed})"


def _baseline(baseline: str | None) -> str:
    if baseline is None:
        return "none, as no baseline was named"
    if baseline in BASELINES:
        return "divided by AlexNet's published errors on ImageNet-C"
    return f"divided by the errors of {baseline} on the same images"


def _intervals(report: Report) -> str:
    about = report.provenance
    if not about.replicates:
        return "Intervals: none."
    return (
        f"Intervals: {100 * about.level:g} %, percentile bootstrap over images, {about.replicates:,} replicates, "
        f"seed {about.seed}."
    )
