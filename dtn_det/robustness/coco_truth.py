"""The ground truth of a detection store: COCO annotations, kept with the images that they belong to.

With it in the store, results are evaluated from the store alone, on exactly what the run was made with.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtn_det._optional import require
from dtn_det.robustness.manifest import hash_lines

if TYPE_CHECKING:
    import pyarrow

    from dtn_det.robustness.store import Store

# What COCO's evaluation reads of an annotation.
_FIELDS = ("bbox", "area", "category_id", "iscrowd", "segmentation")


@dataclass(frozen=True)
class CocoImage:
    """One image of a COCO set.

    Attributes:
        id: Its number in the annotation file.
        file: Its path below the image folder.
        height: As annotated.
        width: As annotated.
        annotations: Its objects as JSON.
    """

    id: int
    file: str
    height: int
    width: int
    annotations: str


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

    @property
    def num_objects(self) -> int:
        """Objects in all images."""
        return sum(len(json.loads(image.annotations)) for image in self.images)

    @property
    def num_without_masks(self) -> int:
        """Objects in all images that have no segmentation."""
        return sum(not one.get("segmentation") for image in self.images for one in json.loads(image.annotations))

    @property
    def categories_json(self) -> str:
        """The categories as a store's manifest holds them."""
        return json.dumps(self.categories)

    def hash(self, file_sizes: Sequence[int]) -> str:
        """Identity of the data: ids, files with their sizes in bytes, and annotations."""
        return hash_lines(
            f"{image.id} {image.file} {size} {image.height} {image.width} {image.annotations}"
            for image, size in zip(self.images, file_sizes, strict=True)
        )

    def table(self) -> pyarrow.Table:
        """The images as a store keeps them."""
        table: pyarrow.Table = require("pyarrow", "eval").Table.from_pydict(
            {
                "key": [str(image.id) for image in self.images],
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
        images = tuple(CocoImage(**{key: value for key, value in row.items() if key != "key"}) for row in rows)
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


def read_truth(path: Path, images: Sequence[int], category_ids: Sequence[int]) -> CocoTruth:
    """Read a COCO annotation file.

    Args:
        path: The file.
        images: Ids of the images, in the order wanted.
        category_ids: Ids of the categories, in the order of the model's labels. Objects of others are left out.

    Raises:
        ValueError: It is not JSON in COCO's format, or has sizes and boxes that are none.
    """
    truth = _parsed(path, images, category_ids)
    for image in truth.images:
        if min(image.height, image.width) < 1:
            raise ValueError(
                f"expected the width and height of each image in {path}, got {image.width} x {image.height} of "
                f"{image.file}: mend the annotations"
            )
        for one in json.loads(image.annotations):
            numbers = (*one["bbox"], one["area"])
            if len(numbers) != 5 or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
                raise ValueError(
                    f"expected a box of four numbers and an area of each object in {path}, got {one['bbox']} and "
                    f"{one['area']} in {image.file}: mend the annotations"
                )
    return truth


def _parsed(path: Path, images: Sequence[int], category_ids: Sequence[int]) -> CocoTruth:
    try:
        content = json.loads(path.read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        wanted = set(category_ids)
        objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            if annotation["category_id"] in wanted:
                values = {"iscrowd": 0, **annotation}
                kept = {key: values[key] for key in _FIELDS if key in values}
                objects[annotation["image_id"]].append({**kept, "bbox": values["bbox"], "area": values["area"]})
        rows = {row["id"]: row for row in content["images"]}
        if len(rows) < len(content["images"]):
            raise ValueError("images with the id of another")
        found = tuple(
            CocoImage(
                int(number),
                str(rows[number]["file_name"]),
                int(rows[number]["height"]),
                int(rows[number]["width"]),
                json.dumps(objects[number]),
            )
            for number in images
        )
        return CocoTruth(found, tuple((int(number), str(names[number])) for number in category_ids))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"expected COCO annotations with integer ids in {path}, got {type(error).__name__}: {error}: "
            "check the file and its format"
        ) from error
