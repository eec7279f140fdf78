"""The lists of images and labels, such as ``meta/train.txt``, that a config of mmpretrain names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from dtn_det.datasets.configs.settings import innermost_datasets
from dtn_det.errors import InputError


def check_image_lists(cfg: Mapping[str, Any], dataloaders: Sequence[str], numbers: Mapping[str, int]) -> None:
    """Check the labels in lists such as ``meta/train.txt``, whose lines hold the path of an image and its label.

    Args:
        cfg: The config.
        dataloaders: Keys such as ``"train_dataloader"``.
        numbers: The number of classes at each key of the config that states it for the model.

    Raises:
        InputError: A line has no label, a label is beyond the model's classes, or two lists give different labels to
            folders with the same name.
    """
    seen: dict[str, tuple[int, str]] = {}
    for loader, dataset in [(name, dataset) for name in dataloaders for dataset in innermost_datasets(cfg.get(name))]:
        path = image_list(dataset)
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
