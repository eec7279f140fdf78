"""Find the clean image of each row in a set of corrupted arrays; the rows are in the order of the clean set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dtn_det.datasets.arrays.corrupted import ArraySet
from dtn_det.datasets.folders.class_folders import stem
from dtn_det.datasets.labelled import LabelledImage, LabelledImages
from dtn_det.errors import InputError

_NUMBER_AT_END = re.compile(r"(\d+)$")


def match_rows(
    images: LabelledImages, arrays: ArraySet, clean: LabelledImages, folder: Path
) -> Mapping[str, LabelledImage]:
    """Find the clean image of each corrupted image.

    If the clean images are rows of a file, row ``i`` belongs to row ``i`` of the arrays. If they lie in class folders,
    the number at the end of a file name is the number of the row.

    Args:
        images: The images of the arrays that will be evaluated.
        clean: All images of the clean set.
        folder: Folder of the clean images, for messages.

    Raises:
        InputError: The clean set has another number of images or other labels, or its file names do not contain row
            numbers.
    """
    if len(clean.images) != arrays.num_images:
        raise InputError(
            f"expected the {arrays.num_images:,} clean images of {arrays.root} in {folder}, got {len(clean.images):,}: "
            "name the set that the arrays were made from, or leave --clean out"
        )
    rows = list(clean.images) if clean.images[0].row >= 0 else _by_name(clean, folder)
    wrong = next((row for row, image in enumerate(rows) if image.label != arrays.labels[row]), None)
    if wrong is not None:
        raise InputError(
            f"expected the images of {folder} in the order of the rows of {arrays.root}, got class {rows[wrong].label} "
            f"for {rows[wrong].key} and class {arrays.labels[wrong]} in row {wrong} of labels.npy: name the set that "
            "the arrays were made from, or leave --clean out"
        )
    return {image.key: rows[image.row] for image in images.images}


def _by_name(clean: LabelledImages, folder: Path) -> list[LabelledImage]:
    found = {}
    for image in clean.images:
        if match := _NUMBER_AT_END.search(stem(image.key)):
            found[int(match[1])] = image
    first = 1 if 0 not in found else 0
    if [*sorted(found)] != [*range(first, first + len(clean.images))]:
        raise InputError(
            f"expected files in {folder} whose names end with the number of the row in the arrays, each number once, "
            f"got names such as {clean.images[0].key}: name CIFAR's own batches, which have an order, with --clean"
        )
    return [found[number] for number in sorted(found)]
