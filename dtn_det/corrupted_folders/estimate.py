"""How large a corrupted tree will be, and how long it will take."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dtn_det.corrupted_folders.layouts import SourceImage
from dtn_det.corrupted_folders.worker import Job
from dtn_det.system.progress import size

_SAMPLES = 3
_TRIES = 10
_SECONDS = 10.0


@dataclass(frozen=True)
class Estimate:
    """What one corrupted file costs, on average.

    Attributes:
        num_bytes: On the disk, whole blocks.
        seconds: Of one core.
    """

    num_bytes: float
    seconds: float


def estimate(job: Job, images: Sequence[SourceImage]) -> Estimate | None:
    """Corrupt and encode a few images spread over all, without writing them.

    Returns:
        The mean over their files, or None if none of those tried can be read.
    """
    block = os.statvfs(existing_parent(job.destination)).f_frsize
    deadline = time.monotonic() + _SECONDS
    sizes: list[int] = []
    seconds = 0.0
    samples = 0
    for image in images[:: max(1, len(images) // _TRIES)]:
        try:
            if not samples:
                # Compiles, and loads what later calls find loaded.
                _sizes(job, image)
            begun = time.monotonic()
            sizes += _sizes(job, image)
        # An image that cannot be corrupted is reported when its turn comes.
        except Exception:
            continue
        seconds += time.monotonic() - begun
        samples += 1
        if samples == _SAMPLES or time.monotonic() > deadline:
            break
    if not sizes:
        return None
    return Estimate(sum(-(-length // block) * block for length in sizes) / len(sizes), seconds / len(sizes))


def _sizes(job: Job, image: SourceImage) -> list[int]:
    clean = job.read(image)
    return [len(job.encode(image, clean, *cell)) for cell in job.cells]


def check_space(folder: Path, num_bytes: float, num_files: int) -> None:
    """Raise an OSError unless so many bytes and files fit on the disk of a folder."""
    disk = os.statvfs(existing_parent(folder))
    free = disk.f_bavail * disk.f_frsize
    advice = "free some, name a DST on another disk, or write less with --corruptions, --severities or --limit"
    if num_bytes > free:
        raise OSError(f"expected room for about {size(num_bytes)} in {folder}, got {size(free)} free: {advice}")
    # File systems without a fixed number of files say 0.
    if disk.f_files and num_files > disk.f_favail:
        raise OSError(f"expected room for {num_files:,} files in {folder}, got {disk.f_favail:,} free inodes: {advice}")


def existing_parent(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
