"""Collect the classes that a config of MMDetection states, for :mod:`dtn_det.datasets.class_names`."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from dtn_det._optional import require
from dtn_det.datasets.class_names import (
    LabelNames,
    ModelClasses,
    NamedSet,
    differing_order,
    labels_in_evaluation,
    labels_in_training,
)
from dtn_det.datasets.coco import CocoFile
from dtn_det.datasets.coco.categories import WantedClasses
from dtn_det.datasets.configs.settings import evaluators, innermost_settings, listed_settings
from dtn_det.datasets.remarks import Remark, agreeing
from dtn_det.errors import ClassNameError

LABEL_ORDER = "classes_in_label_order"
"""Key beside ``classes`` in the metainfo of data sets and checkpoints: True if the classes are in label order."""

# Parts of models whose `num_classes` counts something else: objectness, ImageNet's classes or stuff.
_OTHER_CLASSES = ("backbone", "neck", "rpn_head", "semantic_head", "data_preprocessor", "init_cfg", "reid")
_KEY = re.compile(rb'"categories"\s*:\s*(?=\[)')
_FIRST_READ = 1 << 16


class Category(NamedTuple):
    """Id and name of a category in an annotation file."""

    id: Any
    name: str


def prepare_training(cfg: Any) -> tuple[Remark, ...]:
    """Check before training that a detector's data sets agree on their classes, and list the classes in label order.

    Args:
        cfg: The config; changed in place, see :func:`list_in_label_order`.

    Returns:
        Remarks on what was decided, and on a test set that could not be evaluated with the trained model.

    Raises:
        ClassNameError: See :func:`dtn_det.datasets.class_names.labels_in_training`.
    """
    found = classes_in_training(cfg)
    if found is None:
        return ()
    remarks = list_in_label_order(cfg, found)
    try:
        tested = dataset_classes(cfg, "test_dataloader")
        after = ModelClasses(head_numbers(cfg.get("model")), "what is trained here", found.names, in_label_order=True)
        error = differing_order(labels_in_evaluation(tested, (), after)) if tested else None
    except ClassNameError as other:
        error = other
    if error is None:
        return remarks
    return (*remarks, Remark("other_test_classes", f"tools/test.py will refuse its set: {error}", "test_dataloader"))


def check_evaluation(
    cfg: Mapping[str, Any], split: str, checkpoint: str, content: Mapping[str, Any]
) -> tuple[Remark, ...]:
    """Check that a detector's labels mean the same classes in MMDetection's evaluation as in its training.

    Returns:
        A remark if names in the checkpoint were ignored.

    Raises:
        ClassNameError: See :func:`dtn_det.datasets.class_names.labels_in_evaluation`; or a file has its categories in
            another order than the labels.
    """
    found = classes_in_evaluation(cfg, split, checkpoint, content)
    error = None if found is None else differing_order(found)
    if error is not None:
        raise error
    return () if found is None else found.remarks


def classes_in_training(cfg: Mapping[str, Any]) -> LabelNames | None:
    """Decide what a detector's labels will mean after its training; None if its data sets are not in COCO's format.

    Raises:
        ClassNameError: See :func:`dtn_det.datasets.class_names.labels_in_training`.
    """
    training = dataset_classes(cfg, "train_dataloader")
    if not training:
        return None
    validation = []
    if cfg.get("val_cfg") is not None:
        validation = dataset_classes(cfg, "val_dataloader")
        validation += evaluator_classes(cfg, "val_dataloader", validation)
    return labels_in_training(training, validation, ModelClasses(head_numbers(cfg.get("model"))))


def classes_in_evaluation(
    cfg: Mapping[str, Any],
    split: str,
    checkpoint: str = "",
    content: Mapping[str, Any] | None = None,
    read: Mapping[Path, CocoFile] = MappingProxyType({}),
) -> LabelNames | None:
    """Decide what the labels of a trained detector mean; None if the evaluated set is not in COCO's format.

    Args:
        read: Files that were read already, by their resolved paths. Categories that were ignored then are ignored here
            too.

    Raises:
        ClassNameError: See :func:`dtn_det.datasets.class_names.labels_in_evaluation`.
    """
    tested = dataset_classes(cfg, f"{split}_dataloader")
    if not tested:
        return None
    tested += evaluator_classes(cfg, f"{split}_dataloader", tested)
    tested = [_as_read(one, read.get(Path(one.file).resolve())) for one in tested]
    names, in_order = checkpoint_classes(content or {})
    model = ModelClasses(head_numbers(cfg.get("model")), checkpoint, names, in_order)
    return labels_in_evaluation(tested, training_classes(cfg, tested[0]), model)


def _as_read(one: NamedSet, file: CocoFile | None) -> NamedSet:
    """Return the set without the categories that were ignored when its file was read."""
    if file is None or len(file.categories) == len(one.categories):
        return one
    return replace(one, categories=tuple(str(row["name"]) for row in file.categories))


def training_classes(cfg: Mapping[str, Any], tested: NamedSet) -> list[NamedSet]:
    """Return the classes of the data sets that a config trains on, if their files are on this machine.

    Args:
        tested: The evaluated set. A training set without a type is assumed to have the same classes.
    """
    return dataset_classes(cfg, "train_dataloader", tested.wanted)


def dataset_classes(cfg: Mapping[str, Any], loader: str, default: tuple[str, ...] | None = None) -> list[NamedSet]:
    """Return the classes of each COCO data set of a dataloader whose file is on this machine.

    Args:
        loader: Key of the dataloader, such as ``'train_dataloader'``.
        default: Classes of a set without a type, as when the command line gives only a file.

    Raises:
        ClassNameError: The classes in the config are a string that is not the path of a file.
    """
    if cfg.get("default_scope") == "mmpretrain":
        return []
    found = []
    for where, settings in innermost_settings(cfg, loader):
        kind = coco_class(settings.get("type"))
        file = settings.get("ann_file")
        if (kind is None and (settings.get("type") or default is None)) or not isinstance(file, str):
            continue
        path = os.path.join(settings.get("data_root") or "", file)
        if not os.path.isfile(path):
            continue
        rows = read_categories(path)
        by_id = kind is not None and kind.__name__.startswith("Objects365")
        wanted = _wanted(where, settings, kind, default)
        categories = tuple(row.name for row in (sorted(rows) if by_id else rows))
        # Unlabelled images of semi-supervised training have no categories.
        if wanted is not None and categories:
            things_alone = kind is None or "Panoptic" not in kind.__name__
            found.append(NamedSet(where, path, wanted, categories, things_alone))
    return found


def evaluator_classes(cfg: Mapping[str, Any], loader: str, tested: Sequence[NamedSet]) -> list[NamedSet]:
    """Return the classes of the files that MMDetection's CocoMetric reads, which may not be the data sets' files."""
    found = []
    for where, metric in evaluators(cfg, loader):
        file = metric.get("ann_file")
        if tested and isinstance(file, str) and _name(metric.get("type")) == "CocoMetric" and os.path.isfile(file):
            rows = read_categories(file)
            ordered = sorted(rows) if metric.get("sort_categories") else rows
            found.append(NamedSet(where, file, tested[0].wanted, tuple(row.name for row in ordered)))
    return found


def head_numbers(model: Any) -> dict[str, int]:
    """Return each number of classes in a model's config by its full key, such as ``model.bbox_head.num_classes``."""
    # Detectors that take class names as text have another number of outputs, so they have no number to compare.
    if not isinstance(model, Mapping) or "language_model" in model:
        return {}
    return dict(_numbers("model", model))


def checkpoint_classes(content: Mapping[str, Any]) -> tuple[tuple[str, ...] | None, bool]:
    """Return the classes in a checkpoint of MMDetection 2 or 3, and whether they are in the order of the labels."""
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    data = meta.get("dataset_meta")
    data = data if isinstance(data, Mapping) else {}
    for names in (data.get("classes"), data.get("CLASSES"), meta.get("CLASSES")):
        if isinstance(names, list | tuple) and names:
            return tuple(map(str, names)), data.get(LABEL_ORDER) is True
    return None, False


def list_in_label_order(cfg: Any, found: LabelNames) -> tuple[Remark, ...]:
    """List the classes of a config's data sets in the order of the labels.

    MMDetection ignores the order in the config when it numbers labels, so the labels do not change. But when it draws
    names, and when it stores names in the checkpoint, it uses the order in the config. Names would be wrong in any
    other order.

    Args:
        cfg: Config of a training; changed in place.
    """
    changed = []
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for where, settings in innermost_settings(cfg, loader):
            kind = coco_class(settings.get("type"))
            wanted = None if kind is None else _wanted(where, settings, kind, None)
            if wanted is None or wanted == found.names or set(wanted) != set(found.names):
                continue
            metainfo = dict(settings.get("metainfo") or {})
            palette = metainfo.get("palette", getattr(kind, "METAINFO", {}).get("palette"))
            if isinstance(palette, list | tuple) and len(palette) == len(wanted):
                metainfo["palette"] = [palette[wanted.index(name)] for name in found.names]
            settings["metainfo"] = {**metainfo, "classes": found.names, LABEL_ORDER: True}
            changed.append(where)
    if not changed:
        return ()
    lists = agreeing(len(changed), "{data set lists its|data sets list their}")
    what = (
        f"{lists} classes in another order than the categories in {found.source}, by which MMDetection "
        "numbers them; this run and its checkpoints list them in the order of the file"
    )
    return (Remark("class_order", what, "the config", len(changed), tuple(changed)),)


def read_categories(path: str | os.PathLike[str]) -> tuple[Category, ...]:
    """Read the ids and names of a COCO file's categories, in its order, if possible without parsing the whole file.

    Raises:
        ClassNameError: The file is not a COCO file.
    """
    status = os.stat(path)
    return _read_categories(os.fspath(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _read_categories(path: str, changed: int, size: int) -> tuple[Category, ...]:
    rows = _part(path) if size else None
    try:
        if rows is None:
            with open(path, "rb") as file:
                rows = json.load(file).get("categories") or []
        return tuple(Category(row["id"], str(row["name"])) for row in rows)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ClassNameError(
            f"expected a COCO file with categories in {path}, got {type(error).__name__}: {error}: name another file"
        ) from error


def _part(path: str) -> Any:
    """Read the list under the key `categories` of a file; None unless the key occurs exactly once."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        starts = [match.end() for match in _KEY.finditer(content)]
        if len(starts) != 1:
            return None
        length = _FIRST_READ
        while True:
            text = content[starts[0] : starts[0] + length].decode("utf-8", "ignore")
            try:
                return json.JSONDecoder().raw_decode(text)[0]
            except ValueError:
                if starts[0] + length >= len(content):
                    return None
                length *= 8


def wanted_classes(where: str, settings: Mapping[str, Any]) -> WantedClasses | None:
    """Return the classes that a data set reads from its file; None for all classes or another format than COCO's.

    Args:
        where: Key of the data set in the config, for messages.
        settings: Settings of the data set.

    Raises:
        ClassNameError: The classes in the config are a string that is not the path of a file.
    """
    kind = coco_class(settings.get("type"))
    names = None if kind is None else _wanted(where, settings, kind, None)
    return None if names is None else WantedClasses(names, "classes" in (settings.get("metainfo") or {}))


def coco_class(kind: Any) -> Any:
    """Return the Python class of a data set that reads files as CocoDataset does; None for other data sets.

    Args:
        kind: The class itself, or its name in MMDetection's registry.
    """
    coco = require("mmdet.datasets", "det").CocoDataset
    if isinstance(kind, str):
        kind = require("mmdet.registry", "det").DATASETS.get(kind)
    if not isinstance(kind, type) or not issubclass(kind, coco):
        return None
    own = getattr(kind, "load_data_list", None) is not coco.load_data_list
    return None if own and not kind.__name__.startswith("Objects365") else kind


def _wanted(where: str, settings: Any, kind: Any, default: tuple[str, ...] | None) -> tuple[str, ...] | None:
    metainfo = settings.get("metainfo") or {}
    classes = metainfo.get("classes", getattr(kind, "METAINFO", {}).get("classes", default))
    if isinstance(classes, str):
        if os.path.isfile(classes):
            with open(classes, encoding="utf-8") as file:
                return tuple(file.read().splitlines())
        raise ClassNameError(
            f"expected a list of names as metainfo.classes of {where}, got the text {classes!r}: write ({classes!r},), "
            "with the comma, for a single class"
        )
    return None if classes is None else tuple(map(str, classes))


def _numbers(path: str, node: Any) -> Iterator[tuple[str, int]]:
    if isinstance(node, Mapping):
        for key in ("num_classes", "num_things_classes"):
            value = node.get(key)
            if isinstance(value, int) and not isinstance(value, bool):
                yield f"{path}.{key}", value
        for key, value in node.items():
            if key not in _OTHER_CLASSES:
                yield from _numbers(f"{path}.{key}", value)
    elif isinstance(node, list | tuple):
        for where, one in listed_settings(path, node):
            yield from _numbers(where, one)


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition(".")[2]
