"""The classes of which a model loses most and least under corruption, compared with clean images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.corruptions.stream import WNID
from dtn_det.metrics import CLEAN, Samples
from dtn_det.metrics.resampling import LEVEL, REPLICATES, interval
from dtn_det.reports.classification import ClassifierRecords
from dtn_det.reports.numbers import Row, cells_of_set, sets_of

if TYPE_CHECKING:
    import pyarrow

    from dtn_det.robustness.detection.truth import CocoTruth

SHOWN = 5
"""Number of classes that are shown at either end."""

_CLASS_METRIC = "AP of category "
_NO_IMAGE = -1

LEAST_IMAGES = 5
"""Smallest number of images of a class that is shown."""


def class_rows(
    model: str,
    records: ClassifierRecords,
    labels: NDArray[np.integer[Any]],
    names: Mapping[int, str],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = LEVEL,
) -> Iterator[Row]:
    """Yield the rows of :attr:`dtn_det.reports.contents.Section.classes` for one model.

    There are none without clean images, without corrupted ones, or with fewer than two classes of
    :data:`LEAST_IMAGES` images.

    Args:
        labels: Class of each image by the number of the image.
        names: Name of each class.
        replicates: Number of bootstrap replicates; 0 for no intervals.
    """
    sets = sets_of(records.cells)
    corrupted = cells_of_set(records.cells, sets[0]) if sets else []
    if CLEAN not in records.cells or not corrupted:
        return
    wrong = ~records.columns["correct"].astype(np.bool_, copy=False)
    before, under = wrong[:, records.cells.index(CLEAN)], wrong[:, corrupted]
    lost = under.mean(1) - before
    own = labels[records.images]
    counts = np.bincount(own)
    with np.errstate(invalid="ignore"):
        losses = np.bincount(own, lost) / counts
    for end, chosen in _ends(losses, counts).items():
        for label in chosen:
            rows = np.flatnonzero(own == label)
            ends_of = (np.nan, np.nan)
            if replicates:
                draws = np.random.default_rng((seed, label)).integers(len(rows), size=(replicates, len(rows)))
                found = interval(losses[label], lost[rows][draws].mean(1), level)
                ends_of = (found.low, found.high)
            values = (before[rows].mean(), under[rows].mean(), losses[label], *ends_of)
            image, column = _sample(rows, before, under, most=end == "most")
            name = names.get(label, f"class {label}")
            shown = (int(records.images[image]), *records.cells[corrupted[column]])
            yield (model, end, name, len(rows), *(100.0 * float(value) for value in values), *shown)


def _ends(losses: NDArray[np.float64], counts: NDArray[np.integer[Any]]) -> dict[str, list[int]]:
    """Return the classes that lose most and least, or all if they are few; none if there are fewer than two."""
    # Rounded, so that equal losses stand in the order of the classes and not of their rounding errors.
    order = np.argsort(-np.round(losses, 9), kind="stable")
    ranked = order[counts[order] >= LEAST_IMAGES].tolist()
    if len(ranked) < 2:
        return {}
    if len(ranked) > 2 * SHOWN:
        return {"most": ranked[:SHOWN], "least": ranked[: -SHOWN - 1 : -1]}
    return {"all": ranked}


def class_metric(place: int) -> str:
    """Return the name of the AP of a category in a detector's numbers; categories are in the order of their ids."""
    return f"{_CLASS_METRIC}{place}"


def is_class_metric(name: str) -> bool:
    """Return whether a name is that of the AP of a category."""
    return name.startswith(_CLASS_METRIC)


def detector_class_rows(
    model: str, numbers: Mapping[str, Samples], truth: CocoTruth, *, level: float = LEVEL
) -> Iterator[Row]:
    """Yield the rows of :attr:`dtn_det.reports.contents.Section.classes` for one detector; see :func:`class_rows`.

    Args:
        numbers: Numbers of the detector by name, among them those of :func:`class_metric`. Categories without objects
            are absent.
    """
    categories = sorted(truth.categories)
    places = [place for place in range(len(categories)) if class_metric(place) in numbers]
    own = [numbers[class_metric(place)] for place in places]
    cells = own[0].cells if own else ()
    sets = sets_of(cells)
    corrupted = cells_of_set(cells, sets[0]) if sets else []
    if CLEAN not in cells or not corrupted:
        return
    images = Counter(
        category
        for image in truth.images
        for category in {one["category_id"] for one in json.loads(image.annotations) if not one.get("iscrowd")}
    )
    counts = np.array([images[categories[place][0]] for place in places])
    clean = cells.index(CLEAN)
    before = np.array([one.point[clean] for one in own])
    under = np.array([one.point[corrupted].mean() for one in own])
    for end, chosen in _ends(before - under, counts).items():
        for row in chosen:
            ends_of = (np.nan, np.nan)
            if len(own[row].values) > 1:
                drawn = own[row].values[:, corrupted].mean(1) - own[row].values[:, clean]
                found = interval(float(under[row] - before[row]), drawn, level)
                ends_of = (found.low, found.high)
            values = (before[row], under[row], under[row] - before[row], *ends_of)
            worst = cells[corrupted[int(own[row].point[corrupted].argmin())]]
            name = categories[places[row]][1]
            yield (model, end, name, int(counts[row]), *(100.0 * float(value) for value in values), _NO_IMAGE, *worst)


def _sample(
    rows: NDArray[np.intp], before: NDArray[np.bool_], under: NDArray[np.bool_], *, most: bool
) -> tuple[int, int]:
    """Choose the cell with most errors in a class, and an image that is lost there, or that is not."""
    column = int(under[rows].mean(0).argmax())
    fits = ~before[rows] & (under[rows, column] == most)
    return int(rows[int(fits.argmax())]), column


def class_names(images: pyarrow.Table, classes: str) -> dict[int, str]:
    """Return the name of each class by its label: of ImageNet's classes the English word, else the folder's name.

    Classes without a folder have no name. Without timm, ImageNet's classes are called by their wnids.

    Args:
        images: Keys and labels of the images, from a store.
        classes: How the classes are numbered, as in the protocol of the store.
    """
    labels, first = np.unique(images["label"].to_numpy(), return_index=True)
    keys = [images["key"][int(place)].as_py() for place in first]
    folders = {int(label): _folder(key) for label, key in zip(labels, keys, strict=True)}
    numbered = classes == "imagenet"
    if not numbered and not any(map(WNID.fullmatch, folders.values())):
        return {label: folder for label, folder in folders.items() if folder}
    try:
        info = require("timm.data", "cls").ImageNetInfo("imagenet-1k")
    except ImportError:
        return {label: folder for label, folder in folders.items() if folder}
    wnids = {label: info.index_to_label_name(label) if numbered else folder for label, folder in folders.items()}
    known = set(info.label_names())
    short = {
        label: info.label_name_to_description(wnid, detailed=False).partition(",")[0]
        for label, wnid in wnids.items()
        if wnid in known
    }
    # Two words, crane and maillot, are names of two classes each.
    twice = {word for word, count in Counter(short.values()).items() if count > 1}
    return {
        label: f"{short[label]} ({wnid})" if short.get(label) in twice else short.get(label, wnid)
        for label, wnid in wnids.items()
    }


def _folder(key: str) -> str:
    """Return the folder in the key of an image that names its class: a wnid if there is one, else the first."""
    folders: Sequence[str] = key.split("/")[:-1]
    return next(filter(WNID.fullmatch, folders), folders[0] if folders else "")
