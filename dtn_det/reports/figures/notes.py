"""What must be said about the numbers of a figure, under it and in its files' metadata."""

from __future__ import annotations

from collections.abc import Sequence

from dtn_det.reports.figures.subject import Subject
from dtn_det.reports.figures.text import printable

PARTIAL, IMPORTED = "†", "‡"
_MOST_NAMED = 2
_NO_BREAK = "\N{NO-BREAK SPACE}"


def signs(subject: Subject) -> dict[str, str]:
    """What is put behind the name of each model."""
    partial, imported = _partial(subject), _imported(subject)
    return {
        name: (PARTIAL if name in partial else "") + (IMPORTED if name in imported else "") for name in subject.models
    }


def caption(subject: Subject, intervals: str = "", *more: str, models: Sequence[str] | None = None) -> str:
    """What stands under a figure, printable.

    Args:
        subject: What it is drawn from.
        intervals: How it shows intervals, such as ``bands``; empty if it does not.
        more: What else there is to say.
        models: That it shows; None for all.
    """
    models = subject.models if models is None else models
    about = subject.report.provenance
    said = []
    if about.num_images:
        said.append(f"{about.num_images:,}{_NO_BREAK}images ({printable(about.data)})")
    if intervals and any(subject.with_intervals()):
        level, replicates = f"{100 * about.level:g}{_NO_BREAK}%", f"{about.replicates:,}{_NO_BREAK}replicates"
        said.append(f"{intervals}: {level} bootstrap intervals, {replicates}")
    said += more
    partial = {name: reason for name, reason in _partial(subject).items() if name in models}
    if partial:
        said.append(f"{PARTIAL}{_NO_BREAK}partial: {printable(_reasons(partial))}")
    if any(name in models for name in _imported(subject)):
        said.append(f"{IMPORTED}{_NO_BREAK}imported from other tools")
    return "; ".join(said)


def about_files(subject: Subject) -> str:
    """What the files of a figure say of it: everything but the day, so that two runs write the same."""
    report = subject.report
    about = report.provenance
    lines = [
        f"Models: {'; '.join(subject.models)}",
        f"Data: {about.data}, {about.num_images} images, selection {about.selection}",
        f"Corruptions: {about.corruption}",
        f"Intervals: level {about.level:g}, {about.replicates} replicates, seed {about.seed}",
        f"Baseline: {report.baseline or 'none'}",
        *(f"{name}: partial ({reason})" for name, reason in _partial(subject).items()),
        *(f"{name}: imported ({report.model(name).source})" for name in _imported(subject)),
        f"Versions: {', '.join(f'{library} {version}' for library, version in about.versions.items())}",
    ]
    # Control characters are not allowed in XML.
    return "\n".join("".join(sign for sign in line if sign.isprintable()) for line in lines)


def _partial(subject: Subject) -> dict[str, str]:
    """Why the numbers of a model are not those of the whole benchmark, where they are not."""
    found = {}
    for name in subject.models:
        had, wanted = subject.cells.get((name, subject.main_set), (0, 0))
        conditions = f"{had} of {wanted} conditions" if had < wanted else ""
        reasons = [reason for reason in (subject.report.model(name).partial, conditions) if reason]
        if reasons:
            found[name] = ", ".join(reasons)
    return found


def _imported(subject: Subject) -> list[str]:
    return [name for name in subject.models if subject.report.model(name).origin == "imported"]


def _reasons(partial: dict[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in partial.items():
        by_reason.setdefault(reason, []).append(name)
    if len(by_reason) == 1:
        return next(iter(by_reason))
    told = [f"{_some(names)} ({reason})" for reason, names in by_reason.items()]
    return "; ".join(told[:_MOST_NAMED]) + (" and others" if len(told) > _MOST_NAMED else "")


def _some(names: Sequence[str]) -> str:
    kept = ", ".join(names[:_MOST_NAMED])
    return kept if len(names) <= _MOST_NAMED else f"{kept} and {len(names) - _MOST_NAMED} more"
