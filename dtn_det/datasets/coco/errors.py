"""What is wrong with a COCO file, with the name of the object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import AnnotationError


@dataclass(frozen=True)
class MaskFault:
    """A segmentation that cannot be evaluated.

    Attributes:
        place: The object.
        reason: What it has in place of a mask.
    """

    place: str
    reason: str


def place_of(annotation: Mapping[str, Any]) -> str:
    """How messages name an annotation."""
    return f"annotation {annotation.get('id')} of image {annotation.get('image_id')}"


def check_objects(path: Path, objects: int, crowds: int, images: int) -> None:
    """See that there is something that can be found.

    Args:
        path: The file.
        objects: Number of all objects.
        crowds: Number of those with iscrowd 1.
        images: Number of images that they are in.

    Raises:
        AnnotationError: There are no objects, or crowds alone, which COCO's evaluation neither counts as found nor as
            missed, and training learns nothing from.
    """
    if not objects:
        got = agreeing(images, f"none in {images:,} {{image|images}}")
        raise AnnotationError(path, "objects", got, "", "there is nothing to evaluate; name another file")
    if crowds == objects:
        got = agreeing(crowds, f"{{one crowd|{crowds:,} crowds}} (iscrowd 1) and nothing else")
        advice = "COCO's evaluation ignores crowds, so set iscrowd to 0 where they are single objects"
        raise AnnotationError(path, "objects", got, "", advice)


def counted_remark(path: Path, kind: str, what: str, examples: Sequence[str]) -> Remark:
    """A remark on some objects of a file; ``what`` has both forms of words that depend on their number."""
    return Remark(kind, agreeing(len(examples), what), str(path), len(examples), tuple(map(str, examples[:3])))
