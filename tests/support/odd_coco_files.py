"""COCO files as people have them: what is odd about each, and how it is to be answered."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Content = dict[str, Any]

HEIGHT, WIDTH = 480, 640


def plain_content(images: int = 6) -> Content:
    """Six images, three categories, polygons, a crowd region as run lengths, an image without objects."""
    rng = np.random.default_rng(7)
    content: Content = {
        "images": [
            {"id": i + 1, "file_name": f"sub/{i + 1}.jpg", "height": HEIGHT, "width": WIDTH} for i in range(images)
        ],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in ((3, "disc"), (1, "square"), (7, "bar"))],
    }
    for image in range(2, images + 1):
        for _ in range(5):
            x, y = (round(float(v), 2) for v in rng.uniform(0, 300, 2))
            w, h = (round(float(v), 2) for v in rng.uniform(20, 150, 2))
            polygon = [x, y, x + w, y, x + w, y + h, x + w / 3, y + h]
            annotation = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": [polygon]}
            category = int(rng.choice([3, 1, 7]))
            number = len(content["annotations"]) + 1
            content["annotations"].append({"id": number, "image_id": image, "category_id": category, **annotation})
    counts = [4 * HEIGHT, 60 * HEIGHT, (WIDTH - 64) * HEIGHT]
    crowd = {"bbox": [4, 0, 60, HEIGHT], "area": 60 * HEIGHT, "iscrowd": 1}
    mask = {"size": [HEIGHT, WIDTH], "counts": counts}
    content["annotations"].append({"id": 99, "image_id": 2, "category_id": 3, **crowd, "segmentation": mask})
    return content


@dataclass(frozen=True)
class OddFile:
    """One oddity.

    Attributes:
        change: Makes a plain content odd.
        refusal: A part of the sentence with which every command refuses it; None where all take it.
        boxes_only: pycocotools evaluates its boxes, not its masks.
        like: Makes the plain content that it is to be evaluated as, where pycocotools itself counts wrongly or fails.
        remarks: Kinds of what is told.
    """

    change: Callable[[Content], None]
    refusal: str | None = None
    boxes_only: bool = False
    like: Callable[[Content], None] | None = None
    remarks: tuple[str, ...] = ()


def with_ids(image: Callable[[int], Any] | None = None, category: Callable[[int], Any] | None = None):
    def change(content: Content) -> None:
        for rows, key, new in (
            (content["images"], "id", image),
            (content["annotations"], "image_id", image),
            (content["categories"], "id", category),
            (content["annotations"], "category_id", category),
        ):
            for row in rows if new else ():
                row[key] = new(row[key])

    return change


def first(key: str, **values: Any):
    """Change the first row of a list; None in place of a value takes the key away."""

    def change(content: Content) -> None:
        content[key][0].update(values)

    return change


def without(key: str, *names: str):
    def change(content: Content) -> None:
        for row in content[key]:
            for name in names:
                row.pop(name, None)

    return change


def of_all(key: str, name: str, value: Callable[[Any], Any]):
    def change(content: Content) -> None:
        for row in content[key]:
            row[name] = value(row[name])

    return change


def runs_as(convert: Callable[[Any], Any], size: Callable[[Any], Any] = int):
    def change(content: Content) -> None:
        mask = content["annotations"][-1]["segmentation"]
        mask["counts"] = [convert(one) for one in mask["counts"]]
        mask["size"] = [size(one) for one in mask["size"]]

    return change


def crowd_mask(**values: Any):
    def change(content: Content) -> None:
        content["annotations"][-1]["segmentation"].update(values)

    return change


def both(*changes: Callable[[Content], None]):
    def change(content: Content) -> None:
        for one in changes:
            one(content)

    return change


def append(key: str, **values: Any):
    def change(content: Content) -> None:
        content[key].append({**copy.deepcopy(content[key][0]), **values})

    return change


def nothing(content: Content) -> None:
    """Leave a content as it is."""


def _same_image_again(content: Content) -> None:
    content["images"].append(dict(content["images"][2]))


def _compressed(content: Content) -> None:
    from pycocotools import mask

    one = content["annotations"][-1]
    runs = mask.frPyObjects(one["segmentation"], HEIGHT, WIDTH)
    one["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}


def _bytes_as_text(content: Content) -> None:
    _compressed(content)
    one = content["annotations"][-1]["segmentation"]
    one["counts"] = str(one["counts"].encode())


def _cut_runs(content: Content) -> None:
    _compressed(content)
    one = content["annotations"][-1]["segmentation"]
    one["counts"] = one["counts"][:-1]


def _numbers_as_text(content: Content) -> None:
    for row in content["annotations"]:
        row["bbox"] = [str(one) for one in row["bbox"]]
        if isinstance(row["segmentation"], list):
            row["segmentation"] = [[str(one) for one in part] for part in row["segmentation"]]


def _areas_of_masks(content: Content) -> None:
    from pycocotools import mask

    for row in content["annotations"]:
        runs = mask.frPyObjects(row["segmentation"], HEIGHT, WIDTH)
        row["area"] = float(mask.area(mask.merge(runs) if isinstance(runs, list) else runs))


def _areas_of_boxes(content: Content) -> None:
    for row in content["annotations"]:
        row["area"] = row["bbox"][2] * row["bbox"][3]


POINTS = [[10, 10], [60, 10], [60, 70]]

ODD_FILES: dict[str, OddFile] = {
    "plain": OddFile(nothing),
    "image ids as text": OddFile(with_ids(image=str)),
    "image ids as names": OddFile(with_ids(image=lambda one: f"img_{one}")),
    "category ids as text": OddFile(with_ids(category=str)),
    "all ids as text": OddFile(with_ids(str, str)),
    "ids from 0": OddFile(with_ids(lambda one: one - 1, lambda one: one - 1)),
    "negative ids": OddFile(with_ids(lambda one: -one, lambda one: one - 5)),
    "ids of 64 unsigned bits": OddFile(with_ids(lambda one: 2**63 + one)),
    "ids beyond 64 bits": OddFile(with_ids(lambda one: 2**70 + one), like=nothing),
    "whole ids with a point": OddFile(with_ids(float, float)),
    "fractions as ids": OddFile(with_ids(lambda one: one + 0.5)),
    "annotation ids as text": OddFile(of_all("annotations", "id", str)),
    "an annotation id of 0": OddFile(
        first("annotations", id=0), like=first("annotations", id=1000), remarks=("annotation_id_zero",)
    ),
    "an annotation id twice": OddFile(
        first("annotations", id=2), like=first("annotations", id=1000), remarks=("annotation_ids_twice",)
    ),
    "no iscrowd": OddFile(without("annotations", "iscrowd"), like=of_all("annotations", "iscrowd", lambda one: 0)),
    "iscrowd as bool": OddFile(of_all("annotations", "iscrowd", bool)),
    "iscrowd as 1.0": OddFile(of_all("annotations", "iscrowd", float)),
    "iscrowd of 2": OddFile(of_all("annotations", "iscrowd", lambda one: 2 * one)),
    "ignore flags": OddFile(first("annotations", ignore=1), remarks=("ignored_in_training",)),
    "no info and licences": OddFile(lambda content: content.update(info=None, licenses=[])),
    "no segmentation": OddFile(without("annotations", "segmentation"), boxes_only=True),
    "empty segmentations": OddFile(of_all("annotations", "segmentation", lambda one: []), boxes_only=True),
    "areas missing with masks": OddFile(
        without("annotations", "area"), like=_areas_of_masks, remarks=("areas_filled",)
    ),
    "areas of null without masks": OddFile(
        both(of_all("annotations", "area", lambda one: None), without("annotations", "segmentation")),
        like=both(_areas_of_boxes, without("annotations", "segmentation")),
        boxes_only=True,
        remarks=("areas_filled",),
    ),
    "run lengths with points": OddFile(runs_as(float, float)),
    "run lengths as fractions": OddFile(runs_as(lambda one: one + 0.25)),
    "run lengths as text": OddFile(runs_as(str)),
    "compressed run lengths": OddFile(_compressed),
    "boxes and polygons as text": OddFile(_numbers_as_text),
    "an odd number of coordinates": OddFile(
        first("annotations", segmentation=[[10, 10, 60, 10, 60, 70, 5]]),
        remarks=("boxes_beside_masks", "masks_unread_in_training"),
    ),
    "a second polygon of two points": OddFile(
        first("annotations", segmentation=[[10, 10, 60, 10, 60, 70], [1, 1, 5, 5]]), remarks=("boxes_beside_masks",)
    ),
    "a polygon outside the image": OddFile(
        first("annotations", segmentation=[[900, 900, 960, 900, 960, 970]]), remarks=("boxes_beside_masks",)
    ),
    "areas of 1": OddFile(of_all("annotations", "area", lambda one: 1.0), remarks=("areas_beside_boxes",)),
    "an area beyond the box": OddFile(first("annotations", area=1e6), remarks=("areas_beside_boxes",)),
    "a box without width": OddFile(
        first("annotations", bbox=[5, 5, 0, 9]), remarks=("boxes_without_extent", "dropped_in_training")
    ),
    "a negative area": OddFile(first("annotations", area=-4), remarks=("areas_beside_boxes", "dropped_in_training")),
    "a mask of another size": OddFile(
        crowd_mask(size=[240, 320], counts=[240 * 320 - 80, 80]), remarks=("masks_of_other_size",)
    ),
    "an image twice": OddFile(_same_image_again, remarks=("images_twice",)),
    "a category twice": OddFile(append("categories"), remarks=("categories_twice",)),
    "an image that is not listed": OddFile(
        append("annotations", id=1000, image_id=777), remarks=("annotations_without_image",)
    ),
    "a category that is not listed": OddFile(
        append("annotations", id=1000, category_id=777), remarks=("annotations_without_category",)
    ),
    "a name twice": OddFile(append("categories", id=11), remarks=("category_names_twice",)),
    "LVIS's lists": OddFile(
        lambda content: [row.update(neg_category_ids=[1]) for row in content["images"]], remarks=("federated",)
    ),
    "flat polygons": OddFile(
        first("annotations", segmentation=[10, 10, 60, 10, 60, 70]), "annotation 1 of image 2", boxes_only=True
    ),
    "polygons of points": OddFile(
        first("annotations", segmentation=[POINTS]), "annotation 1 of image 2", boxes_only=True
    ),
    "a polygon of four numbers": OddFile(
        first("annotations", segmentation=[[10, 10, 60, 10]]), "a first polygon of 4 coordinates", boxes_only=True
    ),
    "a coordinate of null": OddFile(
        first("annotations", segmentation=[[10, 10, 60, None, 60, 70]]), "a coordinate that is no number", True
    ),
    "a coordinate far away": OddFile(
        first("annotations", segmentation=[[10, 10, 1e12, 10, 60, 70]]), "beyond 1,000,000", True
    ),
    "run lengths cut off": OddFile(_cut_runs, "annotation 99 of image 2", boxes_only=True),
    "compressed run lengths as text of bytes": OddFile(
        _bytes_as_text, "annotation 99 of image 2: write counts.decode() instead of str(counts)", boxes_only=True
    ),
    "a list of run lengths as text": OddFile(
        crowd_mask(counts="[4, 8]"), "the text of a list of run lengths", boxes_only=True
    ),
    "polygons as text": OddFile(
        first("annotations", segmentation="[[10, 10, 60, 10, 60, 70]]"), "json.loads(segmentation)", boxes_only=True
    ),
    "run lengths that end early": OddFile(
        crowd_mask(counts=[4 * HEIGHT, 60 * HEIGHT]),
        "run lengths of 30,720 pixels in a mask of 307,200",
        boxes_only=True,
    ),
    "run lengths beyond the mask": OddFile(
        crowd_mask(counts=[4, 10**7]), "run lengths of 10,000,004 pixels in a mask of 307,200", boxes_only=True
    ),
    "iscrowd of null": OddFile(first("annotations", iscrowd=None), "iscrowd None in annotation 1 of image 2"),
    "a box of null": OddFile(first("annotations", bbox=None), "bbox None in annotation 1 of image 2"),
    "a box of three": OddFile(first("annotations", bbox=[1, 2, 3]), "bbox [1, 2, 3] in annotation 1 of image 2"),
    "a box of NaN": OddFile(first("annotations", bbox=[float("nan")] * 4), "in annotation 1 of image 2"),
    "an infinite area": OddFile(first("annotations", area=float("inf")), "area inf in annotation 1 of image 2"),
    "image ids of both kinds": OddFile(first("images", id="x"), "ids of images that are all numbers or all texts"),
    "an image id of null": OddFile(first("images", id=None), "an id of each image"),
    "an image without a name": OddFile(without("images", "file_name"), "got None in image 1"),
    "annotations that write ids otherwise": OddFile(
        of_all("annotations", "image_id", str), "got '2' for 2 in annotation 1 of image 2"
    ),
    "two images of one id": OddFile(append("images", file_name="sub/2.jpg"), "two that differ"),
    "two names of one id": OddFile(append("categories", name="ball"), "two that differ"),
    "two ids of one name with objects": OddFile(
        lambda content: [row.update(name="disc") for row in content["categories"]], "one category of each name"
    ),
    "no images": OddFile(lambda content: content["images"].clear(), "expected images in"),
    "a list": OddFile(lambda content: content.update(images="x"), "expected a list of objects `images`"),
}


def odd_content(name: str) -> Content:
    """The content of an odd file."""
    content = plain_content()
    ODD_FILES[name].change(content)
    return content


def expected_content(name: str) -> Content:
    """What pycocotools is to be asked for the right numbers."""
    odd = ODD_FILES[name]
    content = plain_content()
    (odd.like or odd.change)(content)
    return content


def text_of(content: Content) -> str:
    """As a file."""
    return json.dumps(content)
