"""Sample images of classifiers, corrupted again as in the evaluation, with the predicted classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.corruptions.cells import CLEAN, Cell
from dtn_det.corruptions.engine import Corruptor
from dtn_det.corruptions.identity import CorruptionOrigin
from dtn_det.corruptions.image import ByteImage
from dtn_det.datasets.choosing import read_selection
from dtn_det.datasets.labelled import LabelledImage
from dtn_det.errors import ReportError
from dtn_det.reports.classification import ClassifierRecords, read_records
from dtn_det.reports.samples import (
    Answer,
    ClassImage,
    ClassSample,
    Disagreement,
    Gallery,
    Picture,
    SampleImage,
    pick,
    thumbnail,
)
from dtn_det.robustness.classification.baseline import image_side
from dtn_det.robustness.classification.data import Prepared, prepare
from dtn_det.robustness.classification.images import SIDES
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.store import ModelStore
from dtn_det.robustness.store.manifest import StoreManifest

LONGEST = 224
"""Pictures are shrunk until their longer side has at most this many pixels."""
_SHOWN_EACH = 4


def classification_gallery(
    models: Mapping[str, ModelStore],
    data: Path,
    pair: tuple[str, str] | None = None,
    *,
    clean: Path | None = None,
    frost: Path | None = None,
    count: int = 3,
    seed: int = 0,
    classes: Sequence[ClassImage] = (),
) -> Gallery:
    """Make the sample images of classifiers from the images that were evaluated.

    Args:
        models: The models by name, all of the same images and corruptions.
        pair: Two models; images on which their answers differ most are added. None to add none.
        classes: The images to show of classes.

    Raises:
        ReportError: The images are not the evaluated images.
        InputError: The folder does not hold images of the expected kind, or this version cannot make the corruptions.
    """
    prepared = _prepared(models, data, clean, frost)
    names = _class_names(prepared)
    of = {name: _AnswersOfModel(model, names) for name, model in models.items()}
    numbers = pick(models, count, seed, lambda number: all(one.has(number) for one in of.values()))
    images = []
    for number in numbers:
        image = prepared.images.images[number]
        pixels = zip(prepared.cells, prepared.source.images(image), strict=True)
        images.append(_sample(image, number, pixels, of, names))
    found = () if pair is None else _disagreements(prepared, pair, models, of, names)
    samples = tuple(
        ClassSample(name, _under(prepared, number, cell, {name: of[name]}, names)) for name, number, cell in classes
    )
    return Gallery(tuple(models), tuple(images), found, _remarks(pair, found), samples)


def _under(
    prepared: Prepared, number: int, cell: Cell, of: Mapping[str, _AnswersOfModel], names: Mapping[int, str]
) -> SampleImage:
    """Make a sample of an image under one cell."""
    image = prepared.images.images[number]
    (pixels,) = replace(prepared.source, cells=(cell,)).images(image)
    return _sample(image, number, [(cell, pixels)], of, names)


def _prepared(models: Mapping[str, ModelStore], data: Path, clean: Path | None, frost: Path | None) -> Prepared:
    """Prepare the images as for an evaluation, and check that they are the images of the stores."""
    manifests = [model.store.manifest for model in models.values()]
    first = manifests[0]
    cells = dict.fromkeys(cell for manifest in manifests for cell in manifest.cells if cell != CLEAN)
    run = ClassificationOptions(
        models=(),
        data=data,
        store=Path(),
        clean=clean,
        corruptions=tuple(dict.fromkeys(name for name, _ in cells)),
        severities=sorted({severity for _, severity in cells}),
        classes=None if first.protocol["classes"] == "labels" else first.protocol["classes"],
    )
    chosen = read_selection(first.selection)
    if chosen is not None:
        run = replace(run, limit=chosen[0], limit_seed=chosen[1])
    if CorruptionOrigin.parse(first.corruption).from_files:
        run = replace(run, profile=_profile(first))
    else:
        corruptor = Corruptor.from_identity(first.corruption, frost)
        run = replace(run, profile=corruptor.profile, seed=corruptor.seed, jpeg=corruptor.jpeg, engine=corruptor.engine)
        run = replace(run, frost=None if corruptor.frost_folder is None else frost)
    prepared = prepare(run)
    same = prepared.digest == first.data_hash
    if not same or prepared.corruption != first.corruption:
        raise ReportError(
            f"expected the images that were evaluated, {first.data} ({first.num_images:,} images, {first.corruption}, "
            f"hash {first.data_hash[:12]}), got {data} ({len(prepared.images.images):,} images, {prepared.corruption}, "
            f"hash {prepared.digest[:12]}): name the same folder with --data"
        )
    return prepared


def _profile(manifest: StoreManifest) -> str | None:
    """For images read from files, return a profile whose images have the same size; None if there is none."""
    side = image_side(manifest)
    return next((name for name, one in SIDES.items() if one == side), None)


class _AnswersOfModel:
    """The answers of one classifier, read from its store when they are needed."""

    def __init__(self, model: ModelStore, names: Mapping[int, str]) -> None:
        self.model, self.names = model, names
        self._unit = lru_cache(maxsize=4)(self._read)

    def has(self, number: int) -> bool:
        """Return whether there are answers to an image; there are none to images that could not be read."""
        return bool((self._unit(number // self.model.store.manifest.unit_size)["image"] == number).any())

    def answer(self, number: int, cell: Cell) -> Answer | None:
        """Return the answer to an image under a cell, or None if there is none."""
        manifest = self.model.store.manifest
        columns = self._unit(number // manifest.unit_size)
        if cell not in manifest.cells:
            return None
        rows = np.flatnonzero((columns["image"] == number) & (columns["cell"] == manifest.cells.index(cell)))
        if not len(rows):
            return None
        label, row = int(columns["prediction"][rows[0]]), rows[0]
        text = f"{self.names.get(label, f'class {label}')} {100 * columns['confidence'][row]:.0f} %"
        return Answer(text, bool(columns["correct"][row]))

    def _read(self, unit: int) -> dict[str, NDArray[Any]]:
        columns = ["image", "cell", "prediction", "confidence", "correct"]
        table = self.model.read(unit, columns)
        return {name: table[name].to_numpy() for name in columns}


def _sample(
    image: LabelledImage,
    number: int,
    pixels: Iterable[tuple[Cell, ByteImage]],
    of: Mapping[str, _AnswersOfModel],
    names: Mapping[int, str],
) -> SampleImage:
    pictures = []
    size = (0, 0)
    for cell, one in pixels:
        webp, size = thumbnail(one, LONGEST)
        answers = {name: model.answer(number, cell) for name, model in of.items()}
        pictures.append(Picture(cell, webp, {name: answer for name, answer in answers.items() if answer is not None}))
    return SampleImage(image.key, names.get(image.label, f"class {image.label}"), size, tuple(pictures))


def _disagreements(
    prepared: Prepared,
    pair: tuple[str, str],
    models: Mapping[str, ModelStore],
    of: Mapping[str, _AnswersOfModel],
    names: Mapping[int, str],
) -> tuple[Disagreement, ...]:
    """Find the images on which the probabilities of the true class differ most, in favour of either model."""
    records = [read_records(models[name]) for name in pair]
    cells = [cell for cell in prepared.cells if all(cell in one.cells for one in records)]
    images, here, there = np.intersect1d(records[0].images, records[1].images, return_indices=True)
    gain: NDArray[Any] = _probabilities(records[1], cells, there) - _probabilities(records[0], cells, here)
    found = []
    for worse, better, sign in ((0, 1, 1), (1, 0, -1)):
        most = (sign * gain).max(1)
        for place in np.argsort(-most, kind="stable")[:_SHOWN_EACH]:
            if most[place] <= 0:
                break
            number, cell = int(images[place]), cells[int((sign * gain[place]).argmax())]
            shown = _under(prepared, number, cell, of, names)
            found.append(Disagreement(pair[better], pair[worse], shown))
    return tuple(found)


def _probabilities(records: ClassifierRecords, cells: Sequence[Cell], rows: NDArray[Any]) -> NDArray[np.float32]:
    columns = [records.cells.index(cell) for cell in cells]
    values: NDArray[np.float32] = records.columns["true_probability"].astype(np.float32)[rows][:, columns]
    return values


def _class_names(prepared: Prepared) -> dict[int, str]:
    """Return the name of each class by its label: for ImageNet a word, for other data the name of the folder."""
    if prepared.classes != "imagenet":
        return dict(enumerate(prepared.images.labels.names))
    descriptions = require("timm.data", "cls").ImageNetInfo("imagenet-1k").label_descriptions(detailed=False)
    return {label: str(text).partition(",")[0] for label, text in enumerate(descriptions)}


def _remarks(pair: tuple[str, str] | None, found: Sequence[Disagreement]) -> tuple[str, ...]:
    remarks = ["Images were drawn at random among those that all models answered."]
    if pair is not None and found:
        remarks.append(
            f"Of all images and conditions, those were taken on which {pair[0]} and {pair[1]} differ most in the "
            "probability of the true class, each image once for either."
        )
    return tuple(remarks)
