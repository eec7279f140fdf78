"""How much AP50 each type of error costs, with a weight for each image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dtn_det.corruptions.cells import Cell
from dtn_det.metrics.ap_samples import category_precisions, cell_samples, image_weights, mean_of_categories
from dtn_det.metrics.coco_matches import CocoMatches
from dtn_det.metrics.error_types import REPAIRS
from dtn_det.metrics.resampling import REPLICATES, Samples

ERROR_METRICS = tuple(f"dAP50 {repair}" for repair in REPAIRS)
"""Names of the costs: how much AP50 grows if all errors of a type are repaired, and nothing else is."""


def error_costs(matches: CocoMatches, weights: NDArray[np.integer] | None = None) -> NDArray[np.float64]:
    """Compute how much AP50 grows with each repair, where each image counts as often as its weight says.

    The costs are means over the categories with ground truth. If a repair leaves no ground truth of a category, none of
    its objects was found: its AP50 is 0 before and after.

    Args:
        matches: The repairs of :class:`~dtn_det.metrics.error_types.DetectionErrors`.
        weights: Whole numbers of shape (images,) or (replicates, images); with None, each image counts once.

    Returns:
        Fractions in the order of :data:`ERROR_METRICS`, (repairs,) or (replicates, repairs); NaN without ground truth.

    Raises:
        InputError: The weights have another shape or are not whole numbers of at least 0.
    """
    counts = image_weights(matches, weights)
    needed = np.ones((len(matches.areas), 1), np.bool_)
    found = category_precisions(matches, np.atleast_2d(counts), needed)[..., 0]
    before = found[..., :1]
    gains = np.where(np.isfinite(before) & np.isnan(found), 0.0, found) - before
    places = [matches.areas.index(repair) for repair in REPAIRS]
    costs = np.stack([mean_of_categories(gains[..., place]) for place in places], axis=-1)
    return costs if counts.ndim == 2 else costs[0]


def error_cost_samples(
    cells: Iterable[tuple[Cell, CocoMatches]], *, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Samples]:
    """Compute the costs of a detector's errors on every cell, for all images and for each replicate.

    Args:
        cells: Each cell with its repairs; if this is a generator, only those of one cell are in memory at a time.
        seed: Seed of the draws. Models to compare need the same images, replicates and seed.

    Returns:
        The samples by the names :data:`ERROR_METRICS`; values are NaN where there is no ground truth.

    Raises:
        InputError: A cell is unknown or repeated or has other images than the first one.
    """
    return cell_samples(cells, ERROR_METRICS, error_costs, replicates, seed)
