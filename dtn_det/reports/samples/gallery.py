"""Corrupted images and what each model answered to them, chosen and ready to be shown."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dtn_det.corruptions.cells import Cell
from dtn_det.corruptions.image import ByteImage
from dtn_det.errors import ReportError
from dtn_det.reports.sources import Sources
from dtn_det.robustness.store.store import ModelStore

_LOSSLESS_SIDE = 64
_QUALITY = 75


@dataclass(frozen=True)
class Box:
    """An object, or what a detector took for one.

    Attributes:
        corners: x1, y1, x2, y2 in pixels of the shown picture.
        label: Name of its class.
        score: Score of a detection; None for an object of the ground truth.
        right: Whether a detection is an object of its class (IoU of at least 0.5); True for the ground truth.
    """

    corners: tuple[float, float, float, float]
    label: str
    score: float | None = None
    right: bool = True


@dataclass(frozen=True)
class Answer:
    """The answer of a model to a picture.

    Attributes:
        text: The answer in words: ``cat 87 %``, ``14/18 found, 2 false``.
        right: Whether it is right; None for a detector, where that is a matter of degree.
        boxes: Detections of a detector.
    """

    text: str
    right: bool | None = None
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Picture:
    """An image under one cell.

    Attributes:
        cell: The cell.
        webp: The picture as a file.
        answers: The answer of each model; models that were not evaluated under this cell are absent.
    """

    cell: Cell
    webp: bytes
    answers: Mapping[str, Answer]


@dataclass(frozen=True)
class SampleImage:
    """An image of the data set.

    Attributes:
        key: Name of the image in the data set.
        truth: The ground truth in words.
        size: Width and height of the pictures, in pixels.
        pictures: Clean first where it is there, then by corruption and severity.
        objects: Ground truth of a detection set.
    """

    key: str
    truth: str
    size: tuple[int, int]
    pictures: tuple[Picture, ...]
    objects: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Disagreement:
    """An image on which one of two models is much better.

    Attributes:
        better: Name of the model that is.
        worse: Name of the other one.
        image: The image, with the one picture on which they differ most.
    """

    better: str
    worse: str
    image: SampleImage


@dataclass(frozen=True)
class Gallery:
    """The sample images that a page shows.

    Attributes:
        models: Names of the models that gave answers, in the report's order.
        images: Some images under all cells.
        disagreements: Images on which two models differ most.
        remarks: Sentences on how the images were chosen.
    """

    models: tuple[str, ...]
    images: tuple[SampleImage, ...]
    disagreements: tuple[Disagreement, ...] = ()
    remarks: tuple[str, ...] = field(default=())


def thumbnail(pixels: ByteImage, longest: int) -> tuple[bytes, tuple[int, int]]:
    """Make a small picture as a WebP file, and return it with its width and height.

    Args:
        pixels: ``(H, W, 3)`` uint8, RGB.
        longest: Largest length of the longer side, in pixels; smaller pictures keep their size, and tiny ones are
            kept without loss.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small = max(picture.size) <= _LOSSLESS_SIDE
    picture.save(buffer, "WEBP", lossless=small, quality=_QUALITY, method=4)
    return buffer.getvalue(), picture.size


def shared_images(models: Mapping[str, ModelStore]) -> list[int]:
    """Return the numbers of the images in units that all models have finished."""
    finished = [
        {number for unit in model.finished() for number in model.store.manifest.unit(unit)} for model in models.values()
    ]
    return sorted(set.intersection(*finished))


def pick(models: Mapping[str, ModelStore], count: int, seed: int, fits: Callable[[int], bool]) -> list[int]:
    """Draw images at random among those that all models have evaluated.

    Args:
        models: The models.
        count: Number of images, if there are enough.
        seed: Seed of the choice.
        fits: Returns whether an image, by its number, may be chosen.

    Returns:
        Numbers of the images, rising.
    """
    found: list[int] = []
    for number in np.random.default_rng(seed).permutation(shared_images(models)).tolist():
        if len(found) == count:
            break
        if fits(number):
            found.append(number)
    return sorted(found)


def make_samples(
    sources: Sources,
    data: Path,
    pairs: Sequence[tuple[str, str]] = (),
    *,
    clean: Path | None = None,
    frost: Path | None = None,
    seed: int = 0,
) -> Gallery:
    """Make the sample images of a report again from the images that were evaluated.

    Args:
        sources: The models of the report.
        data: Folder of the images: what ``dtn-det mce`` was given as ``--data``; for detectors the image folder, or the
            folder that it lies in.
        pairs: Compared models; of the first pair with records, the disagreements are shown.
        clean: The clean images, where ``data`` has the corrupted ones of classifiers.
        frost: Folder with the original frost textures, where those were used.
        seed: Seed of the choice of the images.

    Raises:
        ReportError: The images are not those that were evaluated, or no model has records of images.
        InputError: Images or corruptions cannot be made again.
        FileNotFoundError: No such folder.
    """
    models = {name: model for name, model in sources.models.items() if isinstance(model, ModelStore)}
    if not models:
        raise ReportError(
            "expected models with records of images for sample images, got imported results: leave out --data"
        )
    pair = next((pair for pair in pairs if pair[0] in models and pair[1] in models), None)
    if sources.task == "classification":
        from dtn_det.reports.samples.classification import classification_gallery

        return classification_gallery(models, data, pair, clean=clean, frost=frost, seed=seed)
    if clean is not None:
        raise ReportError("expected --clean with classifiers only, got it with detectors: leave it out")
    from dtn_det.reports.samples.detection import detection_gallery

    return detection_gallery(models, data, pair, frost=frost, seed=seed)
