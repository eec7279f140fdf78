"""The one reader of COCO annotation files.

It accepts what pycocotools 2.0.11 evaluates, refuses everything else with an error that names the object, and reports
what it filled in or left out. All commands use this reader, so they agree on each file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dtn_det.datasets.coco.categories import WantedClasses, trained_objects
from dtn_det.datasets.coco.names import find_names
from dtn_det.datasets.coco.orientation import read_header
from dtn_det.datasets.coco.reading import LVIS_LISTS, CocoReader, Row
from dtn_det.datasets.coco.shapes import MaskFault
from dtn_det.datasets.remarks import Remark, agreeing, counted_remark
from dtn_det.errors import AnnotationError


@dataclass(frozen=True)
class CocoFile:
    """The content of a COCO annotation file.

    Each row also contains its other keys in the file. Ids are as in the file: integers of any size, texts, or
    fractions; see :func:`dtn_det.datasets.coco.values.evaluation_ids`.

    Attributes:
        images: One row for each id, with ``id``, ``file_name`` with slashes, and ``height`` and ``width`` as integers;
            a height or width that is not positive in the file is missing.
        annotations: The annotations of objects in these images whose categories are wanted. Each has ``id``,
            ``image_id``, ``category_id``, ``bbox`` of four finite numbers (x, y, width, height), ``area`` and
            ``iscrowd`` (0 or 1). A ``segmentation`` is contained only if it can be evaluated.
        categories: One row for each id, with ``id`` and ``name``; also for categories that are not wanted.
        left_out: The annotations of objects in these images whose categories are not wanted.
        remarks: What was left out, filled in or decided.
        mask_faults: The faults of segmentations that cannot be evaluated. The objects with these faults are kept
            without a mask.
        changed: True if other readers would read another content from the file, or fail on it.
        rest: Other keys of the file, such as ``info``, and annotations that are not objects, such as captions.
    """

    path: Path
    images: tuple[Row, ...]
    annotations: tuple[Row, ...]
    categories: tuple[Row, ...]
    left_out: tuple[Row, ...] = ()
    remarks: tuple[Remark, ...] = ()
    mask_faults: tuple[MaskFault, ...] = ()
    changed: bool = False
    rest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_federated(self) -> bool:
        """Whether images have LVIS's lists of categories, so that LVIS's rule can evaluate them."""
        return any(row.keys() >= set(LVIS_LISTS) for row in self.images)

    def content(self) -> dict[str, Any]:
        """Return the content for a JSON file that every reader of COCO files can read."""
        objects = (*self.annotations, *self.left_out)
        rows = {"images": self.images, "annotations": objects, "categories": self.categories}
        return {**{key: list(value) for key, value in rows.items()}, **self.rest}

    def check_objects(self) -> None:
        """Check that there are objects that a detector can find.

        Raises:
            AnnotationError: There are no objects, or all of them are crowds.
        """
        crowds = sum(row["iscrowd"] for row in self.annotations)
        check_objects(self.path, len(self.annotations), crowds, len(self.images), len(self.left_out))

    def check_training(self, smallest_side: int = 0) -> None:
        """Check that there are objects that MMDetection trains on.

        Args:
            smallest_side: Smallest width and height in pixels; smaller images are left out, as by
                ``filter_cfg.min_size``.

        Raises:
            AnnotationError: MMDetection would drop every object and train on empty images, without reporting an error.
        """
        large = {row["id"]: row for row in self.images if _shorter_side(row) >= smallest_side}
        if trained_objects(self.annotations, large):
            return
        inside = [row for row in self.annotations if row["image_id"] in large]
        reasons = [
            (len(self.annotations) - len(inside), f"in an image with a side below filter_cfg.min_size={smallest_side}"),
            (sum(row["area"] <= 0 for row in inside), "with an area of 0 or less"),
            (sum(min(row["bbox"][2:]) < 1 for row in inside), "with a side of less than 1 pixel"),
            (sum(bool(row["iscrowd"] or row.get("ignore")) for row in inside), "with iscrowd or ignore set"),
        ]
        counts = ", ".join(f"{count:,} {reason}" for count, reason in reasons if count) or "all outside their images"
        advice = ["lower filter_cfg.min_size if images are small"] * (len(inside) < len(self.annotations))
        advice += [
            "write the area of each mask or box (width * height) as `area` and its box in pixels as `bbox`"
        ] * bool(inside)
        raise AnnotationError(
            self.path,
            "objects that MMDetection trains on",
            f"{len(self.annotations):,} that it drops ({counts})",
            "",
            ", or ".join(advice),
        )

    def check_masks(self) -> None:
        """Check that every segmentation can be evaluated.

        Raises:
            AnnotationError: A segmentation cannot be evaluated.
        """
        if self.mask_faults:
            first, count = self.mask_faults[0], len(self.mask_faults)
            more = f" and {count - 1:,} more" if count > 1 else ""
            expected = "segmentations that COCO's evaluation takes"
            raise AnnotationError(self.path, expected, first.reason, first.place + more, first.advice)

    def check_sizes(self) -> None:
        """Check that every image has a height and a width.

        Raises:
            AnnotationError: An image has no height or width.
        """
        for image in self.images:
            if "height" not in image or "width" not in image:
                raise AnnotationError(
                    self.path,
                    "the width and height of each image",
                    "none, and no file to read them from",
                    f"image {image['id']} ({image['file_name']})",
                )

    def with_folder(self, folder: Path) -> CocoFile:
        r"""Return the file with names corrected and missing sizes filled in from the images themselves.

        Windows backslashes become slashes if a file with that name exists. Absolute paths of another machine are
        replaced by the paths of the images with the same file name (see
        :func:`dtn_det.datasets.coco.names.find_names`). Missing sizes are read from the images as MMDetection reads
        them, turned by their EXIF orientation.

        Args:
            folder: Folder that the file names are relative to.
        """
        names = find_names((image["file_name"] for image in self.images), folder)
        sized = []
        images = []
        for image in self.images:
            name = image["file_name"]
            found = names.slashes.get(name) or names.elsewhere.get(name)
            if found is not None:
                image = {**image, "file_name": found}
            if "height" not in image or "width" not in image:
                header = read_header(folder / image["file_name"])
                if header is not None:
                    sized.append(f"image {image['id']}")
                    height, width = header.read
                    image = {**image, "height": height, "width": width}
            images.append(image)
        remarks = []
        if names.slashes:
            what = "file {name with backslashes was|names with backslashes were} read with slashes"
            remarks.append(counted_remark(self.path, "backslashes", what, list(names.slashes)))
        if names.elsewhere:
            what = (
                "{file name of another machine was read as that of the one image with its last part|file names of "
                "another machine were read as those of the images with their last parts}"
            )
            examples = [f"{name} as {found}" for name, found in names.elsewhere.items()]
            remarks.append(counted_remark(self.path, "names_elsewhere", what, examples))
        if sized:
            what = (
                "{image without a height or width got those of its file|images without a height or width got those of "
                "their files}"
            )
            remarks.append(counted_remark(self.path, "sizes_filled", what, sized))
        if not remarks:
            return self
        return replace(self, images=tuple(images), remarks=(*self.remarks, *remarks), changed=True)


def read_coco_file(path: Path, images: Path | None = None, wanted: WantedClasses | None = None) -> CocoFile:
    """Read a COCO annotation file.

    Args:
        images: Folder that the file names are relative to, see :meth:`CocoFile.with_folder`; None if the folder is not
            known.
        wanted: Classes whose objects are wanted. A remark counts the objects of other categories; no other remark or
            fault concerns these objects. None for all classes.

    Raises:
        AnnotationError: The file is not a COCO file, or COCO's evaluation would fail on it.
        OSError: The file cannot be read.
    """
    found = CocoFile(**CocoReader(path, wanted).read())
    return found if images is None else found.with_folder(images)


def check_objects(path: Path, objects: int, crowds: int, images: int, left_out: int = 0) -> None:
    """Check that there are objects that a detector can find.

    Args:
        crowds: Number of objects with iscrowd 1.
        left_out: Number of objects of categories that are not wanted.

    Raises:
        AnnotationError: There are no objects, or all of them are crowds. COCO's evaluation ignores crowds, and training
            learns nothing from them.
    """
    if not objects:
        got = agreeing(images, f"none in {images:,} {{image|images}}")
        if left_out:
            got = f"{left_out:,} of categories that are not among the classes of the config, and no others"
        raise AnnotationError(path, "objects", got, "", "there is nothing to evaluate; name another file")
    if crowds == objects:
        got = agreeing(crowds, f"{{one crowd|{crowds:,} crowds}} (iscrowd 1) and nothing else")
        advice = "COCO's evaluation ignores crowds, so set iscrowd to 0 where they are single objects"
        raise AnnotationError(path, "objects", got, "", advice)


def _shorter_side(image: Row) -> float:
    """Return the length of an image's shorter side in pixels; infinity if no side is known."""
    return min(image.get("width", float("inf")), image.get("height", float("inf")))
