"""Read the paths of files and image lists, and the names of classes, from the data sets of a config."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path, PurePosixPath
from typing import Any

from dtn_det._optional import require
from dtn_det.datasets.folders.image_files import listed, subfolders
from dtn_det.errors import InputError


def innermost_settings(cfg: Mapping[str, Any], loader: str) -> Iterator[tuple[str, Any]]:
    """Yield the key and the settings of each data set of a dataloader; a wrapper is replaced by the data sets in it."""
    node = cfg.get(loader)
    yield from _datasets(f"{loader}.dataset", node.get("dataset") if isinstance(node, Mapping) else None)


def _datasets(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the key and the settings of each data set at ``path``; a wrapper is replaced by the data sets in it."""
    if not isinstance(node, Mapping):
        return
    inner = [key for key in ("dataset", "datasets") if key in node]
    if not inner:
        yield path, node
    for key in inner:
        for where, one in listed_settings(f"{path}.{key}", node[key]):
            yield from _datasets(where, one)


def evaluators(cfg: Mapping[str, Any], loader: str) -> Iterator[tuple[str, Any]]:
    """Yield the config key and the settings of each evaluator that belongs to a dataloader."""
    key = loader.replace("_dataloader", "_evaluator")
    return ((where, one) for where, one in listed_settings(key, cfg.get(key)) if isinstance(one, Mapping))


def listed_settings(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the key and the value of a setting, or of each element if it is a list; yield nothing for None."""
    if isinstance(value, Mapping):
        yield key, value
    else:
        yield from ((f"{key}.{index}", one) for index, one in enumerate(value or ()))


def data_paths(cfg: Mapping[str, Any], loader: str) -> Iterator[tuple[str, str]]:
    """Yield each annotation file and image folder of a dataloader as (data root, path), except URLs."""
    for _, dataset in innermost_settings(cfg, loader):
        root = dataset.get("data_root") or ""
        # The data_prefix is one string in configs of mmpretrain, and a dict such as dict(img=...) in MMDetection's.
        prefix = dataset.get("data_prefix") or {}
        prefixes = [prefix] if isinstance(prefix, str) else prefix.values()
        for part in (dataset.get("ann_file"), *prefixes):
            if isinstance(part, str) and part and "://" not in (path := os.path.join(root, part)):
                yield root, path
        if not prefix and (folder := class_folder(dataset)) is not None:
            yield root, folder


def other_names(cfg: Mapping[str, Any], dataloader: str, root: str, missing: str) -> str:
    """List files or folders whose names are similar to a missing one, and the option to use one of them.

    Args:
        dataloader: Key of the dataloader whose data are missing.
        root: Folder of the data set, in which similar files or folders are looked for.
        missing: The annotation file or image folder that the config names.

    Returns:
        The end of a sentence. It is empty if nothing similar exists, or if the config wraps the data set, so that there
        is no simple option.
    """
    dataset = (cfg.get(dataloader) or {}).get("dataset") or {}
    if "dataset" in dataset or "datasets" in dataset or not os.path.isdir(root):
        return ""
    annotations = dataset.get("ann_file")
    if (
        isinstance(annotations, str)
        and annotations
        and os.path.join(dataset.get("data_root") or "", annotations) == missing
    ):
        found = sorted(
            str(path.relative_to(root)) for pattern in ("*.json", "*/*.json") for path in Path(root).glob(pattern)
        )
        if not found:
            return ""
        nearest = max(found, key=lambda name: SequenceMatcher(None, name, annotations).ratio())
        options = f"{dataloader}.dataset.ann_file={nearest}"
        evaluator = dataloader.replace("_dataloader", "_evaluator")
        if isinstance(settings := cfg.get(evaluator), dict) and "ann_file" in settings:
            # The path must be absolute, because --data-root replaces the beginning of paths below the config's own
            # root.
            options += f" {evaluator}.ann_file={os.path.abspath(os.path.join(root, nearest))}"
        return f", or an annotation file that is there ({listed(found)}), such as --cfg-options {options}"
    prefixes = dataset.get("data_prefix")
    for key, prefix in prefixes.items() if isinstance(prefixes, dict) else ():
        if os.path.join(dataset.get("data_root") or "", prefix) == missing and (found := subfolders(root)):
            option = f"{dataloader}.dataset.data_prefix.{key}=FOLDER/"
            return f", or a folder that is there ({listed(found)}) by --cfg-options {option}"
    return ""


def class_folder(dataset: Mapping[str, Any]) -> str | None:
    """Return the folder that holds a data set's class folders; None if the data set does not read class folders.

    mmpretrain's ImageNet and ImageNet21k find the folder by their ``split``, unless ``meta`` has lists of images.
    """
    root, prefix = dataset.get("data_root") or "", dataset.get("data_prefix") or ""
    if isinstance(prefix, Mapping):
        prefix = prefix.get("img_path")
    if dataset.get("ann_file") or not dataset.get("with_label", True) or not isinstance(prefix, str):
        return None
    kind = classifier_dataset(dataset.get("type"))
    if kind is None or not _numbers_folders(kind):
        return None
    if split := dataset.get("split"):
        if split == "test" or os.path.exists(os.path.join(root, "meta", f"{split}.txt")):
            return None
        prefix = prefix or split
    if not (root or prefix) or "://" in root + prefix:
        return None
    return os.path.join(root, prefix)


def classifier_dataset(kind: Any) -> Any:
    """Return the Python class of a data set of mmpretrain; None for other types of data set.

    Args:
        kind: The class itself, or its name in mmpretrain's registry.
    """
    try:
        if isinstance(kind, str):
            kind = require("mmpretrain.registry", "cls").DATASETS.get(kind)
        base = require("mmpretrain.datasets", "cls").BaseDataset
    except ImportError:
        return None
    return kind if isinstance(kind, type) and issubclass(kind, base) else None


def _numbers_folders(kind: Any) -> bool:
    """Return whether a type of data set lists and numbers its class folders as mmpretrain's CustomDataset does."""
    custom = require("mmpretrain.datasets", "cls").CustomDataset
    return (
        _is_custom(kind)
        # A type with another constructor may build the path of its folder in another way.
        and kind.__init__.__module__.startswith("mmpretrain.")
        and all(getattr(kind, name) is getattr(custom, name) for name in ("load_data_list", "_find_samples"))
    )


def _is_custom(kind: Any) -> bool:
    return issubclass(kind, require("mmpretrain.datasets", "cls").CustomDataset)


def numbers_itself(dataset: Mapping[str, Any]) -> bool:
    """Return whether the type of a data set fixes its labels, as mmpretrain's CIFAR10 does."""
    kind = classifier_dataset(dataset.get("type"))
    return kind is not None and kind.__module__.startswith("mmpretrain.") and not _is_custom(kind)


def class_names(where: str, dataset: Mapping[str, Any]) -> list[str] | None:
    """Return the class names of a data set of mmpretrain: from the config, or else from its type.

    Returns:
        The names in the order of the class numbers; None if the data set names its classes after its folders.

    Raises:
        InputError: ``classes`` in the config is a text that is not the path of a file.
    """
    metainfo = dataset.get("metainfo") or {}
    if "classes" in metainfo:
        key, names = "metainfo.classes", metainfo["classes"]
    elif dataset.get("classes") is not None:
        key, names = "classes", dataset["classes"]
    else:
        key, names = "type", own_class_names(dataset)
    if isinstance(names, str):
        path = Path(names).expanduser()
        if not path.is_file():
            raise InputError(
                f"expected a list of names, or a file with a name a line, as {where}.{key}, got {names!r}: name the "
                f"file, or add --cfg-options {where}.metainfo.classes=None to take the names of the folders"
            )
        return path.read_text(encoding="utf-8").splitlines()
    return None if names is None else [str(name) for name in names]


def own_class_names(dataset: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names that are built into a type of data set, such as the 1,000 of mmpretrain's ImageNet."""
    names = (getattr(classifier_dataset(dataset.get("type")), "METAINFO", None) or {}).get("classes")
    return None if names is None else tuple(map(str, names))


def check_image_lists(cfg: Mapping[str, Any], dataloaders: Sequence[str], numbers: Mapping[str, int]) -> None:
    """Check the labels in lists such as ``meta/train.txt``, whose lines hold the path of an image and its label.

    Args:
        numbers: Numbers of classes of the model in the config, by their keys.

    Raises:
        InputError: A line has no label, a label is beyond the model's classes, or two lists give different labels to
            folders with the same name.
    """
    seen: dict[str, tuple[int, str]] = {}
    for loader, path in [(name, image_list(one)) for name in dataloaders for _, one in innermost_settings(cfg, name)]:
        if path is None or not os.path.isfile(path):
            continue
        labels: dict[str, int | None] = {}
        for number, name, label in _lines(path):
            for key, classes in numbers.items():
                if not 0 <= label < classes:
                    raise InputError(
                        f"expected labels of 0 to {classes - 1} ({key}) for {loader}, got {label} in line {number} of "
                        f"{path}: name the list of the model's classes, or change the model with --cfg-options "
                        f"{key}=NUMBER"
                    )
            folder = PurePosixPath(name).parent.name
            # A folder with images of several classes does not stand for a class.
            labels[folder] = label if labels.get(folder, label) == label else None
        for folder, label_or_none in labels.items():
            if not folder or label_or_none is None or len(labels) == 1:
                continue
            other, where = seen.setdefault(folder, (label_or_none, path))
            if other != label_or_none:
                raise InputError(
                    f"expected the label {other} for the folder {folder!r} as in {where}, got {label_or_none} in "
                    f"{path} for {loader}: number the classes of both lists alike"
                )


def image_list(dataset: Mapping[str, Any]) -> str | None:
    """Return the path of the list of images and labels that a data set of mmpretrain uses; None if it uses none."""
    kind = str(dataset.get("type")).rpartition(".")[2]
    if kind not in ("CustomDataset", "ImageNet") or not dataset.get("with_label", True):
        return None
    root, name, split = dataset.get("data_root") or "", dataset.get("ann_file") or "", dataset.get("split")
    if not name and kind == "ImageNet" and split and split != "test":
        name = os.path.join("meta", f"{split}.txt")
    if not isinstance(name, str) or not name or "://" in root + name:
        return None
    return os.path.join(root, name)


def _lines(path: str) -> Iterator[tuple[int, str, int]]:
    """Yield the line number, the image path and the label of each line."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            name, _, label = line.strip().rpartition(" ")
            try:
                yield number, name, int(label)
            except ValueError:
                raise InputError(
                    f"expected a path and a label in line {number} of {path}, got {line.strip()!r}: mend the line, or "
                    "add dataset.with_label=False"
                ) from None
