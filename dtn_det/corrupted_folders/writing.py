"""Write a corrupted tree: estimate its size, check the disk, and write the files that are missing."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dtn_det.corrupted_folders.layouts import Source, SourceImage, choose, rename_images
from dtn_det.corrupted_folders.manifest import MANIFEST, check_folder
from dtn_det.corrupted_folders.plan import TreePlan
from dtn_det.corrupted_folders.worker import ImageOutcome, Job, write_images
from dtn_det.errors import InputError
from dtn_det.system.files import is_temporary, locked, write_bytes, write_json
from dtn_det.system.processes import interrupts_remembered
from dtn_det.system.progress import duration, meter, size


def write_tree(
    tree: TreePlan, workers: int, console: Console, confirm: Callable[[str], bool]
) -> tuple[ImageOutcome, ...]:
    """Write the files of a tree that are missing.

    Every file is complete or absent at any moment, and existing files are not written again. So after a killed call,
    calling again continues the work.

    Args:
        confirm: Called with the estimate before anything is written; nothing is written if it returns False.

    Returns:
        The outcomes of the images that could not be corrupted.

    Raises:
        InputError: The folder holds something other than this tree, or another process works in it.
        OSError: The tree does not fit on the disk, or cannot be written.
        RuntimeError: A process died.
    """
    if workers < 0:
        raise InputError(f"expected 0 workers or more, got {workers}")
    images, clashes = split_clashes(tree.source, choose(tree.source, tree.limit, tree.corruptor.seed))
    total = len(images) * len(tree.cells)
    with locked(tree.destination, "DST"):
        check_folder(tree.destination, tree.manifest)
        remove_temporary_files(tree.destination)
        present = count_present(tree, images)
        with interrupts_remembered():
            announcement = _announce(tree, images, total - present, workers)
        if not confirm(announcement):
            return ()
        write_json(tree.destination / MANIFEST, tree.manifest.to_json())
        _write_annotations(tree)
        bad = [*clashes, *_write(tree, images, workers, console)]
    return tuple(sorted(bad, key=lambda outcome: outcome.image.target))


def _announce(tree: TreePlan, images: Sequence[SourceImage], missing: int, workers: int) -> str:
    cost = estimate(tree.job, images) if missing else None
    if cost is None:
        return f"{missing:,} files to write"
    num_bytes = missing * cost.num_bytes
    check_space(tree.destination, num_bytes, missing)
    workers = _num_processes(workers, images)
    time = duration(missing * cost.seconds / max(1, workers))
    processes = "this process" if not workers else f"{workers} process{'' if workers == 1 else 'es'}"
    return f"{missing:,} files to write, about {size(num_bytes)}, about {time} with {processes}"


def _num_processes(workers: int, images: Sequence[SourceImage]) -> int:
    return min(workers, len(images))


def _write(tree: TreePlan, images: Sequence[SourceImage], workers: int, console: Console) -> list[ImageOutcome]:
    bad: list[ImageOutcome] = []
    total = len(images) * len(tree.cells)
    if not images:
        return bad
    try:
        with (
            interrupts_remembered() as check,
            contextlib.closing(write_images(tree.job, images, _num_processes(workers, images))) as outcomes,
            meter(console, "Corrupting", total, "files") as advance,
        ):
            for outcome in outcomes:
                check()
                advance(len(tree.cells))
                if outcome.error is not None:
                    bad.append(outcome)
    except KeyboardInterrupt:
        console.print("Interrupted: what is written stays, and the same command continues.", soft_wrap=True)
        raise
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"{error}"
        raise OSError(
            f"expected to write to {tree.destination}, got an error ({reason}): what is written stays, and the same "
            "command continues"
        ) from error
    return bad


def remove_temporary_files(folder: Path) -> None:
    """Delete the half-written files that a killed run left in a folder and below it."""
    for path in _files(folder):
        if is_temporary(os.path.basename(path)):
            os.unlink(path)


def count_present(tree: TreePlan, images: Sequence[SourceImage]) -> int:
    """Count the corrupted files of the given images that the tree already holds."""
    present = 0
    targets = {str(image.target) for image in images}
    for name, severity in tree.cells:
        folder = tree.destination / name / str(severity)
        start = len(str(folder)) + 1
        present += sum(path[start:] in targets for path in _files(folder))
    return present


def _files(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        yield from (os.path.join(parent, name) for name in names)


def _write_annotations(tree: TreePlan) -> None:
    """Write one copy of each annotation file, and a link to it in each cell."""
    renamed = {"jpeg": ".jpg", "png": ".png"}.get(tree.file_format)
    for target, file in tree.source.annotations.items():
        copy = tree.destination / target
        content = file.read_bytes() if isinstance(file, Path) else file
        content = content if renamed is None else rename_images(content, renamed)
        if not copy.exists() or copy.read_bytes() != content:
            write_bytes(copy, content)
        for name, severity in tree.cells:
            link = tree.destination / name / str(severity) / target
            if link.exists():
                continue
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                link.symlink_to(os.path.relpath(copy, link.parent))
            # Not all file systems have links.
            except OSError:
                write_bytes(link, content)


def split_clashes(source: Source, images: Sequence[SourceImage]) -> tuple[list[SourceImage], list[ImageOutcome]]:
    """Separate images that can be written from images whose target path is needed as a folder for other images.

    This happens when a file format changes names: ``a.png`` becomes ``a.jpg``, but there is a folder ``a.jpg``.
    """
    folders = {folder for image in source.images for folder in image.target.parents}
    good = [image for image in images if image.target not in folders]
    return good, [
        ImageOutcome(image, error=f"would become {image.target}, which is a folder: rename it, or take --format source")
        for image in images
        if image.target in folders
    ]


_SAMPLES = 3
_TRIES = 10
_SECONDS = 10.0


@dataclass(frozen=True)
class Estimate:
    """The average cost of one corrupted file.

    Attributes:
        num_bytes: Bytes on the disk, rounded up to whole blocks.
        seconds: Time that one core takes.
    """

    num_bytes: float
    seconds: float


def estimate(job: Job, images: Sequence[SourceImage]) -> Estimate | None:
    """Corrupt and encode a few images that are spread over the source, without writing them.

    Returns:
        The mean cost of their corrupted files; None if no image could be corrupted.
    """
    block = os.statvfs(existing_parent(job.destination)).f_frsize
    deadline = time.monotonic() + _SECONDS
    sizes: list[int] = []
    seconds = 0.0
    samples = 0
    for image in images[:: max(1, len(images) // _TRIES)]:
        try:
            if not samples:
                # The first call is not timed: it compiles functions and loads textures.
                _sizes(job, image)
            begun = time.monotonic()
            sizes += _sizes(job, image)
        # Images that cannot be corrupted are reported when the tree is written.
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
    """Raise an OSError unless a number of bytes and files fits on the disk of a folder."""
    disk = os.statvfs(existing_parent(folder))
    free = disk.f_bavail * disk.f_frsize
    advice = "free some, name a DST on another disk, or write less with --corruptions, --severities or --limit"
    if num_bytes > free:
        raise OSError(f"expected room for about {size(num_bytes)} in {folder}, got {size(free)} free: {advice}")
    # File systems without a fixed number of files report 0.
    if disk.f_files and num_files > disk.f_favail:
        raise OSError(f"expected room for {num_files:,} files in {folder}, got {disk.f_favail:,} free inodes: {advice}")


def existing_parent(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
