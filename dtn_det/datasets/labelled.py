"""Images with their classes, from any source: class folders, corrupted trees, arrays, Parquet files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dtn_det.datasets.folders.label_maps import LabelMap
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError


@dataclass(frozen=True)
class LabelledImage:
    """An image with its class.

    Attributes:
        key: Identity of the image: ``<folder>/<file>``, or the number of its row in an array, such as ``00042``. A file
            has its extension, because a class may hold ``1.jpg`` and ``1.png``.
        path: The file of the image, or the file in which the image is a row.
        row: Number of the row in a file of many images, see :mod:`dtn_det.datasets.arrays.rows`; -1 if the file is the
            image.
    """

    key: str
    path: str
    label: int
    row: int = -1


@dataclass(frozen=True)
class LabelledImages:
    """The images of an evaluation.

    Attributes:
        images: The images in the order of their keys, folder by folder.
        labels: Numbers and names of the classes.
        selection: Name of the selection: ``'all'``, or a text such as ``'limit=500 of 50000 seed=0'``.
        num_found: Number of images in the folder before the selection.
        num_folders: Number of classes with images in the folder before the selection.
        accepted: All correct classes of each image, by the key of the image, if images can have several: see
            :mod:`dtn_det.datasets.real_labels`. Otherwise empty.
        evidence: Further lines that identify the set of images, such as hashes of rows of an array.
    """

    images: tuple[LabelledImage, ...]
    labels: LabelMap
    selection: str
    num_found: int
    num_folders: int
    remarks: tuple[Remark, ...] = ()
    evidence: tuple[str, ...] = ()
    accepted: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes in the label set, which may be larger than the number of folders."""
        return self.labels.num_classes

    def check_classes(self, root: Path) -> None:
        """Check that there are several classes, because with one class every model has an error of 0.

        Args:
            root: The folder or file of the images, for the message.

        Raises:
            InputError: There is only one class.
        """
        if self.num_classes == 1:
            raise InputError(
                f"expected images of at least two classes in {root}, got the one class {self.labels.names[0]!r}, for "
                "which the error of any model is 0 and says nothing: sort the images into a folder of each class, or "
                "name the folder that holds the folders of all classes"
            )

    def lines(self) -> Iterator[str]:
        """Yield a line with key, file size and label for each image. The hash of the lines identifies the images."""
        yield from (f"{image.key} {file_size(image.path)} {image.label}" for image in self.images)
        yield from self.evidence


def file_size(path: str | Path) -> int:
    """Return the size of a file in bytes; -1 for a broken link, which is reported when the image is read."""
    try:
        return os.stat(path).st_size
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return -1
        raise
