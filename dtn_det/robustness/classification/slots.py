"""Memory in which images under all cells go from worker processes to the models."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dtn_det.robustness.classification.models.classifier import View
from dtn_det.robustness.wording import counted
from dtn_det.system.progress import size


class ViewSlots:
    """Places for images that are used again and again.

    The pages of fresh shared memory cost more than a tenth of what corrupting an image does.

    Args:
        views: Of the models.
        num_cells: Of each image.
        side: Of the images before views.
        count: Of the images that are under way at once.
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
