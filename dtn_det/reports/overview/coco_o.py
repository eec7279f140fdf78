"""The mean average precision of detectors over the domains of COCO-O, and their effective robustness.

The effective robustness is the mean over the six domains minus 0.45 times the AP on COCO's validation images of 2017
(Mao et al., ICCV 2023, arXiv:2307.12730). The factor reproduces the published row of Faster R-CNN with ResNet-50-FPN:
37.4 on COCO and 16.4 on COCO-O give -0.41 (github.com/alibaba/easyrobust/issues/21, which quotes the paper).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtn_det.corruptions.cells import CLEAN
from dtn_det.datasets.coco.known_sets import COCO, COCO_O, DOMAINS
from dtn_det.metrics import METRICS
from dtn_det.reports.collect import ReportOptions
from dtn_det.reports.detection import numbers_of_stores
from dtn_det.reports.overview.grouping import SetSources
from dtn_det.robustness.store import ModelStore

SLOPE = 0.45
"""AP on COCO-O per AP on COCO that models without effective robustness have."""


@dataclass(frozen=True)
class DomainMean:
    """A number of a detector over several sets.

    Attributes:
        values: The number of all images and of each bootstrap replicate, as a fraction, (1 + replicates,).
        images: Digests of the images of each set, by which two models are compared.
        note: Why the number is partial; empty if it is not.
    """

    values: NDArray[np.float64]
    images: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class _SetPrecision:
    """The AP of a model on the clean images of a set, with their digest and whether some are missing."""

    values: NDArray[np.float64]
    images: str
    partial: bool


def domain_means(sets: Sequence[SetSources], options: ReportOptions) -> dict[str, DomainMean]:
    """Return the mean AP of boxes over the domains of COCO-O of each detector that was evaluated on any.

    Each set has draws of its own, the same for all models.

    Raises:
        StoreError: A store is damaged.
    """
    return {name: _mean(list(own.values())) for name, own in _domains(sets, options).items()}


def effective_robustness(
    means: Mapping[str, DomainMean], sets: Sequence[SetSources], options: ReportOptions
) -> dict[str, DomainMean]:
    """Return the effective robustness of each detector that was evaluated on COCO's validation images, too.

    Args:
        means: The result of :func:`domain_means`.

    Raises:
        StoreError: A store is damaged.
    """
    found: dict[str, DomainMean] = {}
    if not means:
        return found
    coco: dict[str, _SetPrecision] = {}
    for one in sets:
        if one.known in (COCO, f"{COCO}-C"):
            for name, own in _precisions(one, options, 0).items():
                coco.setdefault(name, own)
    for name, mean in means.items():
        if name in coco:
            own = coco[name]
            note = mean.note or ("partial (COCO)" if own.partial else "")
            found[name] = DomainMean(mean.values - SLOPE * own.values, (*mean.images, own.images), note)
    return found


def _domains(sets: Sequence[SetSources], options: ReportOptions) -> dict[str, dict[str, _SetPrecision]]:
    """Return the AP of each detector by domain."""
    found: dict[str, dict[str, _SetPrecision]] = {}
    for place, domain in enumerate(DOMAINS, 1):
        of_domain = [one for one in sets if one.known == f"{COCO_O} {domain}"]
        for name, own in (_precisions(of_domain[0], options, place) if of_domain else {}).items():
            found.setdefault(name, {})[domain] = own
    return found


def _precisions(one: SetSources, options: ReportOptions, place: int) -> dict[str, _SetPrecision]:
    models = {
        name: model
        for name, model in one.sources.models.items()
        if isinstance(model, ModelStore) and CLEAN in model.store.manifest.cells
    }
    numbers = numbers_of_stores(
        models, options.replicates, options.seed + place, options.processes, evaluator=options.evaluator
    )
    found = {}
    for name, model in models.items():
        samples = numbers[name].get("bbox", {}).get(METRICS[0])
        if samples is None:
            continue
        clean = samples.cells.index(CLEAN)
        drawn = samples.values[:, clean] if len(samples.values) > 1 else np.empty(0)
        manifest = model.store.manifest
        partial = manifest.selection != "all" or samples.num_images < manifest.num_images
        found[name] = _SetPrecision(np.concatenate([samples.point[[clean]], drawn]), samples.images, partial)
    return found


def _mean(domains: Sequence[_SetPrecision]) -> DomainMean:
    note = "partial" if any(one.partial for one in domains) else ""
    if len(domains) < len(DOMAINS):
        note = f"partial ({len(domains)}/{len(DOMAINS)})"
    values: NDArray[np.float64] = np.mean([one.values for one in domains], axis=0)
    return DomainMean(values, tuple(one.images for one in domains), note)
