"""Reports of models that never were: random records, drawn with a seed, through the package's own sections.

Models differ by `skill`, so that differences, ties and insignificant results can be had at will. Images differ in
difficulty, so that the cells of an image depend on each other as real ones do. A report is made once for all tests of
a process, which must not change its tables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from dtn_det.corruptions.catalog import BENCHMARK, EXTRA, SEVERITIES
from dtn_det.corruptions.cells import Cell
from dtn_det.metrics import CLEAN, METRICS, mean_samples
from dtn_det.reports.classification import ClassifierRecords, classification_section, numbers_of_records
from dtn_det.reports.contents import Kind, Provenance, Report, ReportModel, Section
from dtn_det.reports.detection import detection_section
from dtn_det.reports.numbers import differences_frame

ALL = BENCHMARK + EXTRA

P = ParamSpec("P")
R = TypeVar("R")


def made_once(function: Callable[P, R]) -> Callable[P, R]:
    """Keep what a function returns for each of its arguments, lists and dictionaries included."""

    @cache
    def keep(args: Any, keywords: Any) -> R:
        return function(*map(_thawed, args), **{name: _thawed(value) for name, value in keywords})

    @wraps(function)
    def found(*args: P.args, **keywords: P.kwargs) -> R:
        return keep(tuple(map(_frozen, args)), tuple((name, _frozen(value)) for name, value in keywords.items()))

    return found


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return "mapping", tuple(value.items())
    return ("sequence", tuple(value)) if isinstance(value, list | tuple | range) else ("value", value)


def _thawed(value: Any) -> Any:
    kind, content = value
    return dict(content) if kind == "mapping" else content


def provenance(task: str = "classification", images: int = 60, replicates: int = 200, **changes: object) -> Provenance:
    """Where made-up numbers come from; date and versions are fixed."""
    corruption, jpeg = ("imagenet-c", "jpeg85") if task == "classification" else ("coco-c", "no-jpeg")
    facts = {
        "data": "made-up",
        "data_hash": "5a" * 32,
        "num_images": images,
        "selection": "all",
        "corruption": f"{corruption} {jpeg} rgb seed=0 frost=procedural engine=1",
        "settings": {"classes": "imagenet", "bad_images": "fail"} if task == "classification" else {"amp": "no"},
        "versions": {"dtn-det (report)": "0.1.0", "dtn-det": "0.1.0", "torch": "2.7.0", "numpy": "2.1.0"},
        "date": "2026-01-02",
        "replicates": replicates,
    }
    return Provenance(**{**facts, **changes})


def cells_of(
    corruptions: Sequence[str] = BENCHMARK, severities: Sequence[int] = SEVERITIES, clean: bool = True
) -> tuple[Cell, ...]:
    """Cells of some corruptions, the clean one first."""
    return (*([CLEAN] if clean else []), *((name, severity) for name in corruptions for severity in severities))


def classifier_records(
    images: int = 60, cells: Sequence[Cell] | None = None, skill: float = 0.8, seed: int = 0
) -> ClassifierRecords:
    """Answers of one classifier; `skill` is about the part of the clean images it gets right, as a normal quantile."""
    cells = cells_of() if cells is None else tuple(cells)
    rng = np.random.default_rng(seed)
    # All models see the same images, so the images' difficulty must not depend on the model's seed.
    ease = np.random.default_rng(12345).normal(size=(images, 1))
    margin = rng.normal(size=(images, len(cells))) * 0.7 + ease + 2 * skill - 0.8 - _harm(cells)
    correct = margin > 0
    probability = 1 / (1 + np.exp(-1.2 * margin))
    confidence = np.clip(np.maximum(probability, 1 - probability) + 0.05, 0.02, 0.995)
    true_probability = np.where(correct, confidence, (1 - confidence) * rng.uniform(0.01, 0.5, margin.shape))
    others = (1 - confidence) ** 2 * rng.uniform(0.2, 0.8, margin.shape)
    columns = {
        "correct": correct,
        "correct_top5": margin > -1.0,
        "confidence": confidence.astype(np.float32),
        "true_probability": true_probability.astype(np.float32),
        "squared_norm": (confidence**2 + others).astype(np.float32),
    }
    return ClassifierRecords(np.arange(images), cells, columns, {})


@made_once
def classification_report(
    models: Collection[str] = ("ln", "dtn"),
    images: int = 60,
    corruptions: Sequence[str] = BENCHMARK,
    severities: Sequence[int] = SEVERITIES,
    baseline: str | None = "ln",
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    skills: Mapping[str, float] | None = None,
    clean: bool = True,
    partial: Mapping[str, str] | None = None,
    replicates: int = 200,
    seed: int = 0,
    **changes: object,
) -> Report:
    """A report about classifiers.

    Args:
        models: Names; each is a little better than the one before.
        images: Images.
        corruptions: Of the cells; fewer than the benchmark's make partial numbers, `ALL` has the four extra ones.
        severities: Of the cells.
        baseline: `alexnet`, one of the models, or None.
        pairs: First and second of each difference; None: the first model against each other.
        skills: Of some models; equal ones still differ by chance.
        clean: Whether there are clean images.
        partial: Why a model's numbers are not of the whole data set.
        replicates: Of the bootstrap; 0 for no intervals.
        seed: Of everything random.
        changes: Other fields of the provenance.
    """
    names = list(models)
    cells = cells_of(corruptions, severities, clean)
    numbers = {}
    for number, name in enumerate(names):
        skill = (skills or {}).get(name, 0.7 + 0.1 * number)
        records = classifier_records(images, cells, skill, seed + number)
        numbers[name] = numbers_of_records(name, records, replicates, seed)
    pairs = _pairs(names, replicates) if pairs is None else pairs
    section, remarks = classification_section(numbers, baseline, pairs)
    return _report("classification", names, (section,), baseline, remarks, images, replicates, partial or {}, changes)


@made_once
def detection_report(
    models: Collection[str] = ("ln", "dtn"),
    images: int = 60,
    corruptions: Sequence[str] = BENCHMARK,
    severities: Sequence[int] = SEVERITIES,
    kinds: Sequence[Kind] = ("bbox",),
    metrics: Sequence[str] = METRICS,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    skills: Mapping[str, float] | None = None,
    clean: bool = True,
    partial: Mapping[str, str] | None = None,
    replicates: int = 200,
    seed: int = 0,
    **changes: object,
) -> Report:
    """A report about detectors, see `classification_report`; a made-up AP is the mean of a score of each image.

    Args:
        kinds: Boxes, masks or both.
        metrics: Average precisions.
        skills: Of some models, about their clean AP.
    """
    names = list(models)
    cells = cells_of(corruptions, severities, clean)
    ease = np.random.default_rng(12345).normal(size=(images, 1))
    sections: list[Section] = []
    remarks: list[str] = []
    pairs = _pairs(names, replicates) if pairs is None else pairs
    for kind in kinds:
        numbers = {}
        for number, name in enumerate(names):
            rng = np.random.default_rng(seed + number)
            skill = (skills or {}).get(name, 0.36 + 0.02 * number) - (0.03 if kind == "segm" else 0)
            logit = np.log(skill / (1 - skill)) + 0.6 * ease - 0.6 * _harm(cells)
            scores = 1 / (1 + np.exp(-logit - 0.3 * rng.normal(size=(images, len(cells)))))
            numbers[name] = {
                metric: mean_samples(
                    {metric: factor * scores}, cells, range(images), replicates=max(1, replicates), seed=seed
                )[metric]
                for metric, factor in zip(METRICS, (1, 1.6, 1.05, 0.55, 1.1, 1.3), strict=True)
                if metric in metrics
            }
        section, told = detection_section(kind, numbers, pairs)
        sections.append(section)
        remarks += told
    return _report("detection", names, sections, None, remarks, images, replicates, partial or {}, changes)


def renamed(report: Report, names: Mapping[str, str]) -> Report:
    """A report whose models have other names."""
    sections = []
    for section in report.sections:
        frames = {}
        for frame in ("numbers", "differences", "reliability"):
            changed = getattr(section, frame).copy()
            for column in {"model", "first", "second"} & set(changed.columns):
                changed[column] = [names.get(name, name) for name in changed[column]]
            frames[frame] = changed
        pairs = tuple((names.get(first, first), names.get(second, second)) for first, second in section.pairs)
        sections.append(replace(section, pairs=pairs, **frames))
    models = tuple(replace(model, name=names.get(model.name, model.name)) for model in report.models)
    baseline = None if report.baseline is None else names.get(report.baseline, report.baseline)
    return replace(report, models=models, sections=tuple(sections), baseline=baseline)


def rounded(report: Report, decimals: int = 6) -> Report:
    """A report whose numbers do not depend on how a library adds up."""
    sections = []
    for section in report.sections:
        frames = {name: getattr(section, name).round(decimals) for name in ("numbers", "differences", "reliability")}
        changes = frames["differences"].drop(columns="p_adjusted").itertuples(index=False, name=None)
        frames["differences"] = differences_frame(list(changes))
        sections.append(replace(section, **frames))
    return replace(report, sections=tuple(sections))


def _pairs(names: Sequence[str], replicates: int) -> list[tuple[str, str]]:
    return [(names[0], name) for name in names[1:]] if replicates else []


def _harm(cells: Sequence[Cell]) -> np.ndarray:
    """How much each cell takes away: more with the severity, and some corruptions more than others."""
    return np.array(
        [0.0 if cell == CLEAN else (0.15 + 0.02 * (ALL.index(cell[0]) * 7 % 19)) * cell[1] for cell in cells]
    )


def _report(
    task: str,
    names: Sequence[str],
    sections: Sequence[Section],
    baseline: str | None,
    remarks: Sequence[str],
    images: int,
    replicates: int,
    partial: Mapping[str, str],
    changes: Mapping[str, object],
) -> Report:
    described = tuple(
        ReportModel(
            name,
            "measured",
            f"timm:{name}" if task == "classification" else f"configs/{name}.py {name}.pth",
            num_parameters=28_288_354 + 1_000 * number,
            flops=4.5e9 + 1e8 * number,
            flops_at="224x224",
            settings={"amp": "no"},
            training={"epochs": "300", "optimizer": "AdamW"},
            partial=partial.get(name, ""),
            weights_hash=f"{number:02x}" * 32,
        )
        for number, name in enumerate(names)
    )
    reasons = [f"{name}: partial ({reason})" for name, reason in partial.items()]
    about = provenance(task, images, replicates, **changes)
    return Report(task, about, described, tuple(sections), baseline, (*reasons, *remarks))
