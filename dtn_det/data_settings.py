"""Where the dataloaders of a config look for their files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any


def innermost_datasets(node: Any) -> Iterator[dict[str, Any]]:
    """The innermost dataset settings of a dataloader, through wrappers such as RepeatDataset and ConcatDataset."""
    if not isinstance(node, dict):
        return
    for key in ("dataset", "datasets"):
        inner = node.get(key)
        for child in inner if isinstance(inner, list | tuple) else [inner]:
            if isinstance(child, dict):
                if "dataset" in child or "datasets" in child:
                    yield from innermost_datasets(child)
                else:
                    yield child


def data_paths(dataloader: Any) -> Iterator[tuple[str, str]]:
    """Root and path of each annotation file and image folder on this machine."""
    for dataset in innermost_datasets(dataloader):
        root = dataset.get("data_root") or ""
        # mmpretrain's folders of classes are one string, MMDetection's images are dict(img=...).
        prefix = dataset.get("data_prefix") or {}
        prefixes = [prefix] if isinstance(prefix, str) else prefix.values()
        for part in (dataset.get("ann_file"), *prefixes):
            if isinstance(part, str) and part and "://" not in (path := os.path.join(root, part)):
                yield root, path
        if not prefix and (folder := class_folder(dataset)) is not None:
            yield root, folder


def class_folder(dataset: Mapping[str, Any]) -> str | None:
    """The folder with the folders of classes of a dataset of mmpretrain, None where it has another form.

    mmpretrain's ImageNet knows them by its ``split``, unless there are lists of images in ``meta``.
    """
    root, prefix = dataset.get("data_root") or "", dataset.get("data_prefix") or ""
    kind = str(dataset.get("type")).rpartition(".")[2]
    if kind not in ("CustomDataset", "ImageNet") or dataset.get("ann_file") or not dataset.get("with_label", True):
        return None
    if kind == "ImageNet" and (split := dataset.get("split")):
        if split == "test" or os.path.exists(os.path.join(root, "meta", f"{split}.txt")):
            return None
        prefix = prefix or split
    if not isinstance(prefix, str) or not (root or prefix) or "://" in root + prefix:
        return None
    return os.path.join(root, prefix)
