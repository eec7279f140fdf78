"""Computes an overview: the report of each set, the numbers that stand for a set, and the differences of models."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dtn_det.corruptions.catalog import IMAGENET_3DCC_CATALOG, IMAGENET_C_CATALOG
from dtn_det.corruptions.cells import CLEAN
from dtn_det.datasets.coco.known_sets import COCO_O
from dtn_det.datasets.sets import set_name
from dtn_det.errors import ReportError
from dtn_det.metrics import METRICS
from dtn_det.metrics.resampling import holm_by_key
from dtn_det.metrics.shifts import FITS, AccuracyShift, Array
from dtn_det.reports.collect import ReportOptions, collect
from dtn_det.reports.contents import Direction, Report, ReportModel
from dtn_det.reports.numbers import Number, Numbers, PairedDifference
from dtn_det.reports.overview.coco_o import domain_means, effective_robustness
from dtn_det.reports.overview.contents import EFFECTIVE, MEAN_AP, Key, Overview, OverviewColumn
from dtn_det.reports.overview.grouping import SetSources
from dtn_det.reports.overview.shifts import (
    CleanModels,
    ModelShift,
    clean_models,
    shift_difference,
    shift_number,
    shifts_of,
    twins_of,
)
from dtn_det.reports.sources import find_pairs, parse_pairs
from dtn_det.robustness.store import ModelStore

Pair = tuple[str, str]


class _Found(NamedTuple):
    """A column with the numbers of the models, notes on them, and the differences of pairs."""

    column: OverviewColumn
    numbers: Mapping[str, Number]
    notes: Mapping[str, str]
    changes: Mapping[Pair, PairedDifference]


_NAMES = {IMAGENET_C_CATALOG.title: "mCE", IMAGENET_3DCC_CATALOG.title: "mCE_3d"}
"""The name of the mCE over the corruptions of a benchmark."""


def collect_overview(
    sets: Sequence[SetSources], options: ReportOptions, on_set: Callable[[str], None] = lambda name: None
) -> Overview:
    """Compute the report of each set and the overview of all.

    Args:
        sets: At least one set.
        options: The options of each report. Models, a baseline and pairs need not be in all sets.
        on_set: Called with the name of each set before its report is computed.

    Raises:
        ReportError: A model has other weights on another set, or an option does not fit; see
            :func:`dtn_det.reports.collect.collect`.
        StoreError: A store is damaged.
    """
    _check_weights(sets)
    names = list(dict.fromkeys(name for one in sets for name in one.sources.models))
    baseline = None if options.baseline == "alexnet" else options.baseline
    if baseline is not None and baseline not in names:
        raise ReportError(f"expected --baseline out of alexnet, {', '.join(names)}, got {baseline!r}")
    pairs = find_pairs(names, baseline) if options.pairs is None else parse_pairs(options.pairs, names)
    reports: dict[str, Report] = {}
    found: list[_Found] = []
    clean = clean_models([one.sources for one in sets])
    remarks: list[str] = []
    for one in sets:
        on_set(one.title)
        there = [":".join(pair) for pair in pairs if set(pair) <= set(one.sources.models)]
        own = replace(
            options,
            models=tuple(one.sources.models),
            baseline=baseline if baseline in one.sources.models else None,
            pairs=there,
        )
        report = collect(one.sources, own)
        reports[one.name] = report
        remarks += [f"{one.title}: {text}" for text in report.remarks]
        images = report.provenance.data, report.provenance.data_hash
        same = [
            name for name, other in reports.items() if (other.provenance.data, other.provenance.data_hash) == images
        ]
        before = [part for part in found if part.column.name in same]
        found += [part for part in _of_set(one, report, own, clean) if not _shown(part, before)]
    found += _over_domains(sets, reports, pairs, options)
    changes = {(*pair, one.column.key): change for one in found for pair, change in one.changes.items()}
    return Overview(
        models=tuple(_model(name, reports) for name in names),
        columns=tuple(one.column for one in found),
        numbers={(model, one.column.key): number for one in found for model, number in one.numbers.items()},
        differences=_adjusted(changes, pairs),
        pairs=pairs,
        reports=reports,
        titles={one.name: one.title for one in sets},
        known={one.name: one.known for one in sets},
        notes={(model, one.column.key): note for one in found for model, note in one.notes.items() if note},
        remarks=tuple(remarks),
    )


def _check_weights(sets: Sequence[SetSources]) -> None:
    """Refuse models of one name with other weights on another set."""
    seen: dict[str, tuple[str, str]] = {}
    for one in sets:
        for name, model in one.sources.models.items():
            # The hash of imported results is that of their files, which are others for each set.
            if not isinstance(model, ModelStore) or model.store.manifest.imported:
                continue
            digest, first = seen.setdefault(name, (model.manifest.weights_hash, one.title))
            if digest != model.manifest.weights_hash:
                raise ReportError(
                    f"expected one model of the name {name!r}, got other weights on {first} and on {one.title}: tell "
                    "the stores apart with labels, such as first=STORE second=STORE, or evaluate one of them again"
                )


def _of_set(one: SetSources, report: Report, options: ReportOptions, clean: CleanModels) -> Iterator[_Found]:
    """Yield the numbers that stand for a set.

    For detectors, they are AP on clean images and mPC. For classifiers, they are top-1 on clean images, the mean over
    corruptions, and, for natural shifts, the drop and the effective robustness.
    """
    if report.task == "detection":
        for section in report.sections:
            yield from _of_detectors(one, Numbers.of(report, section))
        return
    numbers = Numbers.of(report, report.sections[0])
    which = numbers.sets[0]
    corrupted = numbers.has("mean error", which)
    if any(numbers.get(model.name, which, "error", CLEAN[0]) for model in numbers.models):
        measure = "clean top-1" if corrupted else "top-1"
        column = _column(one, measure, "%", "up")
        yield _read(column, numbers, which, "error", CLEAN[0], flipped=True)
    if corrupted:
        # Papers give CIFAR and C-bar as mean errors; a model of the store as their baseline is in the set's own table.
        name = _NAMES.get(numbers.catalog.title, "")
        relative = bool(name) and numbers.has("mCE", which) and _is_imagenet(report)
        column = _column(one, name, "", "down") if relative else _column(one, "mean error", "%", "down")
        yield _read(column, numbers, which, "mCE" if relative else "mean error")
        return
    twins, fit = twins_of(one.sources), FITS.get(one.known)
    if twins:
        drops = shifts_of(one.sources, twins, options)
        if drops:
            yield _of_shifts(_column(one, "drop", "points", "down"), drops, lambda own: own.drop, report, options)
    if fit is not None:
        shifts = shifts_of(one.sources, twins if fit.twin else clean, options)
        if shifts:
            column = _column(one, EFFECTIVE, "points", "up")
            found = _of_shifts(column, shifts, lambda own: own.effective_robustness(fit), report, options)
            beyond = [name for name, own in shifts.items() if not fit.covers(float(own.accuracies.clean[0]))]
            yield found._replace(notes={**found.notes, **dict.fromkeys(beyond, "beyond the fit")})


def _of_detectors(one: SetSources, numbers: Numbers) -> Iterator[_Found]:
    """Yield AP on clean images and mPC, of boxes or of masks; nothing if a section has no AP."""
    if not numbers.sets:
        return
    which, metric = numbers.sets[0], METRICS[0]
    corrupted = numbers.has(f"mPC {metric}", which)
    kind = "mask " if numbers.section.kind == "segm" else ""
    if any(numbers.get(model.name, which, metric, CLEAN[0]) for model in numbers.models):
        column = _column(one, f"{kind}{'clean ' if corrupted else ''}{metric}", "%", "up")
        yield _read(column, numbers, which, metric, CLEAN[0])
    if corrupted:
        yield _read(_column(one, f"{kind}mPC", "%", "up"), numbers, which, f"mPC {metric}")


def _over_domains(
    sets: Sequence[SetSources], reports: Mapping[str, Report], pairs: Sequence[Pair], options: ReportOptions
) -> Iterator[_Found]:
    """Yield the mean AP over the domains of COCO-O, and the effective robustness of detectors."""
    if any(report.task != "detection" for report in reports.values()):
        return
    means = domain_means(sets, options)
    for measure, unit, found in (
        (MEAN_AP, "%", means),
        (EFFECTIVE, "points", effective_robustness(means, sets, options)),
    ):
        if not found:
            continue
        changes = {
            pair: shift_difference(found[pair[0]].values, found[pair[1]].values, options.level)
            for pair in pairs
            if set(pair) <= found.keys() and found[pair[0]].images == found[pair[1]].images
        }
        name = set_name(COCO_O)
        yield _Found(
            OverviewColumn(f"{name}/{set_name(measure)}", name, COCO_O, measure, "", unit, "up"),
            {model: shift_number(own.values, options.level) for model, own in found.items()},
            {model: own.note for model, own in found.items()},
            {pair: change for pair, change in changes.items() if change is not None},
        )


def _of_shifts(
    column: OverviewColumn,
    shifts: Mapping[str, ModelShift],
    measure: Callable[[AccuracyShift], Array],
    report: Report,
    options: ReportOptions,
) -> _Found:
    """Return a number of the accuracies on clean images and on the set, and its differences on the same images."""
    values = {name: measure(own.accuracies) for name, own in shifts.items()}
    changes = {
        (first, second): shift_difference(values[first], values[second], options.level)
        for first, second in report.sections[0].pairs
        if first in values and second in values and shifts[first].images == shifts[second].images
    }
    return _Found(
        column,
        {name: shift_number(own, options.level) for name, own in values.items()},
        {
            name: "partial (clean images)" if own.partial else _partial(report.model(name))
            for name, own in shifts.items()
        },
        {pair: change for pair, change in changes.items() if change is not None},
    )


def _is_imagenet(report: Report) -> bool:
    """Return whether the classes are ImageNet's; imported results of a known benchmark have no setting of them."""
    return report.provenance.settings.get("classes", "imagenet") == "imagenet"


def _column(one: SetSources, measure: str, unit: str, direction: Direction) -> OverviewColumn:
    word, known = set_name(measure), set_name(one.known)
    published = f"{known}/{word}"
    if measure == "clean top-1":
        # The clean images are those of the set that was corrupted.
        published = f"{re.sub('-(c|c-bar|3dcc)$', '', known)}/top-1"
    return OverviewColumn(
        f"{one.name}/{word}", one.name, one.title, measure, published if known else "", unit, direction
    )


def _read(
    column: OverviewColumn, numbers: Numbers, which: str, name: str, scope: str = "", *, flipped: bool = False
) -> _Found:
    """Read a number of all models and its differences; an error is flipped to the accuracy."""
    found = {}
    for model in numbers.models:
        number = numbers.get(model.name, which, name, scope)
        if number is not None and math.isfinite(number.value):
            found[model.name] = (
                number._replace(value=100 - number.value, low=100 - number.high, high=100 - number.low)
                if flipped
                else number
            )
    changes = {}
    for pair in numbers.section.pairs:
        change = numbers.difference(pair, which, name, scope)
        if change is not None:
            changes[pair] = (
                change._replace(value=-change.value, low=-change.high, high=-change.low) if flipped else change
            )
    notes = {name: number.note or _partial(numbers.report.model(name)) for name, number in found.items()}
    return _Found(column, found, notes, changes)


def _partial(model: ReportModel) -> str:
    """Return the note on a model whose numbers cover a part of the images; the remarks of the report say which part."""
    return "partial" if model.partial else ""


def _shown(part: _Found, before: Sequence[_Found]) -> bool:
    """Return whether the same accuracy on clean images stands in an earlier column, for the same images."""
    return part.column.measure == "clean top-1" and any(
        other.column.measure in ("top-1", "clean top-1")
        and other.numbers.keys() == part.numbers.keys()
        # Without a bootstrap, the ends of the intervals are NaN.
        and all(np.array_equal(other.numbers[name], part.numbers[name], equal_nan=True) for name in part.numbers)
        for other in before
    )


def _adjusted(
    differences: Mapping[tuple[str, str, Key], PairedDifference], pairs: Sequence[Pair]
) -> dict[tuple[str, str, Key], PairedDifference]:
    """Adjust the p-values of each pair together, over all sets, by Holm's method."""
    found = {}
    for pair in pairs:
        own = {key: change for key, change in differences.items() if key[:2] == pair}
        p_values = holm_by_key({key: change.p_value for key, change in own.items()})
        for key, change in own.items():
            found[key] = change._replace(p_adjusted=p_values.get(key, math.nan))
    return found


def _model(name: str, reports: Mapping[str, Report]) -> ReportModel:
    """Return the description of a model, that of the first set that has it; partial sets have notes of their own."""
    of_model = [model for report in reports.values() for model in report.models if model.name == name]
    return replace(of_model[0], partial="")
