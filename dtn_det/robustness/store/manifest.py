"""Manifests record what the results in a store depend on; a run may add to a store only if its manifest agrees."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dtn_det.corruptions.cells import Cell
from dtn_det.cost.facts import ModelFacts
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import InputError

FORMAT = 1
"""Version of the format of the files in a store."""

_LONGEST, _LISTED = 120, 5
_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_NOT_COMPARED = ("versions", "facts", "remarks", "recognised", "protocol", "images_hash", "earlier_data_hashes")
_BY_TEXT = "earlier versions took numbered folders by the text order of their names, as --classes sorted does"
_EARLIER_KEYS = {"batch size": "batch_size", "model settings": "model_settings"}
"""Parts of the protocol that earlier manifests of detectors named differently: the earlier and the current name."""

_EARLIER_VALUES = {("precision", "mixed"): "amp"}
"""Values that earlier manifests wrote differently: part of the protocol and earlier value, and the current value."""

_MEANINGS = {
    "data_hash": "names, sizes and labels of the images",
    "weights_hash": "the weights of the model",
    "clean_images": "names and sizes of the clean images",
    "order": "of evaluation, image by image where there is nothing",
}


@dataclass(frozen=True)
class StoreManifest:
    """The data and conditions that all models of a store share.

    Attributes:
        task: ``'classification'`` or ``'detection'``.
        data: Name of the data set, for readers.
        data_hash: Hash of the list of its files and labels: see :func:`hash_lines`.
        num_images: Number of images in the sweep, after any selection.
        selection: How the images were chosen, such as ``'all'`` or ``'limit=500 of 5000 seed=0'``.
        corruption: Identity of the corruptions: :attr:`dtn_det.corruptions.Corruptor.identity`, or the identity stated
            by the folder of corrupted images.
        cells: The cells, each a corruption at a severity, in the order of their numbers in the records.
        unit_size: Number of images whose records are written together, as one unit.
        protocol: What else the numbers depend on, by name.
        format: Version of the format of the files.
        remarks: What the readers of the data left out, filled in or decided. Runs do not compare remarks, because the
            hash of the data already tells data sets apart, and stores of earlier versions have no remarks.
        recognised: What the folder of the data was recognised as, by name, such as ``dataset``. Runs do not compare it
            either.
        images_hash: Hash of the images without their annotations, which is what detections depend on. Empty for
            classifiers and in stores of earlier versions.
        earlier_data_hashes: Hashes of annotations of the same images that were replaced, the oldest first.
        imported: Format of the result files of another program that all records of the store were imported from. Empty
            if the models were evaluated here.
    """

    task: str
    data: str
    data_hash: str
    num_images: int
    selection: str
    corruption: str
    cells: tuple[Cell, ...]
    unit_size: int
    protocol: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT
    remarks: tuple[Remark, ...] = ()
    recognised: Mapping[str, str] = field(default_factory=dict)
    images_hash: str = ""
    earlier_data_hashes: tuple[str, ...] = ()
    imported: str = ""

    def __post_init__(self) -> None:
        if self.num_images < 1 or self.unit_size < 1 or not self.cells:
            raise InputError(
                f"expected at least one image, one image a unit and one cell, got {self.num_images}, {self.unit_size} "
                f"and {len(self.cells)}"
            )

    @property
    def num_units(self) -> int:
        """Number of units in the sweep; the last may have fewer images than the others."""
        return -(-self.num_images // self.unit_size)

    def unit(self, number: int) -> range:
        """Return the numbers of the images of a unit."""
        return range(number * self.unit_size, min((number + 1) * self.unit_size, self.num_images))

    def progress(self, pending: Iterable[int]) -> str:
        """Return a sentence about how much of the sweep is done."""
        units = list(pending)
        text = f"{self.num_units - len(units):,} of {self.num_units:,} units are done already"
        left = sum(len(self.unit(number)) for number in units)
        return f"{text}, {left:,} of {self.num_images:,} images are left" if left else text

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        plain = {
            "cells": [list(cell) for cell in self.cells],
            "protocol": dict(self.protocol),
            "recognised": dict(self.recognised),
        }
        return {**asdict(self), **plain, "remarks": [remark.to_dict() for remark in self.remarks]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoreManifest:
        """Read a manifest that :meth:`to_dict` wrote."""
        cells = tuple(Cell(name, severity) for name, severity in values["cells"])
        remarks = tuple(Remark.from_dict(remark) for remark in values.get("remarks", ()))
        earlier = tuple(values.get("earlier_data_hashes", ()))
        return cls(**{**values, "cells": cells, "remarks": remarks, "earlier_data_hashes": earlier})


@dataclass(frozen=True)
class ModelManifest:
    """What the records of one model depend on.

    Attributes:
        source: The model as the user named it, such as ``timm:resnet50``, or a config with a checkpoint.
        weights_hash: See :func:`hash_weights`.
        protocol: What else its numbers depend on: input size, preprocessing, batch size, precision.
        versions: Versions of the libraries in the run that began to evaluate the model. If a run with other versions
            continues, ``dtn-det mce`` warns.
        num_parameters: Number of parameters; 0 for imported results, of which it is not known.
        facts: The cost and training of the model, for reports. Runs do not compare them, and stores of earlier versions
            have none.
        remarks: What the reader of imported results left out, filled in or decided. Runs do not compare remarks.
    """

    name: str
    source: str
    weights_hash: str
    num_parameters: int
    protocol: Mapping[str, str]
    versions: Mapping[str, str]
    facts: ModelFacts = field(default_factory=ModelFacts)
    remarks: tuple[Remark, ...] = ()

    def __post_init__(self) -> None:
        for name, kind in (("name", str), ("weights_hash", str), ("protocol", Mapping), ("versions", Mapping)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} is {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        plain = {"protocol": dict(self.protocol), "versions": dict(self.versions), "facts": self.facts.to_dict()}
        return {**asdict(self), **plain, "remarks": [remark.to_dict() for remark in self.remarks]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelManifest:
        """Read what :meth:`to_dict` wrote, and replace names and values of earlier versions by current ones."""
        protocol = values["protocol"]
        if isinstance(protocol, Mapping):
            protocol = {
                _EARLIER_KEYS.get(key, key): _EARLIER_VALUES.get((key, value), value) for key, value in protocol.items()
            }
        remarks = tuple(Remark.from_dict(remark) for remark in values.get("remarks", ()))
        facts = ModelFacts.from_dict(values.get("facts", {}))
        return cls(**{**values, "protocol": protocol, "facts": facts, "remarks": remarks})


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return a line for each field in which two manifests differ, apart from the fields that runs do not compare."""
    lines = []
    old_fields, new_fields = _flat(found), _flat(wanted)
    if _same_labels(old_fields, new_fields):
        new_fields["classes"] = old_fields["classes"]
    # The hash already identifies the images. Earlier versions wrote "all" even for a corrupted tree that has only some
    # of the clean images.
    if old_fields.get("data_hash") == new_fields.get("data_hash") and old_fields.get("selection") == "all":
        new_fields["selection"] = "all"
    for key in sorted({*old_fields, *new_fields}):
        old, new = old_fields.get(key), new_fields.get(key)
        if old != new:
            meaning = f" ({_MEANINGS[key]})" if key in _MEANINGS else ""
            if key == "data_hash" and _numbered_by_text(found, wanted):
                meaning = f" ({_MEANINGS[key]}; {_BY_TEXT})"
            if key == "corruption":
                meaning = _engines(str(old), str(new))
            if isinstance(old, list | tuple) and isinstance(new, list | tuple):
                text = _lists(old, new)
            else:
                text = f"the store has {_short(old)}, this run {_short(new)}"
            lines.append(f"{key}: {text}{meaning}")
    return lines


def _same_labels(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether two ways of numbering class folders give equal labels, as equal hashes of the data prove."""
    ways = (old.get("classes"), new.get("classes"))
    return old.get("data_hash") == new.get("data_hash") and set(ways) <= {"folder", "sorted", "natural"}


def _numbered_by_text(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether an earlier version may have numbered the folders of a store by the text order of their names.

    Stores of that version have no entry ``recognised``.
    """
    kinds = {remark.get("kind") for remark in wanted.get("remarks", ())}
    classes = {one.get("protocol", {}).get("classes") for one in (found, wanted)}
    return not found.get("recognised") and classes == {"folder"} and "numbered_folders" in kinds


def _lists(old: Sequence[object], new: Sequence[object]) -> str:
    """Describe how two lists differ, such as the cells of a store and the cells of this run."""
    text = f"the store has {len(old)}, this run {len(new)}"
    missing = [item for item in old if item not in new], [item for item in new if item not in old]
    for who, items in zip(("the store", "this run"), missing, strict=True):
        if items:
            named = [" ".join(map(str, item)) if isinstance(item, list | tuple) else str(item) for item in items]
            more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
            text += f"; only {who} has {', '.join(named[:_LISTED])}{more}"
    return text if any(missing) else f"{text}, in another order"


def _engines(old: str, new: str) -> str:
    """Describe how corruptions changed between two versions of the engine, and which option lets a run continue."""
    # Imported here, because the engine is slow to import and most runs find no difference.
    from dtn_det.corruptions.identity import Identity, engine_changes

    changes, identity = engine_changes(old, new), Identity.parse(old)
    if not changes:
        return ""
    return f" ({changes}{'' if identity is None else f'; --engine {identity.engine} goes on with the store'})"


def _flat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that runs compare, with each part of the protocol as a field of its own."""
    fields = {key: value for key, value in manifest.items() if key not in _NOT_COMPARED}
    return {**fields, **manifest.get("protocol", {})}


def _short(value: object) -> str:
    if value is None:
        return "nothing"
    text = _HASH.sub(r"\1", repr(value))
    return text if len(text) <= _LONGEST else f"{text[:80]} ... ({len(text)} characters)"


def hash_lines(lines: Iterable[str]) -> str:
    """Return the SHA-256 of lines of text, such as the paths, sizes and labels of a data set's files."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def hash_weights(state_dict: Mapping[str, object]) -> str:
    """Return the SHA-256 of a model's parameters and buffers. It does not depend on the format of the checkpoint."""
    import torch

    from dtn_det.layers.options import EXTRA_STATE

    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name]
        # Options of norms are not weights. Earlier versions did not save them, so hashing them would make old hashes
        # invalid.
        if not isinstance(tensor, torch.Tensor) or name.rpartition(".")[2] == EXTRA_STATE:
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
