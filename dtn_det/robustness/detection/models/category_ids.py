"""Decide which category of the data set each category id in a model's output means.

A model numbers its classes in one of several ways. Names are the best evidence, then the number of classes. What
neither decides is refused, or stated by the user with ``--category-ids``:

* ``dataset``: the ids of the categories in the annotation file,
* ``index``: 0, 1, 2, ..., the categories in the order of the annotation file,
* ``index1``: 1, 2, 3, ..., the same, where 0 is the background,
* ``coco91``: COCO's own ids from 1 to 90,
* ``coco80``: 0 to 79, COCO's 80 categories in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dtn_det.checkpoints.state_dict import some
from dtn_det.datasets.coco.coco_classes import COCO_NAMES, DARKNET_NAMES
from dtn_det.datasets.coco.values import Id
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import ClassNameError, InputError

WAYS = ("dataset", "index", "index1", "coco91", "coco80")
"""The values of ``--category-ids``."""

_NO_NAMES = ("", "n/a", "background", "__background__", "no object")


@dataclass(frozen=True)
class StatedClasses:
    """What a model states about the category ids in its output.

    Attributes:
        names: Names of classes by category id; empty if the model has none.
        source: Where the names or the number are stated, for messages.
        count: Number of classes, with the background if it is id 0; None if unknown.
        way: How ids are numbered according to the contract of the model, out of :data:`WAYS`; empty if it has none.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    source: str = ""
    count: int | None = None
    way: str = ""


@dataclass(frozen=True)
class DataCategories:
    """The categories of a data set.

    Attributes:
        path: The annotation file.
        ids: Id of each category in the file.
        names: Name of each category, in the same order.
    """

    path: Path
    ids: tuple[Id, ...]
    names: tuple[str, ...]

    def index_of(self, name: str) -> int | None:
        """Return the index of the category with a name, also if it differs in case, blanks or dashes alone."""
        if name in self.names:
            return self.names.index(name)
        wanted = _plain(name)
        found = [place for place, own in enumerate(self.names) if _plain(own) == wanted]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class CategoryPlaces:
    """The category of the data set that each category id of a model means.

    Attributes:
        places: Index of the category by category id; -1 for a class that the data set lacks.
        evidence: What decided this, as a short text.
        way: How the ids are numbered, out of :data:`WAYS`, or ``'names'``.
        remarks: What was decided, for the user.
        ways: For each way out of :data:`WAYS` that could be meant, the ids that it numbers categories by.
    """

    places: Mapping[int, int]
    evidence: str
    way: str
    remarks: tuple[Remark, ...] = ()
    ways: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def explaining(self, ids: Iterable[int]) -> list[str]:
        """Return the ways by which all of some ids are those of categories."""
        wanted = frozenset(ids)
        return [way for way, known in self.ways.items() if wanted <= known]


def category_places(model: str, stated: StatedClasses, data: DataCategories, asked: str | None) -> CategoryPlaces:
    """Decide which category of a data set each category id of a model means.

    Args:
        model: Name of the model, for messages.
        asked: The user's ``--category-ids`` for this model; None to go by evidence.

    Raises:
        InputError: Neither names nor numbers tell, or the categories are not COCO's where ids are.
        ClassNameError: No class of the model has the name of a category of the data.
    """
    way, evidence = _decided(model, stated, data, asked)
    places = _places(way, stated, data)
    if not any(place >= 0 for place in places.values()):
        own = stated.names if way == "names" else COCO_NAMES
        raise ClassNameError(
            f"expected categories of {data.path} that the model {model!r} knows, got {some(data.names, 3)} in the file "
            f"and {some(list(own.values()), 3)} of {evidence}: name another model, or say what its ids are with "
            "--category-ids"
        )
    remarks = tuple(_remarks(model, places, stated, way, evidence, data))
    ways = {one: _places(one, stated, data) for one in WAYS}
    known = {one: frozenset(number for number, place in found.items() if place >= 0) for one, found in ways.items()}
    return CategoryPlaces(places, evidence, way, remarks, {one: ids for one, ids in known.items() if ids})


def _decided(model: str, stated: StatedClasses, data: DataCategories, asked: str | None) -> tuple[str, str]:
    """Return how ids are numbered, and what tells so."""
    if asked is not None:
        if asked not in WAYS:
            raise InputError(f"expected --category-ids out of {', '.join(WAYS)}, got {asked!r}")
        return asked, f"--category-ids {asked}"
    if stated.names:
        return "names", f"the names in {stated.source}"
    if stated.way:
        return stated.way, stated.source
    of_coco = all(_plain(name) in _COCO_PLAIN for name in data.names)
    for way, counts in (("coco91", (90, 91)), ("coco80", (80,))):
        if of_coco and stated.count in counts:
            return way, f"the {stated.count} classes of {stated.source}"
    if stated.count == len(data.ids) + 1 and list(data.ids) == list(range(1, len(data.ids) + 1)):
        return "dataset", f"the {stated.count} classes of {stated.source}, the background and the ids of the file"
    classes = "an unknown number of" if stated.count is None else f"{stated.count}"
    raise InputError(
        f"expected names of classes in {stated.source or 'the model'} that tell which of the {len(data.ids)} "
        f"categories of {data.path} each id of the model {model!r} means, got {classes} classes without names: say so "
        f"with --category-ids, one of {', '.join(WAYS)}"
    )


def _places(way: str, stated: StatedClasses, data: DataCategories) -> dict[int, int]:
    if way == "dataset":
        return {number: place for place, number in enumerate(data.ids) if isinstance(number, int)}
    if way in ("index", "index1"):
        return {place + (way == "index1"): place for place in range(len(data.ids))}
    # Ids from 1 to 90 without a category, such as 12, are classes of models all the same.
    of_coco91 = {number: COCO_NAMES.get(number, "") for number in range(1, max(COCO_NAMES) + 1)}
    of_coco80 = dict(enumerate(COCO_NAMES.values()))
    names: Mapping[int, str] = {"coco91": of_coco91, "coco80": of_coco80}.get(way, stated.names)
    found = {number: data.index_of(name) if name else None for number, name in names.items()}
    return {number: -1 if place is None else place for number, place in found.items()}


def _remarks(
    model: str, places: Mapping[int, int], stated: StatedClasses, way: str, evidence: str, data: DataCategories
) -> list[Remark]:
    known = {place for place in places.values() if place >= 0}
    what = agreeing(len(known), "{category is|categories are} numbered as {it is|they are} known") + f" from {evidence}"
    remarks = [Remark("category_ids", what, model, len(known))]
    if way == "names":
        more = [
            name for number, name in stated.names.items() if places[number] < 0 and name.casefold() not in _NO_NAMES
        ]
        if more:
            what = agreeing(len(more), "{class|classes} of the model without a category in the data {is|are} left out")
            remarks.append(Remark("classes_left_out", what, model, len(more), tuple(more[:3])))
    lacking = [name for place, name in enumerate(data.names) if place not in known]
    if lacking:
        what = agreeing(len(lacking), "{category|categories} of the data that the model has no class for, so AP counts")
        what += agreeing(len(lacking), " {its|their} objects as missed")
        remarks.append(Remark("categories_unknown", what, model, len(lacking), tuple(lacking[:3])))
    return remarks


def _plain(name: str) -> str:
    """Return a name without case, blanks and dashes, and with COCO's word in place of darknet's."""
    plain = "".join(letter for letter in name.casefold() if letter not in " -_")
    return "".join(DARKNET_NAMES.get(plain, plain).split())


_COCO_PLAIN = {_plain(name) for name in COCO_NAMES.values()}


def asked_for(name: str, given: Sequence[str]) -> str | None:
    """Return the value of ``--category-ids`` for a model: ``NAME=WAY`` for one model goes before ``WAY`` for all."""
    own = [word.partition("=")[2] for word in given if word.startswith(f"{name}=")]
    common = [word for word in given if "=" not in word]
    found = own or common
    if len(found) > 1:
        raise InputError(f"expected --category-ids once for the model {name!r}, got {' and '.join(found)}")
    return found[0] if found else None
