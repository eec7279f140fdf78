"""Folders of images inside class folders, as in Places365, are pooled with a word, and the advice on them works."""

from __future__ import annotations

from pathlib import Path

import pytest
from odd_folders import WNIDS, write_classes, write_image
from torch import nn

from dtn_det.check import inspect_path
from dtn_det.corrupted_folders.layouts import list_folder
from dtn_det.datasets.configs.folders import check_class_folders, folder_fault
from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.datasets.folders.image_files import inner_folders
from dtn_det.datasets.folders.recognise import recognise
from dtn_det.robustness.classification.class_agreement import ClassSet, check_number
from dtn_det.robustness.classification.models.classifier import Classifier, View

INNER = ("a/airfield", "a/alcove", "a/apartment_building/outdoor", "b/bar")


def model(classes: int) -> Classifier:
    network = nn.Linear(1, classes)
    return Classifier("places", "python:places", network, network, View(), {}, num_classes=classes)


def config(root: Path, classes: int) -> dict:
    dataset = {"type": "CustomDataset", "data_prefix": str(root), "with_label": True}
    head = {"type": "LinearClsHead", "num_classes": classes}
    loader = {"batch_size": 1, "dataset": dataset}
    return {"model": {"type": "ImageClassifier", "head": head}, "train_dataloader": loader}


def check_with(root: Path, classes: int) -> None:
    check_number(model(classes), ClassSet(recognise(root), list_images(root)), 32)


def lay_out(root: Path) -> None:
    """Do what the advice says."""
    for path in inner_folders(root, ("a", "b")):
        (root / path).rename(root / path.replace("/", "_"))
    for folder in sorted(root.rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def test_every_reader_tells_that_inner_folders_were_pooled(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "val", INNER)
    told = (
        "4 inner folders of images were pooled into 2 classes, those of the class folders around them; if each is a "
        "class of its own, lay them out as one folder per class, a/airfield as a_airfield"
    )
    (checked,) = inspect_path(root)
    trained = check_class_folders(config(root, 2), ["train_dataloader"])
    for remarks in (list_images(root).remarks, list_folder(root, "plain").remarks, checked.remarks, trained):
        (remark,) = remarks
        assert (remark.kind, remark.count, remark.examples) == ("pooled_folders", 4, INNER[:3])
        assert told in remark.sentence()
    assert {image.label for image in list_images(root).images} == {0, 1}
    check_with(root, 2)


def test_a_model_of_the_inner_folders_is_refused_and_the_layout_named_works(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "val", INNER)
    layout = "lay them out as one folder per class, a/airfield as a_airfield"
    with pytest.raises(ValueError, match=f"4 inner folders such as a/airfield .* around them; {layout}$"):
        check_with(root, 4)
    with pytest.raises(ValueError, match=rf"got 2 in .* with 4 inner folders of images: .*{layout}") as refused:
        check_class_folders(config(root, 4), ["train_dataloader"])
    assert "num_classes=2" not in str(refused.value)
    assert layout in folder_fault(config(root, 4), str(root))
    lay_out(root)
    check_with(root, 4)
    assert check_class_folders(config(root, 4), ["train_dataloader"]) == ()
    assert list_images(root).labels.names == ("a_airfield", "a_alcove", "a_apartment_building_outdoor", "b_bar")
    assert list_images(root).remarks == ()


def test_a_model_of_more_classes_is_never_told_to_take_empty_folders(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "val", INNER)
    with pytest.raises(ValueError, match="lay them out as one folder per class") as refused:
        check_with(root, 365)
    assert "empty folder" not in str(refused.value)
    (root / "c").mkdir()
    write_image(root / "c" / "1.png")
    with pytest.raises(ValueError, match=r"a/airfield as a_airfield$"):
        check_with(root, 5)


@pytest.mark.parametrize(
    "folders",
    [
        ("cat/images", "dog/images"),  # Tiny-ImageNet's training set
        ("cat", "dog"),
    ],
)
def test_what_is_one_class_each_needs_no_word(tmp_path: Path, folders: tuple[str, ...]) -> None:
    root = write_classes(tmp_path, folders)
    assert recognise(root).inner == ()
    assert list_images(root).remarks == ()
    check_with(root, 2)


def test_inner_folders_beside_images_are_told_too(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "val", ("cat", "cat/more", "dog"))
    (remark,) = list_images(root).remarks
    assert (remark.kind, remark.count, remark.examples) == ("pooled_folders", 1, ("cat/more",))
    layout = "lay them out as one folder per class, cat/more as cat_more"
    assert layout in remark.sentence()
    check_with(root, 2)
    with pytest.raises(ValueError, match=f"the images of 1 inner folder such as cat/more .*; {layout}$"):
        check_with(root, 3)
    (root / "cat" / "more").rename(root / "cat_more")
    check_with(root, 3)


def test_groups_of_a_corrupted_tree_are_no_inner_folders(tmp_path: Path) -> None:
    for place in ("noise/gaussian_noise/1", "noise/shot_noise/1", "weather/fog/1"):
        write_classes(tmp_path / place, WNIDS)
    found = recognise(tmp_path)
    assert (found.kind, found.inner, found.remarks) == ("corrupted", (), ())


def test_inner_folders_of_a_corrupted_tree_are_told(tmp_path: Path) -> None:
    for place in ("fog/1", "fog/2"):
        write_classes(tmp_path / place, INNER)
    found = recognise(tmp_path)
    assert (found.kind, found.inner) == ("corrupted", INNER)
    assert [remark.kind for remark in found.remarks] == ["pooled_folders"]


def test_a_link_in_a_circle_ends(tmp_path: Path) -> None:
    root = write_classes(tmp_path, ("a/x", "a/y"))
    (root / "a" / "z").symlink_to(root / "a")
    assert {"a/x", "a/y"} <= {*recognise(root).inner}
