"""All corrupted files of one image, how they are encoded, and the processes that write them."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dtn_det.corrupted_folders.layouts import SourceImage
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.image import ByteImage, read_image, resize_and_crop
from dtn_det.corruptions.stream import Key
from dtn_det.datasets.folders.image_files import JPEG_SUFFIXES
from dtn_det.errors import BadImageError, InputError
from dtn_det.system.files import write_bytes
from dtn_det.system.processes import end_with_parent, interrupts_blocked, worker_environment

# A file must be on the disk before it gets its name; the waits of several overlap.
_WRITERS = 4

# What is wrong with one path, and not with the disk.
_PATH_ERRORS = (errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EILSEQ)


@dataclass(frozen=True)
class Job:
    """What is done to every image.

    Attributes:
        destination: Folder of the tree.
        corruptor: How.
        cells: Corruptions and severities.
        cropped: Resize and crop the clean image as for ImageNet-C.
        upright: Turn the clean image as its EXIF data say.
    """

    destination: Path
    corruptor: Corruptor
    cells: tuple[tuple[str, int], ...]
    cropped: bool
    upright: bool

    def file(self, image: SourceImage, name: str, severity: int) -> Path:
        """Where a corrupted image goes."""
        return self.destination / name / str(severity) / image.target

    def read(self, image: SourceImage) -> ByteImage:
        """The clean image as it is corrupted.

        Returns:
            ``(H, W, 3)`` RGB.

        Raises:
            BadImageError: The file is bad.
        """
        picture = read_image(image.path, upright=self.upright)
        return np.array(resize_and_crop(picture) if self.cropped else picture)

    def encode(self, image: SourceImage, clean: ByteImage, name: str, severity: int) -> bytes:
        """The content of a corrupted file."""
        return corrupt_to_file(self.corruptor, clean, name, severity, image.key, image.target.suffix)


@dataclass(frozen=True)
class ImageOutcome:
    """What came of one image.

    Attributes:
        image: The image.
        written: Files that were written; those that were there before are left alone.
        error: Why it could not be corrupted, or None.
    """

    image: SourceImage
    written: int = 0
    error: str | None = None


def write_image(job: Job, image: SourceImage, is_stopped: Callable[[], bool] = lambda: False) -> ImageOutcome:
    """Write those corrupted files of an image that are not there yet.

    Args:
        job: What to do.
        image: The image.
        is_stopped: Asked before each file; the rest is left when it says so.

    Raises:
        OSError: A file cannot be written, for a reason that would keep others from being written too.
    """
    missing = [cell for cell in job.cells if not os.path.isfile(job.file(image, *cell))]
    if not missing:
        return ImageOutcome(image)
    pending: list[Future[None]] = []
    error = None
    with ThreadPoolExecutor(_WRITERS) as writers:
        try:
            clean = job.read(image)
            for cell in missing:
                if is_stopped():
                    break
                pending.append(writers.submit(write_bytes, job.file(image, *cell), job.encode(image, clean, *cell)))
        except BadImageError as bad:
            error = str(bad)
        # Whatever one image does to a library, the others can still be corrupted.
        except Exception as failure:
            error = f"cannot be corrupted ({type(failure).__name__}: {failure})"
    written = 0
    for future in pending:
        try:
            future.result()
        except OSError as failure:
            if failure.errno not in _PATH_ERRORS:
                raise
            error = f"cannot be written ({failure})"
        else:
            written += 1
    return ImageOutcome(image, written, error)


def write_images(job: Job, images: Sequence[SourceImage], workers: int) -> Generator[ImageOutcome, None, None]:
    """Write the corrupted files of many images in processes of their own.

    Args:
        job: What to do.
        images: The images.
        workers: Number of processes.

    Yields:
        What came of each image, in the order of completion.

    Raises:
        OSError: A file cannot be written.
        RuntimeError: A process died.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with worker_environment(), ProcessPoolExecutor(workers, context, _start, (job, stop)) as pool:
        try:
            pending: set[Future[ImageOutcome]] = set()
            for image in images:
                with interrupts_blocked():  # processes start here and inherit it
                    pending.add(pool.submit(_work, image))
                # Few enough that an interrupt or an error ends soon.
                if len(pending) >= 3 * workers:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool:
            raise RuntimeError(
                "a worker process died (out of memory, perhaps): what is written stays; run the same command again, "
                "with fewer --workers"
            ) from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


# Of a worker process: its job, and whether it is to stop.
_state: tuple[Job, Any] | None = None


def _start(job: Job, stop: Any) -> None:
    global _state
    _state = (job, stop)
    cv2.setNumThreads(1)
    end_with_parent()


def _work(image: SourceImage) -> ImageOutcome:
    if _state is None:
        raise RuntimeError("expected a process that was prepared by write_images, got another one")
    job, stop = _state
    return write_image(job, image, stop.is_set)


FINE_JPEG_QUALITY = 95
"""Of JPEG files where the benchmark has no JPEG step of its own; they keep chroma at full resolution."""

_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    # Noise does not compress: the fastest level gives files that are hardly larger.
    ".png": ("PNG", {"compress_level": 1}),
    ".bmp": ("BMP", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".apng": ("PNG", {"compress_level": 1}),
    ".dib": ("DIB", {}),
    ".ppm": ("PPM", {}),
    ".tga": ("TGA", {}),
}
WRITABLE = (*JPEG_SUFFIXES, *_FORMATS)
"""Endings of the files that corrupted images are written to; all but JPEG's lose nothing."""


def corrupt_to_file(
    corruptor: Corruptor, image: ByteImage, name: str, severity: int, key: Key | None, suffix: str
) -> bytes:
    """Corrupt an image and encode it.

    A JPEG file is itself the JPEG step of the benchmark, if it has one: there is never more than one compression, and
    the file's pixels are those that the corruptor returns. In a lossless format they are so too. Only a JPEG file
    without that step differs from them, by what quality 95 loses.

    Args:
        corruptor: How.
        image: ``(H, W, 3)`` RGB.
        name: Corruption.
        severity: 1 to 5.
        key: Of the image.
        suffix: Of the file: one of :data:`WRITABLE`.
    """
    quality = corruptor.jpeg_quality
    if suffix.lower() in JPEG_SUFFIXES and quality is not None:
        return encode(replace(corruptor, jpeg=False)(image, name, severity, key), suffix, quality)
    return encode(corruptor(image, name, severity, key), suffix)


def encode(image: ByteImage, suffix: str, jpeg_quality: int | None = None) -> bytes:
    """The bytes of an image file.

    Args:
        image: ``(H, W, 3)`` RGB.
        suffix: One of :data:`WRITABLE`.
        jpeg_quality: Write JPEG as ImageNet-C was, with this quality and halved chroma; None for a fine one.

    Raises:
        ValueError: Another suffix.
    """
    suffix = suffix.lower()
    file = io.BytesIO()
    picture = Image.fromarray(image)
    if suffix in JPEG_SUFFIXES and jpeg_quality is not None:
        picture.save(file, "JPEG", quality=jpeg_quality, subsampling="4:2:0", optimize=True)
    elif suffix in JPEG_SUFFIXES:
        # Not optimized: Pillow's buffer for that is too small for noise of this quality.
        picture.save(file, "JPEG", quality=FINE_JPEG_QUALITY, subsampling="4:4:4")
    elif suffix in _FORMATS:
        name, options = _FORMATS[suffix]
        picture.save(file, name, **options)
    else:
        raise InputError(f"expected a file name that ends in {', '.join(WRITABLE)}, got {suffix!r}: choose one")
    return file.getvalue()
