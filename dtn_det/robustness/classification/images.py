"""The dataset of images under every cell, and the shared memory in which worker processes pass images to the models.

A cell is a corruption at a severity, or the clean image.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dtn_det.corruptions.cells import CLEAN, Cell
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.image import ByteImage, read_image, resize_and_crop
from dtn_det.datasets.arrays.rows import NpyRows, open_rows
from dtn_det.datasets.folders.image_files import printable
from dtn_det.datasets.labelled import LabelledImage
from dtn_det.datasets.remarks import counted
from dtn_det.errors import BadImageError
from dtn_det.robustness.classification.models.classifier import View
from dtn_det.system.progress import size

SIDES = {
    **{"imagenet-c": 224, "coco-c": 224, "cifar-c": 32, "tiny-imagenet-c": 64},
    **{"imagenet-c-bar": 224, "cifar-c-bar": 32, "imagenet-3dcc": 224},
}
"""Side in pixels of the square images that classifiers get in each benchmark."""

_BLOCK, _SHARED_BYTES = 32, 32 << 20
"""Largest number of rows of arrays that are read together, and largest memory for the blocks that are under way."""


@dataclass(frozen=True)
class Item:
    """An image. Its pixels under all cells are in a slot of :class:`ViewSlots`.

    Attributes:
        slot: Number of the slot; the pixels in the slot are meaningless if the image is bad.
        cell: Number of the cell, if the slot holds the pixels under one cell alone.
    """

    image: int
    slot: int
    error: str | None = None
    cell: int | None = None


class Cells(Protocol):
    """Makes or reads the versions of an image under all cells."""

    def __len__(self) -> int:
        """Number of cells."""

    def images(self, image: LabelledImage) -> Iterator[ByteImage]:
        """Yield the image under each cell in turn, ``(H, W, 3)`` uint8 RGB, all of the same size.

        Raises:
            BadImageError: A file cannot be read, or the image has another size than expected.
        """


@dataclass(frozen=True)
class CorruptedHere:
    """Corrupts the clean image for each cell.

    Attributes:
        cells: The cells, in the order of their numbers.
    """

    corruptor: Corruptor
    cells: tuple[Cell, ...]

    def __len__(self) -> int:
        return len(self.cells)

    def images(self, image: LabelledImage) -> Iterator[ByteImage]:
        """See :class:`Cells`."""
        clean = read_labelled(image, SIDES[self.corruptor.profile])
        for cell in self.cells:
            yield clean if cell == CLEAN else self.corruptor(clean, *cell, image.key)


@dataclass(frozen=True)
class CorruptedOnDisk:
    """Reads the corrupted images of each cell from disk.

    Attributes:
        folders: Folder of each cell except the clean cell.
        clean: Path of each clean image, by the image's key. The key is the path of a corrupted copy below the folder of
            its cell.
        side: Side of the square images in pixels.
        cropped_after: Whether the images were corrupted at their original size. If so, they are resized and cropped
            when they are read.
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


@dataclass(frozen=True)
class CorruptedRows:
    """Reads the corrupted images of each cell from arrays.

    Attributes:
        places: For each cell except the clean cell, the NumPy file and the number of the row of its first image. The
            rows of a cell are in the order of the clean images.
        clean: Each clean image, by the key of the corrupted image; empty without the clean cell.
        side: Side of the square images in pixels.
    """

    places: Mapping[Cell, tuple[str, int]]
    cells: tuple[Cell, ...]
    clean: Mapping[str, LabelledImage]
    side: int

    def __len__(self) -> int:
        return len(self.cells)

    def block_size(self, ahead: int) -> int:
        """Return how many images are read together, if ``ahead`` blocks are read ahead."""
        image = len(self.cells) * self.side**2 * 3
        return min(_BLOCK, max(1, _SHARED_BYTES // ((ahead + 1) * image)))

    def images(self, image: LabelledImage) -> Iterator[ByteImage]:
        """See :class:`Cells`."""
        return (pixels[0] for pixels in self.blocks([image]))

    def blocks(self, images: Sequence[LabelledImage]) -> Iterator[NDArray[np.uint8]]:
        """Yield several images under each cell in turn, ``(images, H, W, 3)`` uint8 RGB.

        Adjacent rows are read together, which takes a fraction of the time of reading them one by one.

        Raises:
            BadImageError: One of the images cannot be read.
        """
        runs = list(_runs([image.row for image in images]))
        for cell in self.cells:
            if cell == CLEAN:
                yield np.stack([read_labelled(self.clean[image.key], self.side) for image in images])
            else:
                path, first = self.places[cell]
                rows = cast("NpyRows", open_rows(path))
                read = [rows.block(first + start, count) for start, count in runs]
                yield read[0] if len(read) == 1 else np.concatenate(read)


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first row and the length of each run of adjacent rows."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end] != rows[end - 1] + 1:
            yield rows[start], end - start
            start = end


Source = CorruptedHere | CorruptedOnDisk | CorruptedRows
"""All that makes or reads the versions of images."""


def read_labelled(image: LabelledImage, side: int) -> ByteImage:
    """Read a clean image, which is a file or a row of a file, in the size at which it is corrupted.

    Raises:
        BadImageError: See :func:`read_clean`.
    """
    if image.row < 0:
        return read_clean(image.path, side)
    pixels = open_rows(image.path).row(image.row)
    return _squared(Image.fromarray(pixels), f"row {image.row} of {image.path}", side, crop=side == SIDES["imagenet-c"])


def read_clean(path: str, side: int) -> ByteImage:
    """Read a clean image in the size at which it is corrupted.

    If ``side`` is 224, the short side of the image is resized to 256 pixels and its centre is cut out, as for
    ImageNet-C. For any other value, the image must have that size already.

    Raises:
        BadImageError: The image cannot be read or has another size; the message names the file.
    """
    return read_square(path, side, crop=side == SIDES["imagenet-c"])


def read_square(path: str, side: int, *, crop: bool = False) -> ByteImage:
    """Read a square image and check its size.

    Args:
        crop: Whether to resize and crop the image as for ImageNet-C before its size is checked.

    Raises:
        BadImageError: The image cannot be read or has another size; the message names the file.
    """
    try:
        picture = read_image(Path(path), upright=False)
    except BadImageError as error:
        raise BadImageError(f"{printable(path)}: {printable(str(error))}") from error
    return _squared(picture, printable(path), side, crop=crop)


def _squared(picture: Image.Image, name: str, side: int, *, crop: bool) -> ByteImage:
    """Crop an image if ``crop`` is set, and check that its size is ``side`` x ``side``."""
    if crop:
        picture = resize_and_crop(picture)
    if picture.size != (side, side):
        width, height = picture.size
        raise BadImageError(f"{name}: expected {side} x {side} pixels, got {width} x {height}")
    return np.array(picture)


class ClassificationImages(Dataset[Item]):
    """The images of an evaluation, each under every cell.

    An index is a pair of an image's number and a slot's number. Getting the item writes the image's pixels under all
    cells into that slot of each stack. Several items are read together if they are rows of arrays.

    Args:
        stacks: The slots of each view, ``(slots, cells, H, W, 3)`` uint8 RGB.
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

    def __getitems__(self, indices: Sequence[tuple[int, int]]) -> list[Item]:
        if isinstance(self.cells, CorruptedRows) and len(indices) > 1:
            try:
                return self._block(self.cells, indices)
            # Reading the images one by one finds out which of them is bad.
            except BadImageError:
                pass
        return [self[index] for index in indices]

    def _block(self, rows: CorruptedRows, indices: Sequence[tuple[int, int]]) -> list[Item]:
        slots = [slot for _, slot in indices]
        places = [stack.numpy() for stack in self.stacks]
        for cell, block in enumerate(rows.blocks([self.images[number] for number, _ in indices])):
            for place, view in zip(places, self.views, strict=True):
                place[slots, cell] = block if view.size is None else np.stack([see(pixels, view) for pixels in block])
        return [Item(number, slot) for number, slot in indices]


def see(pixels: ByteImage, view: View) -> ByteImage:
    """Return an image in the size that a model takes; it is resized if its size is different."""
    if view.size is None or pixels.shape[:2] == view.size:
        return pixels
    height, width = view.size
    method = Image.Resampling[view.interpolation.upper()]
    return np.array(Image.fromarray(pixels).resize((width, height), method))


class ViewSlots:
    """Slots of memory for images. A slot is reused after the models have processed its image.

    Allocating shared memory for each image would take more than a tenth of the time of corrupting the image.

    Args:
        side: Side of the images in pixels, before they are resized for a model.
        count: Number of slots: of images that are loaded ahead or processed by the models at the same time.
        shared: Whether other processes write into the slots.

    Raises:
        OSError: There is too little memory, or too little shared memory, which containers limit.
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
        """The slots of each view, ``(count, cells, H, W, 3)`` uint8 RGB."""
        self._free = deque(range(count))

    def indices(self, requests: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Yield pairs of a request and a free slot to write into. A slot is taken only when its pair is drawn."""
        for request in requests:
            yield request, self._free.popleft()

    def release(self, slot: int) -> None:
        """Mark a slot as free, because the models have processed its image."""
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
    """Return a uint8 tensor in shared memory, which is passed to another process without a copy."""
    # Torch's own collation does the same. `share_memory_` would first create an empty tensor and then copy it.
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
