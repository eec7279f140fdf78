"""Turn the text of a COCO file into rows that every program interprets in the same way."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dtn_det.datasets.coco.categories import WantedClasses, ignored_objects
from dtn_det.datasets.coco.shapes import MaskFault, contradictions, mask_area, read_mask
from dtn_det.datasets.coco.values import (
    Id,
    are_of_one_kind,
    box,
    crowd_flag,
    identifier,
    number,
    place_of,
    whole_number,
)
from dtn_det.datasets.remarks import counted_remark
from dtn_det.errors import AnnotationError

Row = dict[str, Any]

# What is left of a value at the end of a truncated file: the beginning of true, false, null, a number or an escaped
# character.
_CUT_VALUE = re.compile(r"t|tr|tru|f|fa|fal|fals|n|nu|nul|-|[.eE][-+]?|u[0-9a-fA-F]{0,4}")
LVIS_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
"""Lists of an image in LVIS's files: categories not in the image, and those of which not all objects are annotated."""


class CocoReader:
    """Reads one COCO file and collects the remarks on it.

    Args:
        path: The file.
        wanted: Classes whose objects are wanted; None for all.
    """

    def __init__(self, path: Path, wanted: WantedClasses | None = None) -> None:
        self.path = path
        self.wanted = wanted
        self.told: dict[str, tuple[str, list[str]]] = {}
        self.faults: list[MaskFault] = []
        self.changed = False

    def read(self) -> dict[str, Any]:
        """Return the attributes of a :class:`dtn_det.datasets.coco.CocoFile`.

        Raises:
            AnnotationError: The file is not a COCO file, or COCO's evaluation would fail on it.
            OSError: The file cannot be read.
        """
        content = self._content()
        images = self._by_id(content["images"], "image", "images", self._image)
        categories = self._by_id(content.get("categories") or [], "category", "categories", self._category)
        rows = content.get("annotations") or []
        # Captions and the segments of panoptic files have no boxes, so they are not objects.
        others = bool(rows) and not any("bbox" in row or "category_id" in row for row in rows)
        chosen = set(categories) if self.wanted is None else self.wanted.ids_in(categories)
        objects = self._annotations([] if others else rows, images, categories, chosen)
        annotations = [row for row in objects if row["category_id"] in chosen]
        left_out = [row for row in objects if row["category_id"] not in chosen]
        categories = self._one_of_each_name(categories, objects)
        self._tell_same_files(images)
        for findings in (contradictions(annotations, images), ignored_objects(annotations, categories, images)):
            for kind, what, places in findings:
                self.told[kind] = (what, places)
        for key, image in images.items():
            if not image.keys().isdisjoint(LVIS_LISTS):
                what = "{image|images} with LVIS's lists of categories, which COCO's evaluation ignores"
                self._tell("federated", what, f"image {key}")
        read = ("images", "categories") if others else ("images", "annotations", "categories")
        rest = {key: value for key, value in content.items() if key not in read}
        remarks = [counted_remark(self.path, kind, what, places) for kind, (what, places) in self.told.items()]
        remark = None if self.wanted is None else self.wanted.remark(self.path, left_out, categories)
        return {
            "path": self.path,
            "images": tuple(images.values()),
            "annotations": tuple(annotations),
            "categories": tuple(categories.values()),
            "left_out": tuple(left_out),
            "remarks": tuple(remarks if remark is None else [*remarks, remark]),
            "mask_faults": tuple(self.faults),
            "changed": self.changed,
            "rest": rest,
        }

    def _content(self) -> dict[str, Any]:
        expected = "a COCO annotation file"
        try:
            text = self.path.read_bytes()
            content = json.loads(text)
            # Other readers accept only UTF-8 without a byte order mark, so any other encoding counts as a change.
            self.changed = json.detect_encoding(text) != "utf-8"
        except (ValueError, RecursionError) as error:
            # A truncated file leaves an object, a list or a text open.
            if _ends_early(text, error):
                got = f"a file of {len(text):,} bytes that ends early, as if cut off ({error})"
                raise AnnotationError(self.path, "JSON", got, "", "fetch it again, or write it again") from None
            if isinstance(error, UnicodeDecodeError) and text.lstrip()[:1] in (b"{", b"["):
                got = f"text in another encoding ({error})"
                advice = "write it again in UTF-8, as with `iconv -f ENCODING -t UTF-8`; Chinese systems write GBK"
                raise AnnotationError(self.path, "JSON in UTF-8", got, "", advice) from None
            raise AnnotationError(self.path, "JSON", f"something else ({error})", "", "name another file") from None
        if not isinstance(content, dict):
            got = f"a {type(content).__name__}"
            advice = "name the file with the images; lists are what detectors write"
            raise AnnotationError(self.path, expected, got, "", advice)
        for key in ("images", "annotations", "categories"):
            rows = content.get(key, [] if key != "images" else None)
            if rows is not None and not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
                raise AnnotationError(self.path, f"a list of objects `{key}`", f"{rows!r:.60}")
        if not content.get("images"):
            raise AnnotationError(self.path, "images", "none", "", "name another file")
        return content

    def _tell(self, kind: str, what: str, place: str) -> None:
        self.told.setdefault(kind, (what, []))[1].append(place)

    def _by_id(self, rows: Sequence[Row], one: str, several: str, sound: Callable[[Row, Id], Row]) -> dict[Id, Row]:
        """Return rows by id, each checked and mended by `sound`. Rows with the same id must be equal."""
        found: dict[Id, Row] = {}
        for place, row in enumerate(rows):
            key = identifier(row.get("id"))
            if key is None:
                raise AnnotationError(self.path, f"an id of each {one}", f"{row.get('id')!r}", f"{several}[{place}]")
            row = sound(row, key)
            if key not in found:
                found[key] = row
                continue
            if found[key] != row:
                got = f"two that differ, {_short(found[key])} and {_short(row)}"
                raise AnnotationError(self.path, "each id once", got, f"{one} {key}")
            self.changed = True
            what = f"{{{one} that is listed twice counts|{several} that are listed twice count}} once"
            self._tell(f"{several}_twice", what, f"{one} {key}")
        if not are_of_one_kind(found):
            text = next(one for one in found if isinstance(one, str))
            other = next(one for one in found if not isinstance(one, str))
            raise AnnotationError(
                self.path, f"ids of {several} that are all numbers or all texts", f"{other!r} and {text!r}"
            )
        return found

    def _image(self, row: Row, key: Id) -> Row:
        name, address = row.get("file_name"), row.get("coco_url")
        if name is None and isinstance(address, str) and "/" in address:
            # LVIS's files give the address of COCO's image alone: http://images.cocodataset.org/val2017/NAME.jpg.
            name = "/".join(address.split("/")[-2:])
            row = {**row, "file_name": name}
            self.changed = True
            what = "{image without a file name has that of its|images without a file name have that of their} coco_url"
            self._tell("names_of_addresses", what, f"image {key}")
        if not isinstance(name, str) or not name:
            raise AnnotationError(self.path, "a file name of each image", f"{name!r}", f"image {key}")
        return self._with_size({**row, "id": key} if type(row["id"]) is not type(key) else row, key)

    def _tell_same_files(self, images: Mapping[Id, Row]) -> None:
        """Add a remark on images that name the file of another image."""
        first: dict[str, Id] = {}
        for key, row in images.items():
            name = posixpath.normpath(row["file_name"].replace("\\", "/"))
            if first.setdefault(name, key) != key:
                what = (
                    "{image names|images name} the file of another image; each is evaluated against its own objects "
                    "alone"
                )
                self._tell("same_files", what, f"image {key}: {name} as image {first[name]}")

    def _with_size(self, row: Row, key: Id) -> Row:
        height, width = row.get("height"), row.get("width")
        if type(height) is int and type(width) is int and height > 0 and width > 0:
            return row
        row = dict(row)
        self.changed = True
        for side in ("height", "width"):
            value = row.pop(side, None)
            found = whole_number(value)
            if found is None and value is not None:
                raise AnnotationError(self.path, f"a whole number as {side}", f"{value!r}", f"image {key}")
            if found is not None and found > 0:
                row[side] = found
        return row

    def _category(self, row: Row, key: Id) -> Row:
        if row.get("name") in (None, ""):
            raise AnnotationError(self.path, "a name of each category", f"{row.get('name')!r}", f"category {key}")
        if type(row["id"]) is not type(key) or not isinstance(row["name"], str):
            row = {**row, "id": key, "name": str(row["name"])}
            self.changed = True
        return row

    def _annotations(
        self, rows: Sequence[Row], images: Mapping[Id, Row], categories: Mapping[Id, Row], chosen: Collection[Id]
    ) -> list[Row]:
        found = []
        # A second reader reads the objects of other categories, so that remarks and faults on these objects are
        # dropped.
        aside = CocoReader(self.path)
        for place, row in enumerate(rows):
            image, category = identifier(row.get("image_id")), identifier(row.get("category_id"))
            if identifier(row.get("id")) is None:
                raise AnnotationError(
                    self.path, "an id of each annotation", f"{row.get('id')!r}", f"annotations[{place}]"
                )
            if image is None:
                raise AnnotationError(
                    self.path, "an image_id of each annotation", f"{row.get('image_id')!r}", f"annotation {row['id']}"
                )
            if category is None:
                raise AnnotationError(
                    self.path, "a category_id of each annotation", f"{row.get('category_id')!r}", place_of(row)
                )
            if image not in images:
                self._left_out(image, images, "image", row)
            elif category not in categories:
                self._left_out(category, categories, "category", row)
            else:
                reader = self if category in chosen else aside
                found.append(reader._object(row, image, category, images[image]))
        self.changed |= aside.changed
        return self._with_own_ids(found)

    def _left_out(self, key: Id, known: Mapping[Id, Row], what: str, row: Row) -> None:
        other = number(key) if isinstance(key, str) else str(key)
        if other is not None and other in known:
            raise AnnotationError(
                self.path,
                f"{what} ids of annotations as those of the {'images' if what == 'image' else 'categories'} "
                "are written",
                f"{key!r} for {other!r}",
                place_of(row),
            )
        self._tell(
            f"annotations_without_{what}",
            f"{{annotation of an id|annotations of ids}} of {'images' if what == 'image' else 'categories'} not listed "
            "{was|were} left out",
            place_of(row),
        )

    def _object(self, row: Row, image: Id, category: Id, image_row: Row) -> Row:
        """Return an annotation with all fields that evaluation reads; the same row if nothing had to be changed."""
        new: Row = {}
        if type(row["image_id"]) is not type(image) or type(row["category_id"]) is not type(category):
            new |= {"image_id": image, "category_id": category}
        corners = box(row.get("bbox"))
        if corners is None:
            raise AnnotationError(
                self.path,
                "a box of four numbers of each annotation",
                f"bbox {row.get('bbox')!r:.80}",
                place_of(row),
            )
        if corners is not row["bbox"]:
            new["bbox"] = corners
        crowd = crowd_flag(row)
        if crowd is None:
            got = f"iscrowd {row['iscrowd']!r:.40}"
            raise AnnotationError(self.path, "iscrowd 0 or 1 of each annotation", got, place_of(row))
        if row.get("iscrowd") is not crowd:
            new["iscrowd"] = crowd
        new |= self._mask(row, image_row)
        new |= self._area(row, {**row, **new}, image_row)
        if min(corners[2:]) <= 0 and not crowd:
            self._tell(
                "boxes_without_extent",
                "{box|boxes} without width or height, which no detection can match, {counts|count} as missed",
                place_of(row),
            )
        if not new:
            return row
        merged = {**row, **new}
        if merged.get("segmentation", "") is None:
            del merged["segmentation"], new["segmentation"]
        self.changed |= bool(new)
        return merged

    def _mask(self, row: Row, image: Row) -> Row:
        if "segmentation" not in row:
            return {}
        mask = read_mask(row["segmentation"])
        if mask.fault is not None:
            self.changed = True
            self.faults.append(MaskFault(place_of(row), mask.fault, mask.advice))
            what = (
                "{segmentation|segmentations} that COCO's evaluation cannot take {was|were} left out: boxes count, and "
                "a detector with masks is refused"
            )
            self._tell("unusable_masks", what, f"{place_of(row)}: {mask.fault}")
        if isinstance(mask.value, dict):
            size = [image.get("height"), image.get("width")]
            if None not in size and mask.value["size"] != size:
                self._tell(
                    "masks_of_other_size",
                    "{mask of another size than its|masks of another size than their} image, which no detection can "
                    "match, {counts|count} as missed",
                    place_of(row),
                )
        same = mask.value is row["segmentation"] and mask.value is not None
        return {} if same else {"segmentation": mask.value}

    def _area(self, row: Row, merged: Row, image: Row) -> Row:
        value = row.get("area")
        found = number(value)
        if value is None:
            mask = merged.get("segmentation")
            found = mask_area(mask, image.get("height"), image.get("width")) if mask else None
            _, _, width, height = merged["bbox"]
            found = width * height if found is None else found
            what = "{object without an area got that of its|objects without an area got that of their} mask or box"
            self._tell("areas_filled", what, place_of(row))
        if found is None:
            raise AnnotationError(
                self.path, "a finite number as area of each annotation", f"area {value!r:.40}", place_of(row)
            )
        return {} if found is value else {"area": found}

    def _with_own_ids(self, rows: list[Row]) -> list[Row]:
        """Return the annotations, with new ids if two have the same id or one has the id 0."""
        seen: set[Id | None] = set()
        for row in rows:
            key = identifier(row["id"])
            if key in seen:
                self._tell(
                    "annotation_ids_twice",
                    "{annotation with the id of another was given an id of its|annotations with the id of another were "
                    "given ids of their} own; pycocotools would count the last one in place of the others",
                    place_of(row),
                )
            elif key == 0:
                self._tell(
                    "annotation_id_zero",
                    "annotation with the id 0 was given another, for pycocotools counts it as missed even where it is "
                    "found",
                    place_of(row),
                )
            seen.add(key)
        if len(seen) == len(rows) and 0 not in seen:
            return rows
        self.changed = True
        return [{**row, "id": place + 1} for place, row in enumerate(rows)]

    def _one_of_each_name(self, categories: dict[Id, Row], annotations: Sequence[Row]) -> dict[Id, Row]:
        """Return the categories, but leave out each category without objects that shares its name with another."""
        by_name: dict[str, list[Id]] = {}
        for key, row in categories.items():
            by_name.setdefault(row["name"], []).append(key)
        if len(by_name) == len(categories):
            return categories
        used = {identifier(row["category_id"]) for row in annotations}
        left_out = set()
        for name, keys in by_name.items():
            if len(keys) == 1:
                continue
            chosen = [key for key in keys if key in used] or keys[:1]
            if len(chosen) > 1:
                got = f"the ids {', '.join(map(str, chosen))}, which have objects each"
                raise AnnotationError(self.path, "one category of each name", got, f"the categories {name!r}")
            left_out |= set(keys) - set(chosen)
            self._tell(
                "category_names_twice",
                "{category without objects that shares|categories without objects that share} another's name "
                "{was|were} left out",
                name,
            )
        self.changed = True
        return {key: row for key, row in categories.items() if key not in left_out}


def _short(row: Row) -> str:
    shown: Callable[[Any], str] = lambda value: f"{value!r:.40}"  # noqa: E731
    return "{" + ", ".join(f"{key}: {shown(value)}" for key, value in list(row.items())[:4]) + "}"


def _ends_early(text: bytes, error: Exception) -> bool:
    """Return whether bytes that are not valid JSON begin an object or a list and stop before its end."""
    start = text.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start not in (b"{", b"["):
        return False
    # The file ends within a character of several bytes.
    if isinstance(error, UnicodeDecodeError):
        return error.reason == "unexpected end of data"
    if not isinstance(error, json.JSONDecodeError):
        return False
    rest = error.doc[error.pos :].strip()
    return not rest or "Unterminated string" in error.msg or _CUT_VALUE.fullmatch(rest) is not None
