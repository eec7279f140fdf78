"""Which images are shown: drawn with a seed, among those that all models have evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dtn_det.robustness.store.store import ModelStore


def shared_images(models: Mapping[str, ModelStore]) -> list[int]:
    """Numbers of the images in units that all models have finished."""
    finished = [
        {number for unit in model.finished() for number in model.store.manifest.unit(unit)} for model in models.values()
    ]
    return sorted(set.intersection(*finished))


def pick(models: Mapping[str, ModelStore], count: int, seed: int, fits: Callable[[int], bool]) -> list[int]:
    """So many images that fit, in the order of their numbers.

    Args:
        models: That must have evaluated them.
        count: Images.
        seed: Of the choice.
        fits: Whether an image fits.
    """
    found: list[int] = []
    for number in np.random.default_rng(seed).permutation(shared_images(models)).tolist():
        if len(found) == count:
            break
        if fits(number):
            found.append(number)
    return sorted(found)
