"""Number and names of the classes of an array of labels, by the evidence in the array and the data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtn_det.datasets.folders.image_files import listed
from dtn_det.datasets.folders.label_maps import LabelMap
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Names of CIFAR-10's classes in the order of its labels (batches.meta of cs.toronto.edu/~kriz/cifar.html)."""

_CIFAR_SIDE, _CIFAR_CLASSES = 32, (10, 100)


@dataclass(frozen=True)
class ArrayClasses:
    """The classes of an array of labels.

    Attributes:
        map: Numbers and names of the classes. Classes whose names are unknown are named by their numbers.
    """

    map: LabelMap
    remarks: tuple[Remark, ...] = ()


def label_map(
    labels: NDArray[np.int64], side: int | None, path: Path, names: Sequence[str] = (), given: int | None = None
) -> ArrayClasses:
    """Find the classes of labels.

    Without ``names`` and ``given``, every number from 0 to the largest label must occur, and is a class. If some number
    does not occur, only images of 32 x 32 pixels are accepted. They are taken for CIFAR's, with 10 or 100 classes, and
    a remark says so.

    Args:
        labels: The labels of the images, (N,).
        side: Side of the square images in pixels; None if it is unknown.
        path: The file of the labels, for messages.
        names: Names of all classes, if the set has them.
        given: Number of the classes, if another file of the set states it.

    Raises:
        InputError: The number of the classes is unknown, the labels begin at 1, or a label is not below this number.
    """
    most = int(labels.max())
    absent = np.setdiff1d(np.arange(most + 1), labels)
    remarks: tuple[Remark, ...] = ()
    if not names and given is None and most > 1 and absent.tolist() == [0]:
        raise InputError(
            f"expected labels from 0 on in {path}, got 1 to {most} and no 0: subtract 1 from all labels (in SVHN, "
            "where 10 stands for the digit 0, make 10 a 0 instead), and save them again"
        )
    number = len(names) or given or most + 1
    if most >= number:
        raise InputError(
            f"expected labels from 0 to {number - 1} in {path}, whose set has {number:,} classes, got {most}: fetch "
            "the labels of this set"
        )
    if not names and given is None and len(absent):
        fitting = [count for count in _CIFAR_CLASSES if count > most]
        if side != _CIFAR_SIDE or not fitting:
            raise InputError(
                f"expected labels of every class from 0 to {most} in {path}, got none of "
                f"{listed([str(one) for one in absent])}, so that the number of classes is unknown: take images of "
                "all classes"
            )
        number = fitting[0]
        what = f"classes were taken, those of CIFAR-{number}, though only {len(np.unique(labels))} have images"
        remarks = (Remark("classes_of_cifar", what, str(path), number),)
    if not names:
        names = (
            CIFAR10
            if number == len(CIFAR10) and is_cifar(labels, side, number)
            else [str(one) for one in range(number)]
        )
    return ArrayClasses(LabelMap("labels", {}, tuple(names)), remarks)


def is_cifar(labels: NDArray[np.int64], side: int | None, number: int) -> bool:
    """Return whether images are CIFAR's by their size and labels: 10 or 100 classes with equally many images each."""
    counts = np.bincount(labels, minlength=number)
    return side == _CIFAR_SIDE and number in _CIFAR_CLASSES and bool((counts == counts[0]).all())
