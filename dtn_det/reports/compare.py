"""Compare two models: which is more robust, under which corruptions, by how much, and with what certainty."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dtn_det.errors import ReportError
from dtn_det.metrics import LVIS_METRICS
from dtn_det.reports.changes import EACH_CORRUPTION, EACH_GROUP, OVERALL, Change, families
from dtn_det.reports.contents import Direction, Kind, Report, Section
from dtn_det.reports.labels import joined_notes, model_note, shared_note
from dtn_det.reports.measures import corruption_measure
from dtn_det.reports.numbers import Numbers
from dtn_det.reports.sources import find_pairs, open_sources

Verdict = Literal["better", "worse", "not shown", "untested"]
"""A verdict on the second model against the first: ``not shown`` if the difference is not significant, ``untested`` if
the models could not be compared image by image."""

FORMAT = "dtn-det comparison"
VERSION = 1

_HOW = "name them as STORE A B, STORE:A STORE:B, or --store STORE A B"


@dataclass(frozen=True)
class Comparison:
    """The comparison of two models; all differences are second minus first, in percentage points.

    Attributes:
        kind: Kind of the numbers: ``top1``, ``bbox`` or ``segm``.
        direction: Whether larger (``up``) or smaller (``down``) numbers are better.
        verdict: The verdict on :attr:`overall`.
        overall: The change of the mean over all corruptions.
        clean: The change on the clean images; None if they were not evaluated.
        relative: The change of rPC or relative mCE; None where undefined.
        groups: The change of each group of corruptions, sorted by the gain of the second model, the largest first.
        corruptions: The change of each corruption, sorted in the same way.
        level: Confidence level of the intervals; an adjusted p-value below 1 - level is significant.
        note: A caveat for all numbers, such as ``partial (limit=500 of 50000 seed=0)``.
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
        """Return the verdict on one change."""
        if change.adjusted is None:
            return "untested"
        if not change.significant(self.level):
            return "not shown"
        return "better" if change.better(self.direction) else "worse"


def compare(report: Report, first: str, second: str, metric: str = "AP", kind: Kind | None = None) -> Comparison:
    """Compare two models of a report.

    Args:
        report: A report with both models; differences are tested if the models are one of its pairs.
        metric: Average precision by which detectors are compared.
        kind: ``bbox`` or ``segm``; None for the first section of the report.

    Raises:
        ReportError: The report has no such models or kind, the metric is unknown, or a model has no mean over
            corruptions.
    """
    numbers = Numbers.of(report, _section(report, kind))
    known = [model.name for model in numbers.models]
    for name in (first, second):
        if name not in known:
            raise ReportError(f"expected models out of {', '.join(known)}, got {name!r}")
    if first == second:
        raise ReportError(f"expected two models, got {first!r} twice")
    if metric not in LVIS_METRICS:
        raise ReportError(f"expected --metric out of {', '.join(LVIS_METRICS)}, got {metric!r}")
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
    """Return a comparison as JSON; unknown values are null."""
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


@dataclass(frozen=True)
class Targets:
    """Two models to compare, and the stores that hold them.

    Attributes:
        stores: Folders with results, the argument of :func:`dtn_det.reports.collect.collect`.
    """

    stores: tuple[str, ...]
    first: str
    second: str


def find_targets(words: Sequence[str], store: str | Path | None = None) -> Targets:
    """Find the two models that a user means.

    Args:
        words: The words of the command line, in one of these forms:

            * ``A B``, together with ``store``,
            * ``STORE``, which holds two models; of twins, LayerNorm is first,
            * ``STORE A B``,
            * ``STORE:A STORE:B``,
            * ``STORE:A B``, with both models in this store,
            * two stores with one model each.
        store: Folder with both models; None if the words name the folders.

    Raises:
        ReportError: The words do not name two models, or a model is unknown.
    """
    if store is not None:
        return _of_one_store(str(store), words)
    if words and _is_store(words[0]) and len(words) in (1, 3):
        return _of_one_store(words[0], words[1:])
    if len(words) != 2:
        raise ReportError(f"expected two models, got {' '.join(words) or 'nothing'}: {_HOW}")
    (one, first), (other, second) = _split(words[0]), _split(words[1])
    other = other or one
    if not one or not other:
        raise ReportError(f"expected a folder with results, got {words[0]!r}: {_HOW}")
    first, second = first or _only_model(one), second or _only_model(other)
    if Path(one).resolve() == Path(other).resolve():
        return _of_one_store(one, (first, second))
    return _of_two_stores((one, other), (first, second))


def _of_one_store(store: str, names: Sequence[str]) -> Targets:
    known = _models(store)
    if not names and len(known) == 2:
        return Targets((store,), *find_pairs(known)[0])
    if len(names) != 2 or names[0] == names[1]:
        raise ReportError(f"expected two models out of {', '.join(known)}, got {', '.join(names) or 'none'}: {_HOW}")
    for name in names:
        _check_known(store, name, known)
    return Targets((store,), names[0], names[1])


def _of_two_stores(stores: tuple[str, str], names: tuple[str, str]) -> Targets:
    known = [_models(store) for store in stores]
    for store, name, own in zip(stores, names, known, strict=True):
        _check_known(store, name, own)
    if not set(known[0]) & set(known[1]):
        return Targets(stores, *names)
    # The stores have models of the same name: distinguish them by labels, the names of the folders.
    folders = [Path(store).resolve().name for store in stores]
    labels = folders if folders[0] != folders[1] else ["first", "second"]
    labelled = tuple(f"{label}={store}" for label, store in zip(labels, stores, strict=True))
    return Targets(labelled, f"{labels[0]}/{names[0]}", f"{labels[1]}/{names[1]}")


def _split(word: str) -> tuple[str, str]:
    """Split ``STORE``, ``STORE:MODEL`` or ``MODEL`` into store and model; an absent part is empty."""
    if _is_store(word):
        return word, ""
    for place, sign in enumerate(word):
        if sign == ":" and _is_store(word[:place]):
            return word[:place], word[place + 1 :]
    return "", word


def _is_store(text: str) -> bool:
    return Path(text).is_dir()


def _models(store: str) -> list[str]:
    return list(open_sources([store]).models)


def _only_model(store: str) -> str:
    known = _models(store)
    if len(known) != 1:
        raise ReportError(f"expected a store with one model, got {store} with {', '.join(known)}: {_HOW}")
    return known[0]


def _check_known(store: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ReportError(f"expected a model out of {', '.join(known)} in {store}, got {name!r}")
