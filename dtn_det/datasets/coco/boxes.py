"""What the boxes, masks, areas and image sizes of a COCO file say about each other.

Evaluation takes each as it is written. Where they contradict each other, numbers of one kind are low or sorted into the
wrong sizes without an error, so that this is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dtn_det.datasets.coco.errors import place_of
from dtn_det.datasets.coco.masks import mask_extent, outlined_area

Row = Mapping[str, Any]
Finding = tuple[str, str, list[str]]
"""The kind of a remark, its sentence with both forms of words that depend on the count, and the counted objects."""

# Pixels by which boxes may leave their image, and the share of boxes beyond at which that is no accident.
_ROUNDING, _MANY_BEYOND = 2, 0.1
# Of larger files this many objects are compared with their masks and areas, so that reading stays fast.
_LOOKED_AT = 2000
_LEAST_OVERLAP = 0.1
_LARGEST_SHARE, _LEAST_SHARE = 1.02, 0.01


def contradictions(annotations: Sequence[Row], images: Mapping[Any, Row]) -> Iterator[Finding]:
    """What is to be told about the boxes and areas of a file.

    Args:
        annotations: Objects with ``bbox``, ``area``, ``iscrowd`` and, where there is one, a sound ``segmentation``.
        images: By id, with ``height`` and ``width`` where these are known.

    Yields:
        Findings, each with at least one object.
    """
    other = [*_boxes_of_another_kind(annotations, images)]
    yield from other
    kinds = {kind for kind, _, _ in other}
    if "boxes_of_fractions" in kinds:
        return
    step = -(-len(annotations) // _LOOKED_AT) or 1
    rows = [row for row in annotations[::step] if not row["iscrowd"] and min(row["bbox"][2:]) > 0]
    part = f" ({len(annotations[::step]):,} of {len(annotations):,} objects were looked at)" if step > 1 else ""
    beside = [place_of(row) for row in rows if _is_beside_mask(row, images[row["image_id"]])]
    if beside:
        what = (
            "{box hardly overlaps the mask of its|boxes hardly overlap the mask of their} object, as boxes whose y is "
            "counted from the bottom of the image do; boxes and masks are evaluated as they are written"
        )
        yield "boxes_beside_masks", what + part, beside
    wrong = [] if "boxes_beyond_image" in kinds else [place_of(row) for row in rows if not _area_fits(row)]
    if wrong:
        what = (
            "{area is not that of its object, for it is|areas are not those of their objects, for they are} larger "
            "than the box or below 1 % of it; AP of small, medium and large objects goes by `area`, as in pycocotools"
        )
        yield "areas_beside_boxes", what + part, wrong


def _boxes_of_another_kind(annotations: Sequence[Row], images: Mapping[Any, Row]) -> Iterator[Finding]:
    """Boxes that look like fractions of the image, or like corners."""
    beyond, inside, with_extent = [], [], 0
    for row in annotations:
        image = images[row["image_id"]]
        if "height" not in image or "width" not in image:
            return
        x, y, width, height = row["bbox"]
        if x + width > image["width"] + _ROUNDING or y + height > image["height"] + _ROUNDING:
            beyond.append(place_of(row))
        if width > 0 and height > 0:
            with_extent += 1
            if width <= 1 and height <= 1 and x <= 1 and y <= 1:
                inside.append(place_of(row))
    if inside and len(inside) == with_extent:
        what = "{box lies|boxes lie} in the first pixel, as fractions of the image do; pixels are expected"
        yield "boxes_of_fractions", what, inside
    if len(beyond) > _MANY_BEYOND * len(annotations):
        what = (
            "{box reaches beyond its|boxes reach beyond their} image, as corners (x1, y1, x2, y2) read as (x, y, "
            "width, height) do; the latter are expected"
        )
        yield "boxes_beyond_image", what, beyond


def _is_beside_mask(row: Row, image: Row) -> bool:
    """Whether the box and the extent of the mask hardly overlap; both with half a pixel more on each side."""
    mask = row.get("segmentation")
    # Masks of another size than their image are told by themselves.
    if not mask or (isinstance(mask, dict) and mask["size"] != [image.get("height"), image.get("width")]):
        return False
    extent = mask_extent(mask)
    if extent is None:
        return False
    x, y, width, height = map(float, row["bbox"])
    left, top, across, down = extent
    common_width = min(x + width, left + across) - max(x, left) + 1
    common_height = min(y + height, top + down) - max(y, top) + 1
    if common_width <= 0 or common_height <= 0:
        return True
    common = common_width * common_height
    return common < _LEAST_OVERLAP * ((width + 1) * (height + 1) + (across + 1) * (down + 1) - common)


def _area_fits(row: Row) -> bool:
    """Whether an area can be that of the object: of its box or of a part of it, or else of its mask."""
    area = float(row["area"])
    _, _, width, height = map(float, row["bbox"])
    # Some tools count the last pixel of a box in the area but not in its sides.
    largest = max(_LARGEST_SHARE * width * height, (width + 1) * (height + 1))
    if _LEAST_SHARE * width * height <= area <= largest:
        return True
    mask = row.get("segmentation")
    if not mask:
        return False
    # The pixels of a thin mask differ from the area within its outline by up to about its length.
    outlined = outlined_area(mask)
    return area >= 0 and abs(area - outlined) <= max(outlined / 2, width + height + 1)
