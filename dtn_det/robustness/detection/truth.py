"""The ground truth of a detection store: COCO annotations, kept with the images that they belong to.

With it in the store, results are evaluated from the store alone, on exactly what the run was made with.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.datasets.coco.file import CocoFile, check_objects, read_coco_file
from dtn_det.datasets.coco.values import Id, evaluation_ids, identifier
from dtn_det.errors import AnnotationError, InputError
from dtn_det.robustness.store.manifest import hash_lines

if TYPE_CHECKING:
    import pyarrow

    from dtn_det.robustness.store.store import Store

# What COCO's evaluation reads of an annotation.
_FIELDS = ("bbox", "area", "category_id", "iscrowd", "segmentation")


@dataclass(frozen=True)
class CocoImage:
    """One image of a COCO set.

    Attributes:
        id: Its number in the evaluation: its id in the annotation file where that is an integer of 64 bits.
        file: Its path below the image folder.
        height: Height in pixels, as annotated.
        width: Width in pixels, as annotated.
        annotations: Its objects as JSON.
        key: Its id in the annotation file as text.
    """

    id: int
    file: str
    height: int
    width: int
    annotations: str
    key: str


@dataclass(frozen=True)
class CocoTruth:
    """Images and what is to be found in them.

    Attributes:
        images: In the order of their numbers.
        categories: Id and name of each category, in the order of the model's labels.
    """

    images: tuple[CocoImage, ...]
    categories: tuple[tuple[int, str], ...]

    def select(self, numbers: Sequence[int]) -> CocoTruth:
        """The same with some of the images."""
        return CocoTruth(tuple(self.images[number] for number in numbers), self.categories)

    @cached_property
    def _objects(self) -> Counter[str]:
        """Objects in all images, those without a segmentation, and crowds."""
        found: Counter[str] = Counter()
        for image in self.images:
            objects = json.loads(image.annotations)
            found["all"] += len(objects)
            found["without masks"] += sum(not one.get("segmentation") for one in objects)
            found["crowds"] += sum(bool(one.get("iscrowd")) for one in objects)
        return found

    @property
    def num_objects(self) -> int:
        """Objects in all images."""
        return self._objects["all"]

    @property
    def num_crowds(self) -> int:
        """Objects in all images that are crowds, in which detections are passed over."""
        return self._objects["crowds"]

    @property
    def num_without_masks(self) -> int:
        """Objects in all images that have no segmentation."""
        return self._objects["without masks"]

    @property
    def has_masks(self) -> bool:
        """Return whether every object has a segmentation, so that masks can be evaluated."""
        return not self.num_without_masks

    def check_objects(self, path: str | Path) -> None:
        """See that there are objects to be found.

        Args:
            path: The annotation file, for the message.

        Raises:
            AnnotationError: There are none, or crowds alone.
        """
        check_objects(Path(path), self.num_objects, self.num_crowds, len(self.images))

    def check_masks(self, path: str | Path) -> None:
        """See that all objects have a segmentation, or none has.

        Args:
            path: The annotation file, for the message.

        Raises:
            ValueError: Some have.
        """
        objects, without = self.num_objects, self.num_without_masks
        if 0 < without < objects:
            raise InputError(
                f"expected a segmentation of each object in {path}, got {without} of {objects} without: add them, or "
                "take all of them away to evaluate boxes alone"
            )

    @property
    def categories_json(self) -> str:
        """The categories as a store's manifest holds them."""
        return json.dumps(self.categories)

    def hash(self, file_sizes: Sequence[int]) -> str:
        """Identity of the data: ids, files with their sizes in bytes, and annotations."""
        return hash_lines(
            f"{image.key} {image.file} {size} {image.height} {image.width} {image.annotations}"
            for image, size in zip(self.images, file_sizes, strict=True)
        )

    def images_hash(self, file_sizes: Sequence[int]) -> str:
        """Identity of what detections depend on: ids, files with their sizes in bytes, and sides of the images.

        Whether there are masks belongs to it, for without any a model's masks are not kept.
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
        """The images as a store keeps them."""
        table: pyarrow.Table = require("pyarrow", "eval").Table.from_pydict(
            {
                "key": [image.key for image in self.images],
                "id": [image.id for image in self.images],
                "file": [image.file for image in self.images],
                "height": [image.height for image in self.images],
                "width": [image.width for image in self.images],
                "annotations": [image.annotations for image in self.images],
            }
        )
        return table

    @classmethod
    def of(cls, store: Store) -> CocoTruth:
        """The ground truth that a store keeps."""
        rows = store.images().to_pylist()
        images = tuple(CocoImage(**row) for row in rows)
        categories = json.loads(store.manifest.protocol["categories"])
        return cls(images, tuple((number, name) for number, name in categories))

    def coco(self) -> Any:
        """The `COCO` object of faster-coco-eval."""
        images = [
            {"id": one.id, "file_name": one.file, "height": one.height, "width": one.width} for one in self.images
        ]
        annotations: list[dict[str, Any]] = []
        for image in self.images:
            for annotation in json.loads(image.annotations):
                # Ids of our own, from 1: COCO's evaluation takes an object of id 0 for one that was not found.
                annotations.append({**annotation, "image_id": image.id, "id": len(annotations) + 1})
        categories = [{"id": number, "name": name} for number, name in self.categories]
        return require("faster_coco_eval", "det").COCO(
            {"images": images, "annotations": annotations, "categories": categories}
        )


def read_truth(path: Path, images: Sequence[Id], category_ids: Sequence[Id]) -> CocoTruth:
    """Read a COCO annotation file: see :func:`truth_of`.

    Raises:
        AnnotationError: COCO's evaluation could not take it.
    """
    return truth_of(read_coco_file(path), images, category_ids)


def truth_of(file: CocoFile, images: Sequence[object], category_ids: Sequence[object]) -> CocoTruth:
    """The ground truth of some images.

    Args:
        file: The annotations.
        images: Ids of the images in the file, in the order wanted.
        category_ids: Ids of the categories, in the order of the model's labels. Objects of others are left out.

    Raises:
        AnnotationError: An image or category is not in the file, or an image has no size there.
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
        found.append(CocoImage(image_ids[one], row["file_name"], row["height"], row["width"], text, str(one)))
    return CocoTruth(tuple(found), tuple((numbers[one], str(names[one])) for one in categories))


def _known(file: CocoFile, value: object, rows: Mapping[Id, object], what: str) -> Id:
    found = identifier(value)
    if found is None or found not in rows:
        raise AnnotationError(file.path, f"the {what} {value!r}", "none of this id", "", "name another file")
    return found
