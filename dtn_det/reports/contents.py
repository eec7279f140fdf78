"""The contents of a report as data frames. Tables, figures and the page only show these numbers.

A cell of an evaluation is a corruption at a severity, or the clean images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import pandas as pd

from dtn_det.corruptions.cells import CLEAN

Task = Literal["classification", "detection"]
Kind = Literal["top1", "bbox", "segm"]
Origin = Literal["measured", "imported"]
Evaluator = Literal["hotcoco", "faster-coco-eval"]
"""What evaluates detections: the matching of this package with hotcoco's IoUs, or faster-coco-eval alone."""
Direction = Literal["up", "down", "none"]
"""Which numbers are better: larger numbers (``up``), smaller numbers (``down``), or neither."""

KIND_TITLES: Mapping[Kind, str] = {"top1": "Classification", "bbox": "Boxes", "segm": "Masks"}
"""Titles of the kinds of results, for readers."""

NUMBER_COLUMNS = ("model", "set", "name", "scope", "severity", "value", "low", "high", "cells", "expected_cells")
"""Columns of :attr:`Section.numbers`."""

DIFFERENCE_COLUMNS = ("first", "second", *NUMBER_COLUMNS[1:8], "p_value", "p_adjusted")
"""Columns of :attr:`Section.differences`."""

RELIABILITY_COLUMNS = ("model", "images", "low", "high", "count", "accuracy", "confidence")
"""Columns of :attr:`Section.reliability`."""


SELECTIVE: Mapping[str, str] = MappingProxyType(
    {
        "adaptive_ece": "adaptive ECE",
        "aurc": "AURC",
        "augrc": "AUGRC",
        "coverage_at_risk": "coverage at 5 % risk",
        "risk_at_coverage": "risk at 80 % coverage",
    }
)
"""Names in a report of the metrics of :func:`dtn_det.metrics.selective_metrics`."""


CLASS_COLUMNS = (
    *("model", "end", "name", "images", "clean", "corrupted", "difference", "low", "high"),
    *("image", "corruption", "severity"),
)
"""Columns of :attr:`Section.classes`."""


def no_classes() -> pd.DataFrame:
    """Return the table :attr:`Section.classes` without rows."""
    return pd.DataFrame([], columns=list(CLASS_COLUMNS))


@dataclass(frozen=True)
class Provenance:
    """The data and settings with which all numbers of a report were computed.

    Attributes:
        data_hash: SHA-256 of the list of the data's files and labels; empty if all results are imported.
        selection: ``'all'``, or how a part of the images was chosen.
        corruption: Identity of the corruptions: profile, seed, JPEG setting, channel order, version of the engine.
        settings: Other settings that the numbers depend on, by name.
        versions: Version of each library by its name; several versions of one library are joined by a comma.
        date: Day on which the report was made, ISO 8601.
        level: Confidence level of the intervals, between 0 and 1.
        replicates: Number of bootstrap replicates; 0 without intervals.
    """

    data: str
    data_hash: str
    num_images: int
    selection: str
    corruption: str
    settings: Mapping[str, str]
    versions: Mapping[str, str]
    date: str
    level: float = 0.95
    replicates: int = 0
    seed: int = 0


@dataclass(frozen=True)
class ReportModel:
    """A description of one model of a report, without its numbers.

    Attributes:
        origin: ``measured`` here from records of images, or ``imported`` from another tool.
        source: What was evaluated: ``timm:resnet50``, a config with its checkpoint, or the files that were imported.
        num_parameters: Number of parameters; None where unknown.
        flops: Number of multiply-adds for one image; None where unknown.
        flops_at: Height and width of that image, as ``224x224``; empty where unknown.
        settings: Settings of the evaluation, by name.
        training: Settings of the model's training by name; empty where unknown.
        partial: Why the numbers cover only a part of the data set, such as ``limit=500 of 50000 seed=0``; empty if they
            cover the whole data set.
        bad_images: Number of images that could not be read and were left out.
        weights_hash: SHA-256 of the weights; empty where unknown.
    """

    name: str
    origin: Origin
    source: str
    num_parameters: int | None = None
    flops: float | None = None
    flops_at: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)
    partial: str = ""
    bad_images: int = 0
    weights_hash: str = ""


@dataclass(frozen=True)
class Section:
    """All numbers of one kind of results.

    Attributes:
        kind: ``top1`` for classification, ``bbox`` for boxes, ``segm`` for masks.
        numbers: One row for each number, with the columns :data:`NUMBER_COLUMNS`. ``set`` is the set of corruptions,
            ``benchmark`` or ``extra``. A cell belongs to the set of its corruption, and the clean images belong to
            ``benchmark`` unless the model was evaluated on ``extra`` only. ``name``, ``scope`` and ``severity`` are as
            in :class:`dtn_det.metrics.Quantity`, with the further names `ECE`, `NLL`, `Brier`, `top-5 error`, those of
            :data:`SELECTIVE` and :data:`~dtn_det.metrics.error_costs.ERROR_METRICS`, and their means such as `mean
            ECE`. ``value``, and the ends ``low`` and ``high`` of its
            interval (NaN without one), are in percent, except `NLL` in nats and `Brier` from 0 to 2. ``cells`` is the
            number of evaluated cells in a mean, and ``expected_cells`` the number of cells in the whole set. Both are 1
            for a single cell.
        differences: One row for each number and pair, with the columns :data:`DIFFERENCE_COLUMNS`: second minus first,
            in the unit of ``numbers``. ``p_adjusted`` is ``p_value`` after Holm's adjustment within a family. For each
            pair, number and set there are four families: the differences for corruptions, for groups, for severities,
            and for cells. The mPC of all average precisions except AP is another family, and the
            mean costs of all error types are one. Empty without pairs.
        reliability: One row for each bin of confidence, with the columns :data:`RELIABILITY_COLUMNS`. ``images`` is
            ``clean`` or ``corrupted``; ``low`` and ``high`` are the edges of the bin, ``accuracy`` and ``confidence``
            the means in the bin, all as fractions. Empty for detectors.
        pairs: Names of the first and the second model of each pair that was compared.
        classes: One row for each shown class of a model, with the columns :data:`CLASS_COLUMNS`. ``end`` is ``most``
            for the classes that lose most under corruption, ``least`` for those that lose least, or ``all`` where
            there are few classes. ``clean`` and ``corrupted`` are errors, or APs of detectors, and ``difference`` is
            corrupted minus clean with the ends of its interval, all in percent. ``corruption`` and ``severity`` are
            those with most errors, or the lowest AP, in the class. ``image`` is the number of an image that is right
            when clean, and wrong (``most``) or right (else) there, if there is one; -1 for detectors.
    """

    kind: Kind
    numbers: pd.DataFrame
    differences: pd.DataFrame
    reliability: pd.DataFrame
    pairs: tuple[tuple[str, str], ...] = ()
    classes: pd.DataFrame = field(default_factory=no_classes)


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Attributes:
        task: The task of all models: ``classification`` or ``detection``.
        models: The models in the order of the tables.
        sections: For classifiers, one section; for detectors, one of boxes, and one of masks if a model predicts them.
        baseline: For classifiers, the model whose errors are the denominators of CE and mCE: ``alexnet``, a model of
            the report, or None without CE and mCE. For detectors, the model that the other models are compared with, or
            None.
        remarks: Sentences that readers need: which results are partial, and why some numbers are undefined.
        bad_images: For each model, the error of each image that was left out, by the number of the image.
    """

    task: Task
    provenance: Provenance
    models: tuple[ReportModel, ...]
    sections: tuple[Section, ...]
    baseline: str | None
    remarks: tuple[str, ...] = ()
    bad_images: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @property
    def is_corrupted(self) -> bool:
        """Return whether there are numbers under corruption, not only those of clean images."""
        return any(scope not in ("", CLEAN[0]) for one in self.sections for scope in one.numbers["scope"])

    def model(self, name: str) -> ReportModel:
        """Return a model by its name.

        Raises:
            KeyError: The report has no such model.
        """
        for model in self.models:
            if model.name == name:
                return model
        raise KeyError(f"expected a model out of {', '.join(one.name for one in self.models)}, got {name!r}")
