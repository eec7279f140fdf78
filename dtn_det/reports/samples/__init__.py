"""Sample images with the predictions of the models, and the choice of these images."""

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
from dtn_det.robustness.store import ModelStore

_LOSSLESS_SIDE = 64
_QUALITY = 75


@dataclass(frozen=True)
class Box:
    """The box of an annotated object or of a detection.

    Attributes:
        corners: x1, y1, x2, y2 in pixels of the shown picture.
        score: Score of a detection; None for an annotated object.
        right: Whether a detection was matched to an object of its class with an IoU of at least 0.5; True for an
            annotated object.
        error: Error type of a wrong detection, one of :data:`~dtn_det.metrics.error_types.OUTCOMES`; else empty.
    """

    corners: tuple[float, float, float, float]
    label: str
    score: float | None = None
    right: bool = True
    error: str = ""


@dataclass(frozen=True)
class Answer:
    """The answer of a model to a picture.

    Attributes:
        text: The answer in words: ``cat 87 %``, ``14/18 found, 2 false``.
        right: Whether the predicted class is right; None for detectors.
        boxes: The detections of a detector; empty for classifiers.
    """

    text: str
    right: bool | None = None
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Picture:
    """An image under one cell.

    Attributes:
        cell: The corruption and severity, or the clean cell.
        webp: The picture as the content of a WebP file.
        answers: The answer of each model by its name; models that were not evaluated under this cell are absent.
    """

    cell: Cell
    webp: bytes
    answers: Mapping[str, Answer]


@dataclass(frozen=True)
class SampleImage:
    """An image of the data set, under one or several cells.

    Attributes:
        key: Name of the image in the data set.
        truth: The ground truth in words.
        size: Width and height of the pictures, in pixels.
        pictures: The image under each cell: the clean one first if there is one, then by corruption and severity.
        objects: The annotated objects; empty for classifiers.
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
        image: The image, with the single picture on which the models differ most.
    """

    better: str
    worse: str
    image: SampleImage


@dataclass(frozen=True)
class ClassSample:
    """An image of a class of which a model loses most or least.

    Attributes:
        image: The image, with a single picture and the answer of this model.
    """

    model: str
    image: SampleImage


@dataclass(frozen=True)
class Gallery:
    """The sample images that a page shows.

    Attributes:
        models: Names of the models that gave answers, in the report's order.
        images: Images drawn at random, each under all cells.
        disagreements: Images on which two models differ most; may be empty.
        remarks: Sentences on how the images were chosen.
        classes: An image of each class in the tables of classes; empty for detectors.
    """

    models: tuple[str, ...]
    images: tuple[SampleImage, ...]
    disagreements: tuple[Disagreement, ...] = ()
    remarks: tuple[str, ...] = field(default=())
    classes: tuple[ClassSample, ...] = ()


ClassImage = tuple[str, int, Cell]
"""A model, the number of an image of a class, and the cell under which the image is shown."""


def thumbnail(pixels: ByteImage, longest: int) -> tuple[bytes, tuple[int, int]]:
    """Shrink a picture, and return the content of a WebP file together with the width and height of the picture.

    Args:
        pixels: ``(H, W, 3)`` uint8, RGB.
        longest: Largest length of the longer side, in pixels. Smaller pictures keep their size, and very small ones are
            compressed without loss.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small = max(picture.size) <= _LOSSLESS_SIDE
    picture.save(buffer, "WEBP", lossless=small, quality=_QUALITY, method=4)
    return buffer.getvalue(), picture.size


def shared_images(models: Mapping[str, ModelStore]) -> list[int]:
    """Return the numbers of the images that all models have finished, whether or not they could be read."""
    finished = [
        {number for unit in model.finished() for number in model.store.manifest.unit(unit)} for model in models.values()
    ]
    return sorted(set.intersection(*finished))


def pick(models: Mapping[str, ModelStore], count: int, seed: int, fits: Callable[[int], bool]) -> list[int]:
    """Draw images at random among the images that all models have finished.

    Args:
        count: Number of images to draw; fewer are returned if there are not enough.
        fits: Returns whether the image with this number may be drawn.

    Returns:
        Numbers of the images, in increasing order.
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
    classes: Sequence[ClassImage] = (),
) -> Gallery:
    """Make the sample images of a report from the images that were evaluated.

    Args:
        data: For classifiers, the folder that ``dtn-det mce`` was given as ``--data``; for detectors, the folder of the
            images, or its parent folder.
        pairs: Pairs of compared models. Images on which the models of a pair differ most are added, for the first pair
            with records.
        clean: For classifiers, the folder of clean images, if ``data`` has corrupted images.
        classes: For classifiers, the images to show of classes.

    Raises:
        ReportError: The images are not the evaluated images, no model has records of images, or ``clean`` is given for
            detectors.
        InputError: The folder does not hold images of the expected kind, or this version cannot make the corruptions.
        FileNotFoundError: There is no such folder.
    """
    models = {
        name: model
        for name, model in sources.models.items()
        if isinstance(model, ModelStore) and not model.store.manifest.imported
    }
    if not models:
        raise ReportError(
            "expected models that were evaluated here for sample images, got imported results: leave out --data"
        )
    pair = next((pair for pair in pairs if pair[0] in models and pair[1] in models), None)
    if sources.task == "classification":
        from dtn_det.reports.samples.classification import classification_gallery

        return classification_gallery(models, data, pair, clean=clean, frost=frost, seed=seed, classes=classes)
    if clean is not None:
        raise ReportError("expected --clean with classifiers only, got it with detectors: leave it out")
    from dtn_det.reports.samples.detection import detection_gallery

    return detection_gallery(models, data, pair, frost=frost, seed=seed)
