"""The categories of a COCO file that a detector is trained on and evaluated for, and the objects that it ignores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtn_det.datasets.coco.shapes import Finding, Row
from dtn_det.datasets.coco.values import Id, place_of
from dtn_det.datasets.remarks import Remark, agreeing

_SHOWN = 5


@dataclass(frozen=True)
class WantedClasses:
    """The classes that a data set of MMDetection takes from its annotation file.

    Attributes:
        names: Their names, in any order.
        listed: True if the config lists them as ``metainfo.classes``; False if they are built into the type of the data
            set, such as the 80 classes of CocoDataset.
    """

    names: tuple[str, ...]
    listed: bool

    def ids_in(self, categories: Mapping[Id, Row]) -> set[Id]:
        """Return the ids of the categories with these names; all ids if the file lacks some of the names.

        A file that lacks a class is read as a whole, because :func:`dtn_det.datasets.class_names.check_set` refuses it.
        """
        wanted = set(self.names)
        if not wanted <= {row["name"] for row in categories.values()}:
            return set(categories)
        return {key for key, row in categories.items() if row["name"] in wanted}

    def remark(self, path: Path, others: Sequence[Row], categories: Mapping[Id, Row]) -> Remark | None:
        """Return a remark on the objects of other categories; None if there are none.

        Args:
            path: The file.
            others: Objects of categories that are not wanted.
            categories: All categories by id.
        """
        if not others:
            return None
        counts = Counter(categories[row["category_id"]]["name"] for row in others).most_common()
        shown = ", ".join(f"{name} ({count:,})" for name, count in counts[:_SHOWN])
        more = f" and {len(counts) - _SHOWN:,} more" if len(counts) > _SHOWN else ""
        source = "metainfo.classes" if self.listed else "the classes that are built into the type of the data set"
        advice = "" if self.listed else "; list the categories that count as metainfo.classes of the data set"
        what = agreeing(
            len(others),
            f"{{object of a category|objects of categories}} beside {source} {{is|are}} neither trained on nor "
            f"evaluated: {shown}{more}{advice}",
        )
        return Remark("other_categories", what, str(path), len(others))


def is_dropped(row: Row, image: Row) -> bool:
    """Return whether MMDetection drops an object from training by its box or area, whatever ``filter_cfg`` says.

    Source: ``CocoDataset.parse_data_info`` in MMDetection's ``mmdet/datasets/coco.py``.

    Args:
        row: Object with ``bbox`` (x, y, width, height) in pixels and ``area`` in square pixels.
        image: Its image, with ``width`` and ``height`` in pixels if these are known.
    """
    x, y, width, height = row["bbox"]
    if row["area"] <= 0 or width < 1 or height < 1 or x + width <= 0 or y + height <= 0:
        return True
    return x >= image.get("width", float("inf")) or y >= image.get("height", float("inf"))


def trained_objects(annotations: Iterable[Row], images: Mapping[Any, Row]) -> list[Row]:
    """Return the objects that MMDetection trains on: all except crowds, objects with ``ignore``, and dropped objects.

    Args:
        annotations: Objects; those of images that are not in ``images`` are left out.
        images: Images by id.
    """
    return [
        row
        for row in annotations
        if row["image_id"] in images
        and not row["iscrowd"]
        and not row.get("ignore")
        and not is_dropped(row, images[row["image_id"]])
    ]


def is_read_by_mmdet(row: Row) -> bool:
    """Return whether MMDetection's LoadAnnotations reads the segmentation of an object."""
    mask = row.get("segmentation")
    return bool(mask) if not isinstance(mask, list) else any(len(one) >= 6 and len(one) % 2 == 0 for one in mask)


def ignored_objects(
    annotations: Sequence[Row], categories: Mapping[Id, Row], images: Mapping[Id, Row]
) -> Iterator[Finding]:
    """Find objects and categories that training or evaluation ignores.

    Args:
        annotations: Objects with ``bbox``, ``area``, ``category_id`` and ``iscrowd``.
        categories: Categories by id.
        images: Images by id.

    Yields:
        Findings, each with at least one object or category.
    """
    ignored = [place_of(row) for row in annotations if row.get("ignore") and not row["iscrowd"]]
    if ignored:
        what = (
            "{object|objects} with `ignore` set: MMDetection leaves {it|them} out of training, and COCO's evaluation "
            "counts {it|them} like any other"
        )
        yield "ignored_in_training", what, ignored
    dropped = [place_of(row) for row in annotations if not row["iscrowd"] and is_dropped(row, images[row["image_id"]])]
    if dropped:
        what = (
            "{object has|objects have} an area of 0 or less, a side of less than 1 pixel, or a place outside the "
            "image: MMDetection drops {it|them} from training, and COCO's evaluation counts {it|them} like any other"
        )
        if not trained_objects(annotations, images):
            what += "; no object is left to train on, so tools/train.py refuses the file"
        yield "dropped_in_training", what, dropped
    unread = [place_of(row) for row in annotations if row.get("segmentation") and not is_read_by_mmdet(row)]
    if unread:
        what = (
            "{object has|objects have} only polygons with an odd number of values or fewer than three points: "
            "MMDetection leaves {it|them} out of trainings with masks, and COCO's evaluation counts {it|them} like any "
            "other"
        )
        yield "masks_unread_in_training", what, unread
    alone = _crowds_alone(annotations)
    names = [row["name"] for key, row in categories.items() if key in alone]
    if names:
        what = (
            "{category has crowds alone (iscrowd 1), which COCO's evaluation ignores, so it counts|categories have "
            "crowds alone (iscrowd 1), which COCO's evaluation ignores, so they count} like one without objects; set "
            "iscrowd to 0 where they are single objects"
        )
        yield "crowds_alone", what, names


def _crowds_alone(annotations: Iterable[Row]) -> set[Any]:
    """Return the ids of the categories whose objects are all crowds."""
    crowds: set[Any] = set()
    others: set[Any] = set()
    for row in annotations:
        (crowds if row["iscrowd"] else others).add(row["category_id"])
    return crowds - others
