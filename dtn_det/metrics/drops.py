"""The drop of the top-1 accuracy from clean images to another set of images of the same classes, paired by class.

The two sets have no image in common, such as ImageNet-R and ImageNet's validation images of its 200 classes. What they
share is the classes, so a bootstrap replicate draws classes with replacement, the same for both sets and all models,
and takes all images of each drawn class (a cluster bootstrap: Field and Welsh, "Bootstrapping clustered data", Journal
of the Royal Statistical Society B 69, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

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


def drop_samples(clean: ClassCounts, shifted: ClassCounts, replicates: int, seed: int = 0) -> tuple[float, Array]:
    """Compute the top-1 accuracy on clean images minus that on another set of the same classes, as a fraction.

    Two models with the same images, replicates and seed get the same classes in each replicate, so that their drops
    can be compared with a paired interval.

    Args:
        replicates: Number of bootstrap replicates; 0 for none.

    Returns:
        The drop, and the drop on each replicate, (replicates,); NaN where a replicate has no image of one of the sets.

    Raises:
        InputError: The sets have other numbers of classes, or one has no image.
    """
    if len(clean.images) != len(shifted.images) or not clean.images.sum() or not shifted.images.sum():
        raise InputError(
            f"expected images of both sets in the same classes, got {clean.images.sum():g} images in "
            f"{len(clean.images)} classes and {shifted.images.sum():g} in {len(shifted.images)}"
        )
    point = float(clean.right.sum() / clean.images.sum() - shifted.right.sum() / shifted.images.sum())
    there = (clean.images > 0) | (shifted.images > 0)
    counts = np.stack([clean.right, clean.images, shifted.right, shifted.images], 1)[there]
    if not replicates:
        return point, np.empty(0)
    parts = [drawn.astype(np.float64) @ counts for drawn in weights(int(there.sum()), replicates, seed)]
    right, images, other_right, other_images = np.concatenate(parts).T
    with np.errstate(invalid="ignore"):
        return point, right / images - other_right / other_images
