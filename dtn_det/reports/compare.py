"""Is one model more robust than another, where, by how much, and how sure is that?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from dtn_det.errors import ReportError
from dtn_det.metrics import METRICS
from dtn_det.reports.contents import Kind, Report, Section
from dtn_det.reports.tables.changes import EACH_CORRUPTION, EACH_GROUP, OVERALL, Change, families
from dtn_det.reports.tables.measures import corruption_measure
from dtn_det.reports.tables.numbers import Numbers, joined_notes, model_note, shared_note
from dtn_det.reports.tables.table import Direction

Verdict = Literal["better", "worse", "not shown", "untested"]
"""Of the second model: ``not shown`` if the difference may be chance, ``untested`` without records of images."""

FORMAT = "dtn-det comparison"
VERSION = 1


@dataclass(frozen=True)
class Comparison:
    """The second model against the first, all numbers second minus first, in percentage points.

    Attributes:
        first: Name of a model.
        second: Name of the other.
        kind: Of the numbers.
        direction: Which numbers are better.
        verdict: On :attr:`overall`.
        overall: The number over all corruptions.
        clean: That of the clean images, None without any.
        relative: What corruptions take away relative to clean performance or to the baseline; None where undefined.
        groups: Of corruptions, greatest gain of the second first.
        corruptions: Likewise.
        level: Of the intervals; a p-value below 1 - level is significant.
        note: What must be read with all numbers, such as ``partial (limit=500 of 50000 seed=0)``.
        report: That was asked.
    """

    first: str
    second: str
    kind: Kind
    direction: Direction
    verdict: Verdict
    overall: Change
    clean: Change | None
    relative: Change | None
    groups: tuple[Change, ...]
    corruptions: tuple[Change, ...]
    level: float
    note: str
    report: Report

    def verdict_on(self, change: Change) -> Verdict:
        """What a difference shows."""
        if change.adjusted is None:
            return "untested"
        if not change.significant(self.level):
            return "not shown"
        return "better" if change.better(self.direction) else "worse"


def compare(report: Report, first: str, second: str, metric: str = "AP", kind: Kind | None = None) -> Comparison:
    """Compare two models of a report.

    Args:
        report: With both models; differences are tested where it has their pair.
        first: Name of a model.
        second: Name of the one that may be more robust.
        metric: Average precision that detectors are compared by.
        kind: ``bbox`` or ``segm``; None: the report's first.

    Raises:
        ReportError: No such models, kind or metric, or nothing that both were evaluated under.
    """
    numbers = Numbers.of(report, _section(report, kind))
    known = [model.name for model in numbers.models]
    for name in (first, second):
        if name not in known:
            raise ReportError(f"expected models out of {', '.join(known)}, got {name!r}")
    if first == second:
        raise ReportError(f"expected two models, got {first!r} twice")
    if metric not in METRICS:
        raise ReportError(f"expected --metric out of {', '.join(METRICS)}, got {metric!r}")
    which = numbers.sets[0] if numbers.sets else "benchmark"
    measure = corruption_measure(numbers, which)
    found = {family.title: family.changes for family in families(numbers, (first, second), which, metric)}
    overall = {change.name: change for change in found.get(OVERALL, ())}
    of_detectors = report.task == "detection"
    main = overall.get(f"mPC {metric}" if of_detectors else measure.mean)
    if main is None:
        raise ReportError(
            f"expected {metric if of_detectors else 'errors'} of {first} and {second} under corruptions, got none: "
            "evaluate both with `dtn-det mce` or `dtn-det mpc`"
        )
    down = measure.direction == "down"

    def by_gain(changes: Sequence[Change]) -> tuple[Change, ...]:
        return tuple(sorted(changes, key=lambda change: change.value if down else -change.value))

    comparison = Comparison(
        first=first,
        second=second,
        kind=numbers.section.kind,
        direction=measure.direction,
        verdict="untested",
        overall=main,
        clean=overall.get(f"P {metric}" if of_detectors else "error"),
        relative=overall.get(f"rPC {metric}" if of_detectors else "relative mCE"),
        groups=by_gain(found.get(EACH_GROUP, ())),
        corruptions=by_gain(found.get(EACH_CORRUPTION, ())),
        level=report.provenance.level,
        note=_note(report, first, second, main.partial),
        report=report,
    )
    return replace(comparison, verdict=comparison.verdict_on(main))


def comparison_json(comparison: Comparison) -> str:
    """A comparison as JSON; what is unknown is null."""
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    for name, value in vars(comparison).items():
        if isinstance(value, Change):
            content[name] = _told(comparison, value)
        elif name in ("groups", "corruptions"):
            content[name] = [_told(comparison, change) for change in value]
        elif name == "report":
            content["provenance"] = asdict(value.provenance)
            content["baseline"] = value.baseline
        else:
            content[name] = value
    return json.dumps(content, indent=2, allow_nan=False)


def _told(comparison: Comparison, change: Change) -> dict[str, Any]:
    return {**asdict(change), "verdict": comparison.verdict_on(change)}


def _note(report: Report, first: str, second: str, missing: str) -> str:
    models = [report.model(first), report.model(second)]
    shared = shared_note(models)
    own = [f"{model.name}: {note}" for model in models if (note := model_note(model, models))]
    return ", ".join(filter(None, (joined_notes(missing, shared), *own)))


def _section(report: Report, kind: Kind | None) -> Section:
    for section in report.sections:
        if kind in (None, section.kind):
            return section
    kinds = ", ".join(section.kind for section in report.sections)
    raise ReportError(f"expected --kind out of {kinds}, got {kind!r}")
