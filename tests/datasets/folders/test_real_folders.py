"""Real images of ImageNet, as they come and sorted by their classes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.datasets.folders.recognise import recognise

pytest.importorskip("timm", reason="ImageNet's classes come from timm")


@pytest.fixture
def sample(shared_dir: Path) -> Path:
    folder = shared_dir / "data" / "imagenet_sample"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def test_validation_images_as_they_come_say_how_to_sort_them(sample: Path) -> None:
    assert recognise(sample / "val227").kind == "images"
    with pytest.raises(ValueError, match=r"got 'ILSVRC2012_val_\d{8}.JPEG' in .*val227 itself: sort ImageNet's"):
        list_images(sample / "val227")


def test_sorted_images_have_the_labels_of_the_authors(sample: Path, tmp_path: Path) -> None:
    wanted = {}
    for row in csv.DictReader((sample / "labels.csv").open()):
        file = sample / row["file"]
        if row["origin_split"] != "val" or not file.is_file():
            continue
        link = tmp_path / row["wnid"] / file.name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(file)
        wanted[f"{row['wnid']}/{file.name}"] = int(row["class_index"])
    assert wanted
    found = recognise(tmp_path)
    images = list_images(tmp_path)
    assert {image.key: image.label for image in images.images} == wanted
    assert (found.dataset, found.classes) == ("ImageNet", "imagenet")
    assert [(remark.kind, remark.count) for remark in images.remarks] == [
        ("part_of_the_classes", len(set(wanted.values())))
    ]
