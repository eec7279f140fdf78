"""The classes of which a classifier loses most and least under corruption, compared with its clean error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dtn_det._optional import require
from dtn_det.corruptions.stream import WNID
from dtn_det.metrics import CLEAN
from dtn_det.metrics.resampling import LEVEL, REPLICATES, interval
from dtn_det.reports.classification import ClassifierRecords
from dtn_det.reports.numbers import Row, cells_of_set, sets_of

if TYPE_CHECKING:
    import pyarrow

SHOWN = 5
"""Number of classes that are shown at either end."""

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
    # Rounded, so that equal losses stand in the order of the classes and not of their rounding errors.
    order = np.argsort(-np.round(losses, 9), kind="stable")
    ranked = order[counts[order] >= LEAST_IMAGES].tolist()
    if len(ranked) < 2:
        return
    ends = {"all": ranked}
    if len(ranked) > 2 * SHOWN:
        ends = {"most": ranked[:SHOWN], "least": ranked[: -SHOWN - 1 : -1]}
    for end, chosen in ends.items():
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
