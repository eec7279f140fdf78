"""The drop and the effective robustness of a classifier from clean images to others of the same classes, by class.

The two sets have no image in common, such as ImageNet-R and ImageNet's validation images of its 200 classes. What they
share is the classes, so a bootstrap replicate draws classes with replacement, the same for both sets and all models,
and takes all images of each drawn class (a cluster bootstrap: Field and Welsh, "Bootstrapping clustered data", Journal
of the Royal Statistical Society B 69, 2007).

The effective robustness is the accuracy on a set beyond the accuracy that models of the same clean accuracy have there
on average (Taori et al., "Measuring Robustness to Natural Distribution Shifts in Image Classification", NeurIPS 2020).
As in that paper, the average is a straight line between the logits of both accuracies, fitted to models that were
trained without further data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dtn_det.errors import InputError
from dtn_det.metrics.resampling import weights

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClassCounts:
    """The images of a set in each class, and how many of them a model gets right.

    Attributes:
        right: Images that the model gets right, (classes,).
        images: Number of images, (classes,).
    """

    right: Array
    images: Array

    @classmethod
    def of(cls, correct: NDArray[np.bool_], labels: NDArray[np.integer], num_classes: int) -> ClassCounts:
        """Count images by class.

        Args:
            correct: Whether the model gets each image right, (images,).
            labels: Class of each image, (images,), from 0 to `num_classes` - 1.
        """
        counts = [np.bincount(one, minlength=num_classes).astype(np.float64) for one in (labels[correct], labels)]
        return cls(*counts)


@dataclass(frozen=True)
class AccuracyShift:
    """The top-1 accuracies of a model on clean images and on another set of the same classes, as fractions.

    The first value is that of all images, and the others are those of the bootstrap replicates, (1 + replicates,). A
    value is NaN where a replicate has no image of the set.
    """

    clean: Array
    shifted: Array

    @property
    def drop(self) -> Array:
        """The accuracy on clean images minus that on the other set."""
        return self.clean - self.shifted

    def effective_robustness(self, fit: AccuracyFit) -> Array:
        """The accuracy on the other set minus that which the fit expects."""
        return self.shifted - fit.expected(self.clean)


def shift_samples(clean: ClassCounts, shifted: ClassCounts, replicates: int, seed: int = 0) -> AccuracyShift:
    """Compute the top-1 accuracies on clean images and on another set of the same classes.

    Two models with the same images, replicates and seed get the same classes in each replicate, so that their drops
    can be compared with a paired interval.

    Args:
        replicates: Number of bootstrap replicates; 0 for none.

    Raises:
        InputError: The sets have other numbers of classes, or one has no image.
    """
    if len(clean.images) != len(shifted.images) or not clean.images.sum() or not shifted.images.sum():
        raise InputError(
            f"expected images of both sets in the same classes, got {clean.images.sum():g} images in "
            f"{len(clean.images)} classes and {shifted.images.sum():g} in {len(shifted.images)}"
        )
    there = (clean.images > 0) | (shifted.images > 0)
    counts = np.stack([clean.right, clean.images, shifted.right, shifted.images], 1)[there]
    parts = [counts.sum(0, keepdims=True)]
    if replicates:
        parts += [drawn.astype(np.float64) @ counts for drawn in weights(int(there.sum()), replicates, seed)]
    right, images, other_right, other_images = np.concatenate(parts).T
    with np.errstate(invalid="ignore"):
        return AccuracyShift(right / images, other_right / other_images)


@dataclass(frozen=True)
class AccuracyFit:
    """The accuracy on a set that models of a clean accuracy have on average.

    Attributes:
        slope: Slope of the straight line from the logit of the clean accuracy to that of the accuracy on the set.
        intercept: Intercept of the line.
        models: Number of the models of the fit.
        lowest: Smallest clean accuracy of these models, as a fraction.
        highest: Largest clean accuracy of these models.
        twin: Whether the clean images are those of the set's own classes alone.
    """

    slope: float
    intercept: float
    models: int
    lowest: float
    highest: float
    twin: bool

    def expected(self, clean: Array) -> Array:
        """Return the expected accuracies on the set, as fractions, for clean accuracies."""
        with np.errstate(divide="ignore"):
            logit = self.slope * np.log(clean / (1 - clean)) + self.intercept
        found: Array = 1 / (1 + np.exp(-logit))
        return found

    def covers(self, clean: float) -> bool:
        """Return whether a clean accuracy is within those of the fitted models."""
        return self.lowest <= clean <= self.highest


FITS: Mapping[str, AccuracyFit] = MappingProxyType(
    {
        "ImageNet-R": AccuracyFit(0.7072, -2.2716, 944, 0.640, 0.974, True),
        "ImageNet-A": AccuracyFit(2.1182, -7.7377, 943, 0.622, 0.978, True),
        "ImageNet-V2 matched-frequency": AccuracyFit(0.9065, -0.4740, 944, 0.410, 0.871, False),
        "ImageNet-Sketch": AccuracyFit(1.1215, -2.4131, 944, 0.410, 0.871, False),
    }
)
"""Fits by the titles of sets, to the published top-1 accuracies of timm's models that were trained on ImageNet-1k alone
(github.com/huggingface/pytorch-image-models, folder `results`, commit aa4b5850). The script
`benchmarks/effective_robustness.py` makes them."""
