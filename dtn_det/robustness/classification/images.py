"""Every image under every cell, as workers hand it to the models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.image import ByteImage, read_image, resize_and_crop
from dtn_det.datasets.folders.class_folders import LabelledImage
from dtn_det.datasets.folders.image_files import printable
from dtn_det.errors import BadImageError
from dtn_det.robustness.cells import CLEAN, Cell
from dtn_det.robustness.classification.models.classifier import View

SIDES = {"imagenet-c": 224, "coco-c": 224, "cifar-c": 32, "tiny-imagenet-c": 64}
"""Side of the square images that a benchmark's classifiers see."""


@dataclass(frozen=True)
class Item:
    """One image whose pixels under all cells are in a slot.

    Attributes:
        image: Its number.
        slot: Where its pixels are, unless it is bad.
        error: Why the image is bad, or None.
    """

    image: int
    slot: int
    error: str | None = None


class Cells(Protocol):
    """Gives an image under each cell in turn."""

    def __len__(self) -> int:
        """Number of cells."""

    def images(self, image: LabelledImage) -> Iterator[ByteImage]:
        """``(H, W, 3)`` RGB for each cell, all of one size.

        Raises:
            BadImageError: A file is bad.
        """


@dataclass(frozen=True)
class CorruptedHere:
    """Cells that are made of the clean image.

    Attributes:
        corruptor: How.
        cells: Which.
    """

    corruptor: Corruptor
    cells: tuple[Cell, ...]

    def __len__(self) -> int:
        return len(self.cells)

    def images(self, image: LabelledImage) -> Iterator[ByteImage]:
        """See :class:`Cells`."""
        clean = read_clean(image.path, SIDES[self.corruptor.profile])
        for name, severity in self.cells:
            yield clean if name == CLEAN else self.corruptor(clean, name, severity, image.key)


@dataclass(frozen=True)
class CorruptedOnDisk:
    """Cells that are read.

    Attributes:
        folders: Of the corrupted cells.
        cells: Which.
        clean: Paths of the clean images by the keys of the corrupted ones.
        side: Of the square images.
        cropped_after: The images were corrupted at their own size, and are resized and cropped when they are read.
    """

    folders: Mapping[tuple[str, int], Path]
    cells: tuple[Cell, ...]
    clean: Mapping[str, str]
    side: int
    cropped_after: bool = False

    def __len__(self) -> int:
        return len(self.cells)

    def images(self, image: LabelledImage) -> Iterator[ByteImage]:
        """See :class:`Cells`."""
        for cell in self.cells:
            if cell.corruption == CLEAN:
                yield read_clean(self.clean[image.key], self.side)
            else:
                yield read_square(str(self.folders[cell] / image.key), self.side, crop=self.cropped_after)


def read_clean(path: str, side: int) -> ByteImage:
    """A clean image as it is before corruption.

    At 224 pixels, it is resized to 256 and its centre cut out, as for ImageNet-C; at other sizes it must have them.

    Args:
        path: The file.
        side: Of the square image.

    Raises:
        BadImageError: It cannot be read or has another size; the message names it.
    """
    return read_square(path, side, crop=side == SIDES["imagenet-c"])


def read_square(path: str, side: int, *, crop: bool = False) -> ByteImage:
    """An image of a known size.

    Args:
        path: The file.
        side: Of the square image.
        crop: Resize and crop it as for ImageNet-C.

    Raises:
        BadImageError: It cannot be read or has another size; the message names it.
    """
    try:
        picture = read_image(Path(path), upright=False)
    except BadImageError as error:
        raise BadImageError(f"{printable(path)}: {printable(str(error))}") from error
    if crop:
        picture = resize_and_crop(picture)
    if picture.size != (side, side):
        width, height = picture.size
        raise BadImageError(f"{printable(path)}: expected {side} x {side} pixels, got {width} x {height}")
    return np.array(picture)


class CellImages(Dataset[Item]):
    """The images of an evaluation, each under every cell. An index is the number of an image and that of its slot.

    Args:
        images: The images.
        cells: Where their corrupted versions come from.
        views: What the models need of them.
        stacks: For each view ``(slots, cells, H, W, 3)`` uint8 RGB, filled in.
    """

    def __init__(
        self, images: Sequence[LabelledImage], cells: Cells, views: Sequence[View], stacks: Sequence[Tensor]
    ) -> None:
        self.images, self.cells, self.views, self.stacks = images, cells, views, stacks

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: tuple[int, int]) -> Item:
        number, slot = index
        places = [stack[slot].numpy() for stack in self.stacks]
        try:
            for cell, pixels in enumerate(self.cells.images(self.images[number])):
                for place, view in zip(places, self.views, strict=True):
                    place[cell] = see(pixels, view)
        except BadImageError as error:
            return Item(number, slot, str(error))
        return Item(number, slot)


def see(pixels: ByteImage, view: View) -> ByteImage:
    """An image as a model takes it: resized, unless it has the size."""
    if view.size is None or pixels.shape[:2] == view.size:
        return pixels
    height, width = view.size
    method = Image.Resampling[view.interpolation.upper()]
    return np.array(Image.fromarray(pixels).resize((width, height), method))
