"""Computes the drop of each model from the clean images of the same classes to a set such as ImageNet-R."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtn_det.corruptions.cells import CLEAN
from dtn_det.errors import ReportError
from dtn_det.metrics.drops import ClassCounts, drop_samples
from dtn_det.metrics.resampling import difference, interval
from dtn_det.reports.classification import ClassifierRecords, read_records
from dtn_det.reports.collect import ReportOptions
from dtn_det.reports.numbers import Number, PairedDifference
from dtn_det.reports.sources import Sources
from dtn_det.robustness.classification.data import TWIN
from dtn_det.robustness.store import ModelStore, Store


@dataclass(frozen=True)
class Drop:
    """The drop of a model, as a fraction.

    Attributes:
        values: The drop on each bootstrap replicate.
        images: Numbers of the images of the set and of the clean images, by which two models are compared.
        partial: Whether clean images are missing.
    """

    point: float
    values: NDArray[np.float64]
    images: tuple[bytes, bytes]
    partial: bool


def drops_of(sources: Sources, options: ReportOptions) -> Mapping[str, Drop]:
    """Return the drop of each model of a set that was evaluated on the clean images of the same classes, too.

    Raises:
        ReportError: A model has other weights on the clean images.
        StoreError: A store is damaged.
    """
    found = {}
    for name, model in sources.models.items():
        if not isinstance(model, ModelStore) or not (model.store.folder / TWIN / "store.json").is_file():
            continue
        twin = Store.open(model.store.folder / TWIN).models().get(model.manifest.name)
        if twin is None or not twin.finished() or not model.finished():
            continue
        if twin.manifest.weights_hash != model.manifest.weights_hash:
            raise ReportError(
                f"expected the same weights of {name!r} on the set and on its clean images, got others in "
                f"{twin.store.folder}: evaluate it again"
            )
        clean, shifted = read_records(twin), read_records(model)
        number = int(model.store.manifest.protocol.get("num_classes", "0"))
        of_clean, of_set = _counts(twin, clean, number), _counts(model, shifted, number)
        point, values = drop_samples(of_clean, of_set, options.replicates, options.seed)
        images = (clean.images.tobytes(), shifted.images.tobytes())
        found[name] = Drop(point, values, images, bool(twin.pending() or clean.bad))
    return found


def _counts(model: ModelStore, records: ClassifierRecords, num_classes: int) -> ClassCounts:
    labels = model.store.images()["label"].to_numpy().astype(np.int64)[records.images]
    return ClassCounts.of(
        records.columns["correct"][:, records.cells.index(CLEAN)].astype(np.bool_), labels, num_classes
    )


def drop_number(drop: Drop, level: float) -> Number:
    """Return the drop in percentage points with its interval."""
    low, high = math.nan, math.nan
    if np.isfinite(drop.values).any():
        found = interval(drop.point, drop.values, level)
        low, high = found.low, found.high
    return Number(100 * drop.point, 100 * low, 100 * high, 1, 1)


def drop_difference(first: Drop, second: Drop, level: float) -> PairedDifference | None:
    """Return the difference of two drops, second minus first, in points; None if they are of other images."""
    values = second.values - first.values if first.images == second.images else np.empty(0)
    if not np.isfinite(values).any():
        return None
    found = difference(second.point - first.point, values, level)
    numbers = (100 * found.value, 100 * found.low, 100 * found.high)
    return PairedDifference(*numbers, found.p_value, found.p_value)
