"""Computes the contents of a report from stores of results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import pandas as pd

from dtn_det.corruptions.cells import CLEAN
from dtn_det.datasets.remarks import counted
from dtn_det.errors import ReportError
from dtn_det.metrics.resampling import LEVEL, REPLICATES
from dtn_det.reports.classes import class_names, class_rows, detector_class_rows
from dtn_det.reports.classification import ClassifierNumbers, classification_section, numbers_of_records, read_records
from dtn_det.reports.classification import numbers_of_frame as classifier_of_frame
from dtn_det.reports.contents import (
    CLASS_COLUMNS,
    KIND_TITLES,
    Evaluator,
    Kind,
    Provenance,
    Report,
    ReportModel,
    Section,
)
from dtn_det.reports.detection import DetectorNumbers, detection_section, images_left_out, numbers_of_stores
from dtn_det.reports.detection import numbers_of_frame as detector_of_frame
from dtn_det.reports.numbers import Row
from dtn_det.reports.sources import Sources, find_pairs, in_order, open_sources, parse_pairs
from dtn_det.robustness.classification.baseline import (
    BaselineChoice,
    baseline_remarks,
    choose_baseline,
    count_labels,
)
from dtn_det.robustness.detection.evaluation import bad_images
from dtn_det.robustness.detection.truth import CocoTruth
from dtn_det.robustness.importing import MMDET_DETECTIONS, MMDET_RULE, Imported
from dtn_det.robustness.store import ModelStore

Pairs = Sequence[tuple[str, str]]
_BadImages = dict[str, Mapping[int, str]]

_UNKNOWN_CORRUPTION = (
    "imported results; how the images were corrupted is not known, so a difference from another model under "
    "corruptions may be one of the images"
)


@dataclass(frozen=True)
class ReportOptions:
    """The options of a report.

    Attributes:
        models: Names of the models to show, in this order; all if empty.
        baseline: For classifiers, the model whose errors are the denominators of CE and mCE: ``alexnet`` or a model of
            the stores. With None, AlexNet is taken for the data of ImageNet-C, and other data get no CE and mCE. For
            detectors, the model with which the other models are compared.
        pairs: First and second model of each difference, as ``FIRST:SECOND``; None to choose them by
            :func:`dtn_det.reports.sources.find_pairs`.
        replicates: Number of bootstrap replicates; 0 for no intervals.
        level: Confidence level of the intervals, between 0 and 1.
        selective: For classifiers, whether to compute the metrics of selective classification for all corruptions,
            rather than for the clean images alone.
        errors: For detectors, whether to compute the costs of the error types.
        classwise: For detectors, whether to find the categories that lose most and least AP.
        processes: Number of processes that evaluate detectors at the same time. Each process imports the main module,
            so a script that asks for several must guard its code with ``if __name__ == "__main__"``.
        evaluator: What evaluates detectors. ``faster-coco-eval`` is a second opinion without intervals.
    """

    models: Sequence[str] = ()
    baseline: str | None = None
    pairs: Sequence[str] | None = None
    replicates: int = REPLICATES
    seed: int = 0
    level: float = LEVEL
    selective: bool = False
    errors: bool = False
    classwise: bool = False
    processes: int = 1
    evaluator: Evaluator = "hotcoco"


def collect(
    stores: Sequence[str | Path] | Sources,
    options: ReportOptions | None = None,
    on_model: Callable[[str], None] = lambda name: None,
) -> Report:
    """Compute the contents of a report.

    Args:
        stores: Folders with results, or the result of :func:`~dtn_det.reports.sources.open_sources`. If a folder is
            given as ``LABEL=FOLDER``, its models are called ``LABEL/NAME``.
        on_model: Called with each model's name before its records are read.

    Raises:
        ReportError: The stores are of different tasks, images or corruptions, or two models have the same name. A name
            is unknown, an option is out of range, or there is nothing to show.
        StoreError: A store is damaged.
    """
    options = options or ReportOptions()
    sources = stores if isinstance(stores, Sources) else open_sources(stores, options.models)
    report = collect_sources(sources, options, on_model)
    if not report.sections:
        raise ReportError(
            f"expected an average precision of {', '.join(sources.models)}, got none, or -1 in every cell, as COCO's "
            "evaluation writes where there is nothing to find: evaluate a set that has objects"
        )
    return report


def collect_sources(
    sources: Sources,
    options: ReportOptions,
    on_model: Callable[[str], None] = lambda name: None,
    on_cells: Callable[[int], None] = lambda count: None,
) -> Report:
    """Compute the contents of a report of models whose stores are open; see :func:`collect`.

    Unlike :func:`collect`, this returns a report without sections if no average precision of detectors is defined.

    Args:
        on_cells: Called with the number of cells on which a detector was just evaluated.
    """
    if options.replicates < 0 or options.seed < 0 or not 0 < options.level < 1:
        raise ReportError(
            f"expected at least 0 replicates, a seed of at least 0 and a level between 0 and 1, got "
            f"{options.replicates}, {options.seed} and {options.level}"
        )
    if options.evaluator != "hotcoco":
        if sources.task != "detection":
            raise ReportError(
                f"expected results of detectors with --evaluator {options.evaluator}, got {sources.task}: leave the "
                "option out"
            )
        options = replace(options, replicates=0)
    if (options.errors or options.classwise) and (sources.task != "detection" or options.evaluator != "hotcoco"):
        got = sources.task if sources.task != "detection" else f"--evaluator {options.evaluator}"
        raise ReportError(
            f"expected results of detectors and the evaluator hotcoco with --errors and --classwise, got {got}: leave "
            "one of them out"
        )
    names = list(sources.models)
    choice = _baseline(sources, options.baseline)
    baseline = choice.name
    against = baseline if baseline in sources.models else None
    pairs = find_pairs(names, against) if options.pairs is None else parse_pairs(options.pairs, names)
    if not options.models:
        sources = replace(sources, models={name: sources.models[name] for name in in_order(names, pairs)})
    if sources.task == "classification":
        sections, bad, remarks = _classifiers(sources, baseline, pairs, options, on_model)
    else:
        sections, bad, remarks = _detectors(sources, pairs, options, on_model, on_cells)
    models = tuple(_described(name, model, len(bad.get(name, ()))) for name, model in sources.models.items())
    partial = [f"{model.name}: partial ({model.partial})" for model in models if model.partial]
    told = [text for name, model in sources.models.items() for text in _of_import(name, model)]
    told = [*partial, *baseline_remarks(choice), *told, *remarks]
    return Report(sources.task, _provenance(sources, options), models, sections, baseline, tuple(told), bad)


def _classifiers(
    sources: Sources, baseline: str | None, pairs: Pairs, options: ReportOptions, on_model: Callable[[str], None]
) -> tuple[tuple[Section, ...], _BadImages, tuple[str, ...]]:
    numbers: dict[str, ClassifierNumbers] = {}
    bad: _BadImages = {}
    classes_of: list[Row] = []
    measured = [model for model in sources.models.values() if isinstance(model, ModelStore)]
    # Read the records of the next model while computing the numbers of this one. At most two models are in memory.
    with ThreadPoolExecutor(1) as reader:
        waiting = deque(reader.submit(read_records, model) for model in measured[:1])
        for name, model in sources.models.items():
            on_model(name)
            if isinstance(model, Imported):
                numbers[name] = classifier_of_frame(model.frames["top1"])
                continue
            records = waiting.popleft().result()
            measured.pop(0)
            waiting.extend(reader.submit(read_records, following) for following in measured[:1])
            bad[name] = records.bad
            draws = {"replicates": options.replicates, "seed": options.seed}
            numbers[name] = numbers_of_records(name, records, **draws, selective=options.selective)
            images = model.store.images()
            if "label" in images.column_names:
                names = class_names(images, model.store.manifest.protocol.get("classes", ""))
                labels = images["label"].to_numpy()
                classes_of += class_rows(name, records, labels, names, **draws, level=options.level)
    classes = {int(store.manifest.protocol.get("num_classes", "0")) for store in sources.stores}
    number = classes.pop() if len(classes) == 1 else None
    section, remarks = classification_section(numbers, baseline, pairs, options.level, number or None)
    section = replace(section, classes=pd.DataFrame(classes_of, columns=list(CLASS_COLUMNS)))
    return (section,), bad, remarks


def _detectors(
    sources: Sources,
    pairs: Pairs,
    options: ReportOptions,
    on_model: Callable[[str], None],
    on_cells: Callable[[int], None],
) -> tuple[tuple[Section, ...], _BadImages, tuple[str, ...]]:
    numbers: dict[Kind, dict[str, DetectorNumbers]] = {"bbox": {}, "segm": {}}
    bad: _BadImages = {}
    stores = {name: model for name, model in sources.models.items() if isinstance(model, ModelStore)}
    which = {"errors": options.errors, "classwise": options.classwise}
    draws = (options.replicates, options.seed, options.processes)
    measured = numbers_of_stores(stores, *draws, on_model, on_cells, options.evaluator, **which)
    for name, model in sources.models.items():
        if isinstance(model, Imported):
            on_model(name)
            found: Mapping[Kind, DetectorNumbers] = {
                kind: detector_of_frame(model.frames[kind]) for kind in numbers if kind in model.frames
            }
        else:
            found = measured[name]
            bad[name] = bad_images(model)
        for kind, metrics in found.items():
            numbers[kind][name] = metrics
    sections, remarks = [], []
    if options.evaluator != "hotcoco" and stores:
        remarks.append(f"{options.evaluator} has evaluated the detections, as a second opinion without intervals")
    for kind, models in numbers.items():
        if models:
            kept = [pair for pair in pairs if pair[0] in models and pair[1] in models]
            section, told = detection_section(kind, models, kept, options.level)
            if section.numbers.empty:
                remarks.append(f"{KIND_TITLES[kind]}: left out, for every average precision is undefined (-1)")
                continue
            if options.classwise:
                rows = [row for name in models if name in stores for row in _categories(name, models, stores, options)]
                section = replace(section, classes=pd.DataFrame(rows, columns=list(CLASS_COLUMNS)))
            sections.append(section)
            remarks += [f"{KIND_TITLES[kind]}: {text}" for text in told]
    return tuple(sections), bad, tuple(remarks)


def _categories(
    name: str, numbers: Mapping[str, DetectorNumbers], stores: Mapping[str, ModelStore], options: ReportOptions
) -> Iterator[Row]:
    """Yield the rows of the categories of which a detector loses most and least."""
    truth, left_out = CocoTruth.of(stores[name].store), images_left_out(stores[name])
    truth = truth.select([number for number in range(len(truth.images)) if number not in left_out])
    yield from detector_class_rows(name, numbers[name], truth, level=options.level)


def _baseline(sources: Sources, wanted: str | None) -> BaselineChoice:
    """Choose the baseline: for classifiers, the denominator of CE and mCE; for detectors, the model to compare with."""
    if sources.task == "detection":
        if wanted is not None and wanted not in sources.models:
            raise ReportError(f"expected --baseline out of {', '.join(sources.models)}, got {wanted!r}")
        return BaselineChoice(wanted)
    stores = sources.stores
    try:
        return choose_baseline(
            wanted,
            list(sources.models),
            [store.manifest for store in stores],
            count_labels(stores[0]) if stores else None,
            {name: model.source.dataset for name, model in sources.models.items() if isinstance(model, Imported)},
        )
    except ValueError as error:
        raise ReportError(str(error)) from None


def _of_import(name: str, model: ModelStore | Imported) -> list[str]:
    """Return remarks on an imported model: the rule by which its numbers were made, and what was filled in."""
    if isinstance(model, ModelStore):
        manifest = model.store.manifest
        doubt = [_UNKNOWN_CORRUPTION] if manifest.imported and set(manifest.cells) != {CLEAN} else []
        return [f"{name}: {text}" for text in (*doubt, *(one.sentence() for one in model.manifest.remarks))]
    rule = [MMDET_RULE] if model.source.detections == MMDET_DETECTIONS else []
    return [f"{name}: {text}" for text in (*rule, *(remark.sentence() for remark in model.source.remarks))]


def _described(name: str, model: ModelStore | Imported, bad: int) -> ReportModel:
    if isinstance(model, Imported):
        detections = model.source.detections
        settings = {"best detections of a class": detections} if detections else {}
        if model.source.dataset:
            settings["data set"] = model.source.dataset
        return ReportModel(
            name, "imported", f"{model.source.format}: {', '.join(model.source.files)}", settings=settings
        )
    manifest, store = model.manifest, model.store.manifest
    reasons = [] if store.selection == "all" else [store.selection]
    reasons += [f"{remark.count:,} {remark.what}" for remark in store.remarks if remark.partial]
    pending = len(model.pending())
    if pending:
        reasons.append(f"{store.num_units - pending} of {store.num_units} units of images")
    if bad:
        reasons.append(f"{counted(bad, 'bad image')} left out")
    return ReportModel(
        name,
        "imported" if store.imported else "measured",
        manifest.source,
        num_parameters=manifest.num_parameters or None,
        flops=manifest.facts.flops,
        flops_at=manifest.facts.flops_at,
        settings=dict(manifest.protocol),
        training=dict(manifest.facts.training),
        partial=", ".join(reasons),
        bad_images=bad,
        weights_hash=manifest.weights_hash,
    )


def _provenance(sources: Sources, options: ReportOptions) -> Provenance:
    versions: dict[str, dict[str, None]] = {}
    for model in sources.models.values():
        if isinstance(model, ModelStore):
            for library, version in model.manifest.versions.items():
                versions.setdefault(library, {})[version] = None
    manifest = sources.stores[0].manifest if sources.stores else None
    made = dict.fromkeys(store.manifest.corruption for store in sources.stores)
    return Provenance(
        data=manifest.data if manifest else "imported results",
        data_hash=manifest.data_hash if manifest else "",
        num_images=manifest.num_images if manifest else 0,
        selection=manifest.selection if manifest else "all",
        corruption="; ".join(made) if made else "as imported",
        settings=dict(manifest.protocol) if manifest else {},
        versions={
            "dtn-det (report)": metadata.version("dtn-det"),
            **{library: ", ".join(found) for library, found in versions.items()},
        },
        date=datetime.now(timezone.utc).date().isoformat(),
        level=options.level,
        replicates=options.replicates,
        seed=options.seed,
    )
