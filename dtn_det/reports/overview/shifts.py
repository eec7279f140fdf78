"""Computes what a model loses from clean images to a set of the same classes, such as ImageNet-R."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtn_det.corruptions.cells import CLEAN
from dtn_det.errors import ReportError
from dtn_det.metrics.resampling import difference, interval
from dtn_det.metrics.shifts import AccuracyShift, ClassCounts, shift_samples
from dtn_det.reports.classification import ClassifierRecords, read_records
from dtn_det.reports.collect import ReportOptions
from dtn_det.reports.numbers import Number, PairedDifference
from dtn_det.reports.sources import Sources, title_of
from dtn_det.robustness.classification.data import TWIN
from dtn_det.robustness.store import ModelStore, Store

CleanModels = Mapping[str, ModelStore]
"""Models by name, with records of ImageNet's validation images."""


@dataclass(frozen=True)
class ModelShift:
    """The accuracies of a model on clean images and on a set of the same classes.

    Attributes:
        accuracies: Both accuracies, of all images and of each bootstrap replicate.
        images: Numbers of the clean images and of those of the set, by which two models are compared.
        partial: Whether clean images are missing.
    """

    accuracies: AccuracyShift
    images: tuple[bytes, bytes]
    partial: bool


def clean_models(sets: Sequence[Sources]) -> CleanModels:
    """Return each model in the first of the sets that has its records of ImageNet's clean validation images."""
    found: dict[str, ModelStore] = {}
    for sources in sets:
        for name, model in sources.models.items():
            if isinstance(model, ModelStore) and _is_validation(model.store):
                found.setdefault(name, model)
    return found


def _is_validation(store: Store) -> bool:
    manifest = store.manifest
    known = title_of(manifest) in ("ImageNet", "ImageNet-C", "ImageNet-C-bar")
    return known and CLEAN in manifest.cells and manifest.recognised.get("dataset") == "ImageNet"


def twins_of(sources: Sources) -> CleanModels:
    """Return the models of a set that were evaluated on the clean images of the set's classes, too.

    Raises:
        StoreError: A store is damaged.
    """
    found = {}
    for name, model in sources.models.items():
        if isinstance(model, ModelStore) and (model.store.folder / TWIN / "store.json").is_file():
            twin = Store.open(model.store.folder / TWIN).models().get(model.manifest.name)
            if twin is not None:
                found[name] = twin
    return found


def shifts_of(sources: Sources, clean: CleanModels, options: ReportOptions) -> Mapping[str, ModelShift]:
    """Return the accuracies of each model of a set that has records of the clean images, too.

    Raises:
        ReportError: A model has other weights on the clean images.
        StoreError: A store is damaged.
    """
    found = {}
    for name, model in sources.models.items():
        twin = clean.get(name)
        if not isinstance(model, ModelStore) or twin is None or not twin.finished() or not model.finished():
            continue
        if twin.manifest.weights_hash != model.manifest.weights_hash:
            raise ReportError(
                f"expected the same weights of {name!r} on the set and on its clean images, got others in "
                f"{twin.store.folder}: evaluate it again"
            )
        numbers = {one.store.manifest.protocol.get("num_classes", "0") for one in (twin, model)}
        if len(numbers) > 1:
            continue
        records = read_records(twin), read_records(model)
        counts = [_counts(*one, int(min(numbers))) for one in zip((twin, model), records, strict=True)]
        accuracies = shift_samples(counts[0], counts[1], options.replicates, options.seed)
        images = (records[0].images.tobytes(), records[1].images.tobytes())
        found[name] = ModelShift(accuracies, images, bool(twin.pending() or records[0].bad))
    return found


def _counts(model: ModelStore, records: ClassifierRecords, num_classes: int) -> ClassCounts:
    labels = model.store.images()["label"].to_numpy().astype(np.int64)[records.images]
    return ClassCounts.of(
        records.columns["correct"][:, records.cells.index(CLEAN)].astype(np.bool_), labels, num_classes
    )


def shift_number(values: NDArray[np.float64], level: float) -> Number:
    """Return a number in percentage points with its interval; the first value is that of all images."""
    low, high = math.nan, math.nan
    if np.isfinite(values[1:]).any():
        found = interval(float(values[0]), values[1:], level)
        low, high = found.low, found.high
    return Number(100 * float(values[0]), 100 * low, 100 * high, 1, 1)


def shift_difference(first: NDArray[np.float64], second: NDArray[np.float64], level: float) -> PairedDifference | None:
    """Return the difference of a number of two models on the same images, second minus first, in points."""
    values = second - first
    if not np.isfinite(values[1:]).any():
        return None
    found = difference(float(values[0]), values[1:], level)
    numbers = (100 * found.value, 100 * found.low, 100 * found.high)
    return PairedDifference(*numbers, found.p_value, found.p_value)
