"""The ground truth of a detection store: COCO annotations, kept in the store with the images that they belong to.

Detections can therefore be evaluated from the store alone, with exactly the annotations of the run.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dtn_det._optional import require
from dtn_det.datasets.coco import CocoFile, check_objects, read_coco_file
from dtn_det.datasets.coco.reading import LVIS_LISTS
from dtn_det.datasets.coco.values import Id, evaluation_ids, identifier
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import AnnotationError, InputError
from dtn_det.metrics.coco_matches import InPairs
from dtn_det.metrics.coco_objects import CocoObjects, Federated, Runs, run_lengths
from dtn_det.robustness.store.manifest import hash_lines

if TYPE_CHECKING:
    import pyarrow

    from dtn_det.robustness.store import Store

RULE = "evaluation"
"""Name in a store's protocol of the rule by which detections are evaluated; absent for COCO's rule."""

LVIS = "LVIS"
"""The value of :data:`RULE` for LVIS's rule."""

# Fields of an annotation that COCO's evaluation reads.
_FIELDS = ("bbox", "area", "category_id", "iscrowd", "segmentation")


@dataclass(frozen=True)
class CocoImage:
    """One image of a COCO set.

    Attributes:
        id: Id of the image in the evaluation: the id in the annotation file if all image ids there are integers from 0
            to 2**31 - 1. Otherwise, the rank of that id, counted from 1.
        file: Path of the image below the image folder.
        key: Id of the image in the annotation file, as text.
        federated: For LVIS's rule, JSON of two lists of ids: the categories that are not in the image, and those of
            which not all objects are annotated. Empty for COCO's rule.
    """

    id: int
    file: str
    height: int
    width: int
    annotations: str
    key: str
    federated: str = ""


@dataclass(frozen=True)
class CocoTruth:
    """Images and the objects to be found in them.

    Attributes:
        images: The images, in the order of their numbers in the store.
        categories: Id and name of each category, in the order of the model's labels.
        frequencies: For LVIS's rule, the frequency of each category (`r`, `c`, `f`, or empty); empty for COCO's rule.
    """

    images: tuple[CocoImage, ...]
    categories: tuple[tuple[int, str], ...]
    frequencies: tuple[str, ...] = ()

    def select(self, numbers: Sequence[int]) -> CocoTruth:
        """Return the ground truth of the images with these numbers."""
        return replace(self, images=tuple(self.images[number] for number in numbers))

    @cached_property
    def _objects(self) -> Counter[str]:
        """Count all objects, the objects without a segmentation, and the crowds."""
        found: Counter[str] = Counter()
        for image in self.images:
            objects = json.loads(image.annotations)
            found["all"] += len(objects)
            found["without masks"] += sum(not one.get("segmentation") for one in objects)
            found["crowds"] += sum(bool(one.get("iscrowd")) for one in objects)
        return found

    @property
    def num_without_masks(self) -> int:
        """Number of objects without a segmentation, in all images."""
        return self._objects["without masks"]

    @property
    def has_masks(self) -> bool:
        """Return whether every object has a segmentation, so that masks can be evaluated."""
        return not self.num_without_masks

    def check_objects(self, path: str | Path) -> None:
        """Check that there are objects to be found.

        Raises:
            AnnotationError: There are no objects, or only crowds.
        """
        check_objects(Path(path), self._objects["all"], self._objects["crowds"], len(self.images))

    def check_masks(self, path: str | Path) -> None:
        """Check that either all objects have a segmentation or none has.

        Raises:
            ValueError: Only some objects have a segmentation.
        """
        objects, without = self._objects["all"], self.num_without_masks
        if 0 < without < objects:
            raise InputError(
                f"expected a segmentation of each object in {path}, got {without} of {objects} without: add them, or "
                "take all of them away to evaluate boxes alone"
            )

    @property
    def protocol(self) -> dict[str, str]:
        """What the numbers depend on besides images and objects, for a store's manifest."""
        if not self.frequencies:
            return {"categories": json.dumps(self.categories)}
        return {
            "categories": json.dumps(self.categories),
            RULE: LVIS,
            "frequencies": json.dumps(self.frequencies),
        }

    def hash(self, file_sizes: Sequence[int]) -> str:
        """Hash the data: ids, files with their sizes in bytes, sizes of the images in pixels, and annotations."""
        return hash_lines(
            f"{image.key} {image.file} {size} {image.height} {image.width} {image.annotations}{image.federated}"
            for image, size in zip(self.images, file_sizes, strict=True)
        )

    def images_hash(self, file_sizes: Sequence[int]) -> str:
        """Hash what detections depend on: ids, files with their sizes in bytes, and sizes of the images in pixels.

        The hash covers whether objects have masks, because a store keeps a model's masks only if all objects have
        masks.
        """
        masks = "masks" if self.has_masks else "boxes"
        return hash_lines(
            (
                masks,
                *(
                    f"{image.key} {image.file} {size} {image.height} {image.width}"
                    for image, size in zip(self.images, file_sizes, strict=True)
                ),
            )
        )

    def table(self) -> pyarrow.Table:
        """Return the images and their annotations as the table that a store keeps."""
        names = ["key", "id", "file", "height", "width", "annotations", *(["federated"] if self.frequencies else [])]
        table: pyarrow.Table = require("pyarrow", "eval").Table.from_pydict(
            {name: [getattr(image, name) for image in self.images] for name in names}
        )
        return table

    @classmethod
    def of(cls, store: Store) -> CocoTruth:
        """Read the ground truth that a store keeps."""
        rows = store.images().to_pylist()
        images = tuple(CocoImage(**row) for row in rows)
        categories = json.loads(store.manifest.protocol["categories"])
        frequencies = json.loads(store.manifest.protocol.get("frequencies", "[]"))
        return cls(images, tuple((number, name) for number, name in categories), tuple(frequencies))

    def objects(self, bad: Collection[int] = (), *, masks: bool = False) -> CocoObjects:
        """Return the objects as arrays. Images and categories are in the order of their ids, as in COCO's evaluation.

        Args:
            bad: Numbers of images to leave out.
            masks: Whether to convert the segmentations, which takes long. If an object has none, there are no masks.
        """
        kept = sorted((image for number, image in enumerate(self.images) if number not in bad), key=lambda one: one.id)
        places = {category: place for place, category in enumerate(sorted(number for number, _ in self.categories))}
        image, category, area, boxes, crowd = [], [], [], [], []
        runs: list[Runs | None] = []
        for place, one in enumerate(kept):
            for row in json.loads(one.annotations):
                image.append(place)
                category.append(places[row["category_id"]])
                area.append(row["area"])
                boxes.append(row["bbox"])
                crowd.append(bool(row.get("iscrowd", 0)))
                if masks:
                    shape = row.get("segmentation")
                    runs.append(run_lengths(shape, one.height, one.width) if shape else None)
        order = np.argsort(category, kind="stable")
        in_order = [runs[row] for row in order.tolist()] if masks else []
        with_masks = [one for one in in_order if one is not None]
        return CocoObjects(
            tuple(one.id for one in kept),
            len(places),
            InPairs(
                np.array(category, np.int64)[order], np.array(image, np.int64)[order], np.array(area, np.float64)[order]
            ),
            np.array(boxes, np.float64).reshape(-1, 4)[order],
            np.array(crowd, np.bool_)[order],
            with_masks if masks and len(with_masks) == len(order) else None,
            self._federated(kept, places) if self.frequencies else None,
        )

    def _federated(self, images: Sequence[CocoImage], places: Mapping[int, int]) -> Federated:
        pairs: tuple[list[int], list[int]] = ([], [])
        for image, one in enumerate(images):
            for own, categories in zip(pairs, json.loads(one.federated or "[[], []]"), strict=True):
                own += [places[category] * len(images) + image for category in categories]
        by_place = {
            places[number]: frequency for (number, _), frequency in zip(self.categories, self.frequencies, strict=True)
        }
        negative, not_exhaustive = (np.array(own, np.int64) for own in pairs)
        return Federated(negative, not_exhaustive, tuple(by_place[place] for place in range(len(places))))


def read_truth(path: Path, images: Sequence[Id], category_ids: Sequence[Id]) -> CocoTruth:
    """Read the ground truth of some images from a COCO annotation file: see :func:`truth_of`.

    Raises:
        AnnotationError: The file is damaged, or lacks something that is asked for.
    """
    return truth_of(read_coco_file(path), images, category_ids)


def truth_of(
    file: CocoFile, images: Sequence[object], category_ids: Sequence[object], *, federated: bool = False
) -> CocoTruth:
    """Return the ground truth of some images.

    Args:
        images: Ids of the images in the file, in the order wanted.
        category_ids: Ids of the categories, in the order of the model's labels. Objects of other categories are left
            out.
        federated: Whether to evaluate by LVIS's rule, for which the file must have LVIS's lists of categories.

    Raises:
        AnnotationError: An image or category is not in the file, or an image has no size in the file.
    """
    file.check_sizes()
    rows = {row["id"]: row for row in file.images}
    names = {row["id"]: row["name"] for row in file.categories}
    wanted = [_known(file, one, rows, "image") for one in images]
    categories = [_known(file, one, names, "category") for one in category_ids]
    image_ids, numbers = evaluation_ids(list(rows)), evaluation_ids(list(names))
    chosen = set(categories)
    objects: dict[Id, list[dict[str, Any]]] = defaultdict(list)
    for annotation in file.annotations:
        category = annotation["category_id"]
        if category in chosen:
            kept = {key: annotation[key] for key in _FIELDS if annotation.get(key) is not None}
            objects[annotation["image_id"]].append({**kept, "category_id": numbers[category]})
    found = []
    for one in wanted:
        row = rows[one]
        text = json.dumps(objects[one])
        lists = [[numbers[key] for key in map(identifier, row.get(name, ())) if key in chosen] for name in LVIS_LISTS]
        found.append(
            CocoImage(
                image_ids[one],
                row["file_name"],
                row["height"],
                row["width"],
                text,
                str(one),
                json.dumps(lists) if federated else "",
            )
        )
    named = {row["id"]: str(row.get("frequency", "")) for row in file.categories}
    return CocoTruth(
        tuple(found),
        tuple((numbers[one], str(names[one])) for one in categories),
        tuple(named[one] for one in categories) if federated else (),
    )


def rule_remarks(file: CocoFile) -> tuple[Remark, ...]:
    """Return the remarks on a file, which say that LVIS's rule evaluates it if it has LVIS's lists of categories."""
    if not file.is_federated:
        return file.remarks
    lists = sum(row.keys() >= set(LVIS_LISTS) for row in file.images)
    what = agreeing(
        lists,
        "{image has|images have} LVIS's lists of categories, so LVIS's rule evaluates the detections: the 300 best of "
        "an image, without those of categories that were not annotated there",
    )
    others = (remark for remark in file.remarks if remark.kind != "federated")
    return (Remark("lvis", what, str(file.path), lists), *others)


def _known(file: CocoFile, value: object, rows: Mapping[Id, object], what: str) -> Id:
    found = identifier(value)
    if found is None or found not in rows:
        raise AnnotationError(file.path, f"the {what} {value!r}", "none of this id", "", "name another file")
    return found
