"""Every image under every cell, and the memory in which worker processes hand it to the models."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dtn_det.corruptions.cells import CLEAN, Cell
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.image import ByteImage, read_image, resize_and_crop
from dtn_det.datasets.folders.class_folders import LabelledImage
from dtn_det.datasets.folders.image_files import printable
from dtn_det.datasets.remarks import counted
from dtn_det.errors import BadImageError
from dtn_det.robustness.classification.models.classifier import View
from dtn_det.system.progress import size

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
        for cell in self.cells:
            yield clean if cell == CLEAN else self.corruptor(clean, *cell, image.key)


@dataclass(frozen=True)
class CorruptedOnDisk:
    """Cells that are read.

    Attributes:
        folders: Folder of each corrupted cell.
        cells: Which.
        clean: Paths of the clean images by the keys of the corrupted ones.
        side: Side of the square image in pixels.
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
            if cell == CLEAN:
                yield read_clean(self.clean[image.key], self.side)
            else:
                yield read_square(str(self.folders[cell] / image.key), self.side, crop=self.cropped_after)


def read_clean(path: str, side: int) -> ByteImage:
    """A clean image as it is before corruption.

    At 224 pixels, it is resized to 256 and its centre cut out, as for ImageNet-C; at other sizes it must have them.

    Args:
        path: The file.
        side: Side of the square image in pixels.

    Raises:
        BadImageError: It cannot be read or has another size; the message names it.
    """
    return read_square(path, side, crop=side == SIDES["imagenet-c"])


def read_square(path: str, side: int, *, crop: bool = False) -> ByteImage:
    """An image of a known size.

    Args:
        path: The file.
        side: Side of the square image in pixels.
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


class ClassificationImages(Dataset[Item]):
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


class ViewSlots:
    """Places for images that are used again and again.

    The pages of fresh shared memory cost more than a tenth of what corrupting an image does.

    Args:
        views: Views of the models.
        num_cells: Number of cells of each image.
        side: Side of the images in pixels, before they are resized for a model.
        count: Number of images that are under way at once.
        shared: Whether other processes fill the slots.

    Raises:
        OSError: There is too little memory, or too little that is shared, of which containers have little.
    """

    def __init__(self, views: Sequence[View], num_cells: int, side: int, count: int, *, shared: bool) -> None:
        shapes = [(count, num_cells, *(view.size or (side, side)), 3) for view in views]
        if shared:
            _check_shared_memory(sum(map(math.prod, shapes)), count)
        try:
            stacks = [_shared(shape) if shared else torch.empty(shape, dtype=torch.uint8) for shape in shapes]
        except RuntimeError as error:
            raise OSError(
                f"expected {size(sum(map(math.prod, shapes)))} of memory for {counted(count, 'image')} under way, got "
                f"less ({error}): take fewer --workers or a smaller --batch-size"
            ) from error
        self.stacks = tuple(stacks)
        """For each view ``(count, cells, H, W, 3)`` uint8 RGB."""
        self._free = deque(range(count))

    def requests(self, images: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Each image with the slot that it may fill, taken when it is asked for."""
        for image in images:
            yield image, self._free.popleft()

    def release(self, slot: int) -> None:
        """Say that the models are done with what a slot holds."""
        self._free.append(slot)


def _check_shared_memory(needed: int, count: int) -> None:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if needed > free:
        raise OSError(
            f"expected {size(needed)} of shared memory in {folder} for {counted(count, 'image')} under way, got "
            f"{size(free)}: take fewer --workers or a smaller --batch-size, or start the container with more (docker "
            "run --shm-size)"
        )


def _shared(shape: tuple[int, ...]) -> Tensor:
    """Memory that goes to another process without being copied."""
    # As torch's own collation does; `share_memory_` would copy what is not written yet.
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
