"""The boxes and masks of a COCO file: which of them pycocotools can evaluate, and whether they contradict each other.

Evaluation uses boxes, masks, areas and image sizes as they are written. If they contradict each other, evaluation
raises no error, but some results are too low or count for objects of the wrong size. Contradictions are therefore
reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dtn_det.datasets.coco.values import are_numbers, number, place_of, whole_number

_LARGEST_COORDINATE = 1e6
# COCO encodes a run length as characters of six bits each. Only the last character has its highest bit unset.
_RUNS = re.compile(r"(?:[P-o]{0,6}[0-O])+")
_BYTES = re.compile(r"b(['\"]).*\1", re.DOTALL)


@dataclass(frozen=True)
class MaskFault:
    """A segmentation that cannot be evaluated.

    Attributes:
        reason: What the object has instead of a mask, worded to follow "got" in a message.
        advice: What to do with the segmentation.
    """

    place: str
    reason: str
    advice: str


@dataclass(frozen=True)
class Mask:
    """A segmentation as it is evaluated.

    Attributes:
        value: Polygons, or run lengths with their size; None if there is no mask.
        fault: What pycocotools cannot evaluate; None if the mask is sound or absent.
        advice: What to do with a mask that has a fault.
    """

    value: Any = None
    fault: str | None = None
    advice: str = "mend the file"


def read_mask(value: object) -> Mask:
    """Read the ``segmentation`` of an annotation.

    Returns:
        The mask that pycocotools 2.0.11 evaluates. Numbers that are written as text become numbers, and run lengths are
        truncated to whole numbers, as in pycocotools.
    """
    if value is None or value in ([], {}, ""):
        return Mask()
    if isinstance(value, list):
        return _polygons(value)
    if isinstance(value, dict):
        return _runs(value)
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        return Mask(
            fault=f"the text of a segmentation in place of the segmentation ({value!r:.40})",
            advice="write what json.loads(segmentation) returns, or ast.literal_eval(segmentation) for Python's quotes",
        )
    return Mask(fault=f"a segmentation that is neither polygons nor run lengths ({value!r:.40})")


def _polygons(parts: list[Any]) -> Mask:
    if not all(isinstance(part, list) for part in parts):
        return Mask(
            fault="a flat list of coordinates in place of a list of polygons", advice="put it in one more pair of []"
        )
    if any(isinstance(one, list) for part in parts for one in part[:1]):
        return Mask(
            fault="a list of points in place of one of coordinates",
            advice="write a polygon as [x1, y1, x2, y2, ...]",
        )
    found = []
    for part in parts:
        numbers = part if are_numbers(part) else [number(one) for one in part]
        if None in numbers:
            return Mask(fault="a polygon with a coordinate that is no number")
        if numbers and max(max(numbers), -min(numbers)) > _LARGEST_COORDINATE:
            return Mask(fault=f"a polygon with a coordinate beyond {_LARGEST_COORDINATE:,.0f}")
        found.append(numbers)
    # pycocotools checks only the first polygon. It mistakes four numbers for a box, and then fails to read them.
    if len(found[0]) < 5:
        return Mask(fault=f"a first polygon of {len(found[0])} coordinates, which is less than three points")
    return Mask(parts if all(new is old for new, old in zip(found, parts, strict=True)) else found)


def _runs(value: dict[str, Any]) -> Mask:
    size, counts = value.get("size"), value.get("counts")
    sides = [whole_number(side) for side in size] if isinstance(size, list) and len(size) == 2 else [None]
    if any(side is None or side < 1 for side in sides):
        return Mask(fault=f"run lengths with the size {size!r:.40} in place of [height, width]")
    pixels = int(sides[0] or 0) * int(sides[1] or 0)
    if isinstance(counts, str):
        runs = _decoded(counts)
        if runs is None and _BYTES.fullmatch(counts):
            # Removing b'' from the text would not be enough, because str() has written each backslash twice.
            return Mask(
                fault=f"compressed run lengths as the text that str() makes of Python bytes ({counts:.12}...)",
                advice="write counts.decode() instead of str(counts), or mend the file with "
                "ast.literal_eval(counts).decode()",
            )
        if runs is None and counts.lstrip().startswith("["):
            return Mask(
                fault="the text of a list of run lengths in place of the list",
                advice="write what json.loads(counts) returns",
            )
        if runs is None:
            return Mask(fault="compressed run lengths that are damaged or cut off")
        kept: Any = counts
    elif isinstance(counts, list):
        found = counts if are_numbers(counts) else [number(one) for one in counts]
        if None in found:
            return Mask(fault="run lengths that are no numbers")
        runs = [int(one) for one in found if one is not None]
        kept = counts if all(type(one) is int for one in counts) else runs
    else:
        return Mask(fault="run lengths without a list or text `counts`")
    total = sum(runs)
    # If the run lengths add up to fewer pixels, pycocotools never stops counting.
    if total != pixels or min(runs) < 0:
        return Mask(fault=f"run lengths of {total:,} pixels in a mask of {pixels:,}")
    same = kept is counts and sides == size and all(type(side) is int for side in size or ())
    return Mask(value if same else {"size": sides, "counts": kept})


def _decoded(text: str) -> list[int] | None:
    """Decode COCO's compressed run lengths (cocoapi, common/maskApi.c, rleFrString); None if they are damaged."""
    if not text:
        return []
    if not _RUNS.fullmatch(text):
        return None
    runs: list[int] = []
    value = shift = 0
    for byte in text.encode():
        code = byte - 48
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value |= -1 << shift
        # From the fourth run length on, each is written as its difference from the run length two places before.
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs


def mask_area(mask: Any, height: int | None, width: int | None) -> int | None:
    """Return the number of pixels in a sound mask. None without pycocotools, or for polygons without an image size."""
    try:
        from pycocotools import mask as masks
    except ImportError:
        return None
    if isinstance(mask, dict):
        runs = mask["counts"] if isinstance(mask["counts"], list) else _decoded(mask["counts"]) or []
        return sum(runs[1::2])
    if not height or not width:
        return None
    return int(masks.area(masks.merge(masks.frPyObjects(mask, height, width))))


def mask_extent(mask: Any) -> tuple[float, float, float, float] | None:
    """Return x, y, width and height of a sound mask in pixels.

    The result is None for run lengths without any pixel, or if pycocotools, which reads run lengths, is missing. For
    polygons it is never None.
    """
    if isinstance(mask, list):
        corners = [_coordinates(part) for part in mask]
        across = [x for xs, _ in corners for x in xs]
        down = [y for _, ys in corners for y in ys]
        return min(across), min(down), max(across) - min(across), max(down) - min(down)
    try:
        from pycocotools import mask as masks
    except ImportError:
        return None
    height, width = mask["size"]
    runs = masks.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask
    if not masks.area(runs):
        return None
    x, y, across, down = masks.toBbox(runs).tolist()
    return x, y, across, down


def outlined_area(mask: Any) -> float:
    """Return the area of a sound mask in square pixels. Where polygons overlap, the area counts more than once."""
    if isinstance(mask, dict):
        return mask_area(mask, None, None) or 0
    total = 0.0
    for part in mask:
        xs, ys = _coordinates(part)
        pairs = zip(xs, ys, [*xs[1:], *xs[:1]], [*ys[1:], *ys[:1]], strict=True)
        total += abs(sum(x * below - right * y for x, y, right, below in pairs)) / 2
    return total


def _coordinates(polygon: list[float]) -> tuple[list[float], list[float]]:
    """Return the x and the y coordinates of the corners. Like pycocotools, ignore a last number without a partner."""
    return polygon[: len(polygon) - len(polygon) % 2 : 2], polygon[1::2]


Row = Mapping[str, Any]
Finding = tuple[str, str, list[str]]
"""The kind of a remark, its sentence as a text for :func:`dtn_det.datasets.remarks.agreeing`, and its objects."""

# A box may reach _ROUNDING pixels beyond its image. Boxes that reach further are reported if they make up more than the
# share _MANY_BEYOND of all boxes.
_ROUNDING, _MANY_BEYOND = 2, 0.1
# At most this many objects, evenly spread over a file, are compared with their masks and areas, to keep reading fast.
_LOOKED_AT = 2000
_LEAST_OVERLAP = 0.1
_LARGEST_SHARE, _LEAST_SHARE = 1.02, 0.01


def contradictions(annotations: Sequence[Row], images: Mapping[Any, Row]) -> Iterator[Finding]:
    """Find boxes, masks and areas that contradict each other, and boxes in another unit or format.

    Args:
        annotations: Objects with ``bbox``, ``area``, ``iscrowd`` and, if there is one, a sound ``segmentation``.
        images: Images by id, with ``height`` and ``width`` if these are known.

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
    """Find boxes that look like fractions of the image, or like (x1, y1, x2, y2)."""
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
    """Return whether box and mask extent, widened by half a pixel on each side, have an IoU below _LEAST_OVERLAP."""
    mask = row.get("segmentation")
    # Masks whose size differs from the image's are reported when the file is read.
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
    """Return whether an area can belong to the object's box, to a part of the box, or to the mask."""
    area = float(row["area"])
    _, _, width, height = map(float, row["bbox"])
    # Some tools write the area as (width + 1) * (height + 1).
    largest = max(_LARGEST_SHARE * width * height, (width + 1) * (height + 1))
    if _LEAST_SHARE * width * height <= area <= largest:
        return True
    mask = row.get("segmentation")
    if not mask:
        return False
    # The pixel count of a thin mask differs from the area within its outline by up to about the length of the mask.
    outlined = outlined_area(mask)
    return area >= 0 and abs(area - outlined) <= max(outlined / 2, width + height + 1)
