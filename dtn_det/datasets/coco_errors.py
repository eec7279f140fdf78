"""What is wrong with a COCO file, with the name of the object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtn_det.datasets.remarks import Remark


class AnnotationError(ValueError):
    """A COCO file that cannot be evaluated; the message names the file, the object and what to do.

    Attributes:
        path: The file.
        place: The object, such as ``'annotation 17 of image 3'``; empty where it is the file as a whole.
    """

    def __init__(self, path: Path, expected: str, got: str, place: str = "", advice: str = "mend the file") -> None:
        self.path, self.place = path, place
        where = f" in {place}" if place else ""
        super().__init__(f"expected {expected} in {path}, got {got}{where}: {advice}")


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


def counted_remark(path: Path, kind: str, what: str, examples: Sequence[str]) -> Remark:
    """A remark on some objects of a file."""
    return Remark(kind, what, str(path), len(examples), tuple(map(str, examples[:3])))
