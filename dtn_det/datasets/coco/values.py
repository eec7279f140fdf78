"""Ids, numbers and boxes of COCO files, as pycocotools understands them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Id = int | float | str
"""The id of an image or a category in a COCO file. The ids of a file's images are all numbers or all texts, and so are
the ids of its categories."""


def identifier(value: object) -> Id | None:
    """Return the id that a value in a file represents; None if it is not an id. 7 and 7.0 are equal, also as keys."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else value
    return None


def number(value: object) -> int | float | None:
    """Return a value as a finite number, also from texts such as "640"; None if the value is not a finite number."""
    try:
        if isinstance(value, str):
            value = float(value)
            value = int(value) if value.is_integer() else value
        if not isinstance(value, int | float) or not math.isfinite(value):
            return None
    except (ValueError, OverflowError):
        return None
    return int(value) if isinstance(value, bool) else value


def whole_number(value: object) -> int | None:
    """Return the value as a whole number, such as 640 for 640, 640.0 or "640"; None for anything else."""
    found = number(value)
    return int(found) if found is not None and float(found).is_integer() else None


def are_numbers(values: Sequence[Any]) -> bool:
    """Return whether all values are finite numbers and none is text; without a loop in Python, to be fast."""
    try:
        return math.isfinite(sum(values))
    except (TypeError, OverflowError):
        return False


def box(value: object) -> list[int | float] | None:
    """Return the x, y, width and height of a box; None if the value is not a list of four numbers."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if are_numbers(value):
        return value
    found = [number(one) for one in value]
    return None if None in found else [one for one in found if one is not None]


def crowd_flag(row: Mapping[str, Any]) -> int | None:
    """Return 1 for a crowd, 0 for other objects or without a flag, and None if the flag is not a whole number."""
    value = row.get("iscrowd", 0)
    found = None if isinstance(value, str) else int(value) if isinstance(value, bool) else whole_number(value)
    return None if found is None else int(found != 0)


def are_of_one_kind(ids: Iterable[Id]) -> bool:
    """Return whether all ids are numbers or all are texts, so that they can be sorted."""
    return len({isinstance(one, str) for one in ids}) < 2


def evaluation_ids(ids: Sequence[Id]) -> dict[Id, int]:
    """Return an integer for each id, for COCO's evaluation.

    The integers are in the order of the ids, because that order decides between detections with equal scores. If all
    ids are integers from 0 to 2**31 - 1, they do not change. Otherwise the ids are numbered from 1, because
    faster-coco-eval rejects negative image ids and sorts ids with NumPy, which turns integers beyond 63 bits into
    floating-point numbers.
    """
    if all(isinstance(one, int) and 0 <= one < 2**31 for one in ids):
        return {one: int(one) for one in ids}
    return {one: place + 1 for place, one in enumerate(sorted(ids))}


def place_of(annotation: Mapping[str, Any]) -> str:
    """Return how messages name an annotation."""
    return f"annotation {annotation.get('id')} of image {annotation.get('image_id')}"
