"""Folders with the English names of ImageNet's classes are not numbered in their own order for a model of ImageNet."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from odd_folders import link_classes
from torch import nn

pytest.importorskip("timm", reason="ImageNet's classes and their names come from timm")

from timm.data import ImageNetInfo

from dtn_det.check import inspect_path
from dtn_det.check.model import read_target
from dtn_det.datasets.folders import label_maps
from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.datasets.folders.label_maps import has_english_names, imagenet_wnids, names_of_two_classes
from dtn_det.datasets.folders.recognise import recognise
from dtn_det.robustness.classification.class_agreement import ClassSet, align, check_number
from dtn_det.robustness.classification.models.classifier import Classifier, View

CRANES = "'crane' may be n02012849 or n03126707, 'crane_2' may be n02012849 or n03126707"


def english() -> dict[str, str]:
    """Wnids by names as downloaders make them: one word, and each once."""
    info, found = ImageNetInfo(), {}
    for wnid in imagenet_wnids():
        name = re.sub("[^A-Za-z]+", "_", info.label_name_to_description(wnid).split(",")[0])
        found[name if name not in found else f"{name}_2"] = wnid
    return found


NAMES = english()


def model(classes: int, names: tuple[str, ...] = ()) -> Classifier:
    network = nn.Linear(1, classes)
    return Classifier("net", "python:net", network, network, View(), {}, num_classes=classes, class_names=names)


def load(root: Path, classes: str | None = None, number: int = 1000, names: tuple[str, ...] = ()) -> ClassSet:
    found = ClassSet(recognise(root), list_images(root, classes))
    check_number(model(number, names), found, 32)
    align(model(number, names), found)
    return found


def rename(root: Path) -> None:
    for folder in sorted(root.iterdir()):
        folder.rename(root / NAMES[folder.name])


def test_a_thousand_folders_are_refused_and_both_ways_named_work(tmp_path: Path) -> None:
    assert len(NAMES) == 1000
    root = link_classes(tmp_path / "val", NAMES, "1.png")
    message = r"expected wnids such as n02012849 .* whose order is not that of its classes: rename the folders to wnids"
    with pytest.raises(ValueError, match=rf"{message}.*{CRANES}.*take --classes sorted"):
        load(root)
    (checked,) = inspect_path(root, target=read_target("timm:resnet10t"))
    assert checked.fits is False
    assert re.search(message, checked.problems[0])
    assert load(root, "sorted").images.labels.numbers["tench"] == sorted(NAMES).index("tench")
    # A model that names its classes by words answers by name.
    load(root, names=tuple(NAMES))
    rename(root)
    assert load(root).images.labels.numbers["n01440764"] == 0
    (checked,) = inspect_path(root, target=read_target("timm:resnet10t"))
    assert checked.fits is True


def test_a_part_of_the_classes_is_not_filled_up_with_empty_folders(tmp_path: Path) -> None:
    root = link_classes(tmp_path / "val", sorted(NAMES)[:900:75], "1.png")
    with pytest.raises(ValueError, match="rename the folders to wnids") as refused:
        load(root)
    assert "empty folder" not in str(refused.value)
    assert "--classes" not in str(refused.value)
    load(root, number=12)
    (checked,) = inspect_path(root, target=read_target("timm:resnet10t"))
    assert "rename the folders to wnids" in checked.problems[0]
    assert checked.fits is False
    rename(root)
    load(root)


def test_nine_of_ten_names_tell() -> None:
    names = [
        "Tench",
        "gold-fish",
        "great white shark",
        "tiger_shark",
        "hammerhead",
        "cock",
        "hen",
        "ostrich",
        "brambling",
    ]
    assert not has_english_names(names)
    assert has_english_names([*names, "something"])
    assert not has_english_names([*names[:8], "something", "other"])
    assert names_of_two_classes(["tench", "Cardigan", "cardigan"]) == {}
    assert names_of_two_classes(["maillot"]) == {"maillot": ("n03710637", "n03710721")}


def test_nothing_is_claimed_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: str) -> None:
        raise ImportError("no timm")

    monkeypatch.setattr(label_maps, "require", missing)
    label_maps.wnids_by_name.cache_clear()
    assert not has_english_names(list(NAMES))
    label_maps.wnids_by_name.cache_clear()
