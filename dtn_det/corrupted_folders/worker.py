"""Writing of corrupted files: all files of one image, the encoding of a file, and worker processes for many images."""

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
from dtn_det.errors import InputError
from dtn_det.system.files import write_bytes
from dtn_det.system.processes import end_with_parent, interrupts_blocked, worker_environment

# Number of threads with which a process writes files: each waits until its file is on the disk, and the waits overlap.
_WRITERS = 4

# Errors that concern one path, not the whole disk.
_PATH_ERRORS = (errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EILSEQ)


@dataclass(frozen=True)
class Job:
    """What the processes do to every image.

    Attributes:
        cropped: True to resize and crop the clean image as for ImageNet-C.
        upright: True to turn the clean image as its EXIF data say.
    """

    destination: Path
    corruptor: Corruptor
    cells: tuple[tuple[str, int], ...]
    cropped: bool
    upright: bool

    def file(self, image: SourceImage, name: str, severity: int) -> Path:
        """Return the path to which a corrupted image is written."""
        return self.destination / name / str(severity) / image.target

    def read(self, image: SourceImage) -> ByteImage:
        """Read the clean image, and turn and crop it as the job says.

        Returns:
            ``(H, W, 3)`` uint8 RGB array.

        Raises:
            BadImageError: The file cannot be read, or holds no image that can be corrupted.
        """
        picture = read_image(image.path, upright=self.upright)
        return np.array(resize_and_crop(picture) if self.cropped else picture)

    def encode(self, image: SourceImage, clean: ByteImage, name: str, severity: int) -> bytes:
        """Corrupt a clean image, and return the content of its file."""
        return corrupt_to_file(self.corruptor, clean, name, severity, image.key, image.target.suffix)


@dataclass(frozen=True)
class ImageOutcome:
    """What was done with one image.

    Attributes:
        written: Number of files that were written; files that were there before are left as they are.
    """

    image: SourceImage
    written: int = 0
    error: str | None = None


def write_image(job: Job, image: SourceImage, is_stopped: Callable[[], bool] = lambda: False) -> ImageOutcome:
    """Write those corrupted files of an image that do not exist yet.

    Args:
        is_stopped: Called before each file; once it returns True, no more files are written.

    Raises:
        OSError: A file cannot be written for a reason that holds for other files too, such as a full disk.
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
        except InputError as bad:
            error = str(bad)
        # Leave out only this image: a library that fails on one image can still corrupt other images.
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
    """Write the corrupted files of many images in worker processes, or, with 0 ``workers``, in this process.

    Yields:
        The outcome of each image, in the order of completion.

    Raises:
        OSError: A file cannot be written.
        RuntimeError: A process died.
    """
    if not workers:
        for image in images:
            yield write_image(job, image)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with worker_environment(), ProcessPoolExecutor(workers, context, _start, (job, stop)) as pool:
        try:
            pending: set[Future[ImageOutcome]] = set()
            for image in images:
                with interrupts_blocked():  # the worker processes start here and inherit the block
                    pending.add(pool.submit(_work, image))
                # Few images wait at a time, so that an interrupt or an error ends the run soon.
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


# The job of this worker process, and the event that tells it to stop.
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
"""Quality of the JPEG files that are written for benchmarks without a JPEG step; chroma keeps its full resolution."""

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
"""Extensions of the files to which corrupted images can be written. All formats but JPEG are lossless."""


def corrupt_to_file(
    corruptor: Corruptor, image: ByteImage, name: str, severity: int, key: Key | None, suffix: str
) -> bytes:
    """Corrupt an image and encode it.

    If the benchmark has a JPEG step, writing a JPEG file is that step. So the image is never compressed twice, and the
    pixels of the file are those that the corruptor returns. Files of lossless formats hold these pixels too. Only JPEG
    files of benchmarks without a JPEG step differ from these pixels, by the loss of JPEG quality 95.

    Args:
        image: ``(H, W, 3)`` uint8 RGB array.
        suffix: Extension of the file, one of :data:`WRITABLE`.
    """
    quality = corruptor.jpeg_quality
    if suffix.lower() in JPEG_SUFFIXES and quality is not None:
        return encode(replace(corruptor, jpeg=False)(image, name, severity, key), suffix, quality)
    return encode(corruptor(image, name, severity, key), suffix)


def encode(image: ByteImage, suffix: str, jpeg_quality: int | None = None) -> bytes:
    """Encode an image as the bytes of a file.

    Args:
        image: ``(H, W, 3)`` uint8 RGB array.
        suffix: Extension of the file, one of :data:`WRITABLE`.
        jpeg_quality: Write JPEG as ImageNet-C was written, with this quality and chroma of half the resolution; None
            for JPEG of quality :data:`FINE_JPEG_QUALITY`.

    Raises:
        InputError: The suffix is not in :data:`WRITABLE`.
    """
    suffix = suffix.lower()
    file = io.BytesIO()
    picture = Image.fromarray(image)
    if suffix in JPEG_SUFFIXES and jpeg_quality is not None:
        picture.save(file, "JPEG", quality=jpeg_quality, subsampling="4:2:0", optimize=True)
    elif suffix in JPEG_SUFFIXES:
        # With optimize=True, Pillow's buffer would be too small for noise of this quality.
        picture.save(file, "JPEG", quality=FINE_JPEG_QUALITY, subsampling="4:4:4")
    elif suffix in _FORMATS:
        name, options = _FORMATS[suffix]
        picture.save(file, name, **options)
    else:
        raise InputError(f"expected a file name that ends in {', '.join(WRITABLE)}, got {suffix!r}: choose one")
    return file.getvalue()
