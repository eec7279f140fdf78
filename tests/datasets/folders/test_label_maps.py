"""Classes by the names of their folders, and files by their whole names."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
from odd_folders import WNIDS, link_classes, write_classes, write_image
from PIL import Image

from dtn_det.corrupted_folders.reading import match_clean
from dtn_det.corruptions.image import read_image
from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.datasets.folders.label_maps import imagenet_wnids, natural_order
from dtn_det.datasets.sets import list_set
from dtn_det.errors import BadImageError

pytest.importorskip("timm", reason="ImageNet's classes come from timm")


def labels(root: Path, classes: str | None = None) -> dict[str, int]:
    return {image.key.partition("/")[0]: image.label for image in list_images(root, classes).images}


def write_validation(root: Path, order: Callable[[int], int]) -> Path:
    """A few of ImageNet's validation images, in folders named by what becomes of their first Real label."""
    lists = json.loads((resources.files("timm.data") / "_info" / "imagenet_real_labels.json").read_text())
    for number, right in enumerate(lists[:60], 1):
        if right:
            write_image(root / str(order(right[0])) / f"ILSVRC2012_val_{number:08}.JPEG", (64, 64))
    return root


def test_numbered_folders_of_validation_images_are_held_against_their_real_labels(tmp_path: Path) -> None:
    images = list_set(write_validation(tmp_path / "training", lambda label: label))
    assert images.num_classes == 1000
    assert all(image.label == int(Path(image.path).parent.name) for image in images.images)
    other = write_validation(tmp_path / "devkit", lambda label: (label * 7 + 3) % 1000)
    with pytest.raises(
        ValueError, match=r"in the order of training in .*devkit, got 0 of \d+ images in the folder of one"
    ):
        list_set(other)


@pytest.mark.parametrize("padded", [False, True])
def test_folders_named_by_numbers_are_the_classes_of_these_numbers(tmp_path: Path, padded: bool) -> None:
    names = [f"{number:04}" if padded else str(number) for number in range(12)]
    write_classes(tmp_path, names)
    images = list_images(tmp_path)
    assert labels(tmp_path) == {name: int(name) for name in names}
    assert images.num_classes == 12
    assert [remark.kind for remark in images.remarks] == ([] if padded else ["numbered_folders"])
    # As torchvision's ImageFolder and mmpretrain do, for models that were trained so.
    assert labels(tmp_path, "sorted") == {name: place for place, name in enumerate(sorted(names))}


def test_a_thousand_numbers_are_those_of_imagenet(tmp_path: Path) -> None:
    images = list_images(link_classes(tmp_path / "v2", map(str, range(1000)), "x.jpeg"))
    assert images.labels.classes == "imagenet"
    assert images.labels.names == imagenet_wnids()
    assert all(image.label == int(image.key.partition("/")[0]) for image in images.images)


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (
            ["0", "1", "3"],
            None,
            r"expected folders named 0 to 2 for 3 classes in .*, got none for '2', and '0', '1', '3'",
        ),
        (
            ["0", "90", "270"],
            None,
            r"expected folders named 0 to 2 .* make an empty folder for each class that has no images, or number .* 2 "
            r"before 10 as timm does with --classes natural, or 10 before 2 as torchvision .* with --classes sorted; w",
        ),
        (["1", "3"], None, r"expected folders named 1 to 2 for 2 classes in .*, got none for '2', and '1', '3'"),
        (
            ["1", "01", "0"],
            None,
            r"expected one folder for class 1 in .*, got '01' and '1': move the images of one into",
        ),
        (["7", "1000"], "imagenet", r"expected folders named 0 to 999 for ImageNet's classes in .*, got '1000'"),
    ],
)
def test_numbers_that_are_no_classes_are_refused(tmp_path: Path, names: list[str], classes: str, message: str) -> None:
    write_classes(tmp_path, names)
    with pytest.raises(ValueError, match=message):
        list_images(tmp_path, classes)
    assert len(list_images(tmp_path, "sorted").images) == 2 * len(names)
    if "01" not in names:
        assert list_images(tmp_path, "natural").labels.names == tuple(sorted(names, key=int))


def test_numbers_from_one_on_are_the_classes_in_their_order(tmp_path: Path) -> None:
    names = [str(number) for number in range(1, 13)]
    write_classes(tmp_path, names)
    assert labels(tmp_path) == {name: int(name) - 1 for name in names}
    (remark,) = list_images(tmp_path).remarks
    assert remark.sentence() == (
        f"{tmp_path}: 12 folders are numbered from 1 on: '10' is class 9 (--classes sorted numbers them otherwise, "
        "as torchvision's ImageFolder, DeiT and mmpretrain do)"
    )
    assert labels(tmp_path, "natural") == labels(tmp_path)
    assert labels(tmp_path, "sorted") == {name: place for place, name in enumerate(sorted(names))}
    (remark,) = list_images(tmp_path, "sorted").remarks
    assert remark.sentence() == (
        f"{tmp_path}: 12 folders are numbered by the text order of their names, in which '10' is before '2': '10' is "
        "class 1 (--classes natural numbers them otherwise, as timm's training does)"
    )


def test_numbers_with_gaps_are_told_by_their_natural_order(tmp_path: Path) -> None:
    (remark,) = list_images(write_classes(tmp_path, ("0", "90", "270")), "natural").remarks
    assert remark.what.startswith(
        "folders are numbered by the natural order of their names, in which '90' is before '270': '270' is class 2 ("
    )


def test_padded_numbers_from_one_on_have_one_order(tmp_path: Path) -> None:
    write_classes(tmp_path, [f"{number:02}" for number in range(1, 13)])
    (remark,) = list_images(tmp_path).remarks
    assert remark.sentence() == f"{tmp_path}: 12 folders are numbered from 1 on: '01' is class 0"


@pytest.mark.parametrize("classes", [None, "folder", "imagenet"])
def test_the_numbers_of_imagenets_devkit_are_refused(tmp_path: Path, classes: str | None) -> None:
    link_classes(tmp_path / "val", map(str, range(1, 1001)), "x.jpeg")
    with pytest.raises(ValueError, match=r"got 1 to 1000: the devkit of ILSVRC2012 .* valprep.sh .* --classes natural"):
        list_images(tmp_path / "val", classes)
    images = list_images(tmp_path / "val", "natural")
    assert all(image.label == int(image.key.partition("/")[0]) - 1 for image in images.images)
    (remark,) = images.remarks
    assert remark.what.startswith("folders are numbered from 1 on: '10' is class 9")
    assert "ImageNet's devkit numbers its classes so" in remark.what


def test_natural_order_is_that_of_timms_training() -> None:
    natural_key = pytest.importorskip("timm.utils.misc").natural_key
    names = ["class10", "Class2", "b", "A", "a10b2", "a10b10", "a9", "007x", "8", "x\u0663", "x10", "_"]
    assert natural_order(names) == sorted(names, key=natural_key)
    # No number to Python, though a digit to Unicode.
    assert natural_order(["\u00b2b", "a"]) == ["a", "\u00b2b"]


@pytest.mark.parametrize(
    ("classes", "order", "words"),
    [
        ("sorted", ["c1", "c10", "c2"], "text order of their names, in which 'c10' is before 'c2' (--classes natural"),
        ("natural", ["c1", "c2", "c10"], "natural order of their names, in which 'c2' is before 'c10' (--classes sort"),
    ],
)
def test_an_order_that_was_asked_for_is_told_with_the_other(
    tmp_path: Path, classes: str, order: list[str], words: str
) -> None:
    write_classes(tmp_path, order)
    images = list_images(tmp_path, classes)
    assert images.labels.names == tuple(order)
    assert labels(tmp_path, classes) == {name: place for place, name in enumerate(order)}
    (remark,) = images.remarks
    assert words in remark.what


def test_one_name_in_two_forms_is_one_class(tmp_path: Path) -> None:
    write_classes(tmp_path, ("caf\u00e9", "cafe\u0301", "bar"))
    with pytest.raises(ValueError, match=r"got 'cafe\\u0301' and 'caf\\xe9', one name in two forms of Unicode"):
        list_images(tmp_path)


def test_an_empty_class_folder_keeps_its_number(tmp_path: Path) -> None:
    write_classes(tmp_path, ("ant", "cat"))
    (tmp_path / "bee").mkdir()
    images = list_images(tmp_path)
    assert labels(tmp_path) == {"ant": 0, "cat": 2}
    assert images.num_classes == 3
    (remark,) = images.remarks
    assert remark.sentence() == f"{tmp_path}: 1 class folder without images keeps its number (bee)"


def test_a_part_of_imagenets_classes_is_told(tmp_path: Path) -> None:
    (remark,) = list_images(write_classes(tmp_path, WNIDS)).remarks
    assert remark.partial
    assert remark.sentence() == f"{tmp_path}: 4 of ImageNet's 1,000 classes have images"


def test_images_of_all_endings_are_read_and_others_counted(tmp_path: Path) -> None:
    files = ["a.jpg", "b.ppm", "c.jfif", "d.jpe", "e.jp2", "f.gif", "g.BMP", "h.tif", "i.webp", "j.png"]
    write_classes(tmp_path, ("cat",), files)
    for name in ("boxes.txt", "notes.json", "more.txt", "Thumbs.db", "._a.jpg", ".DS_Store"):
        (tmp_path / "cat" / name).touch()
    images = list_images(tmp_path)
    assert [image.key for image in images.images] == sorted(f"cat/{file}" for file in files)
    for image in images.images:
        assert read_image(Path(image.path), upright=False).size == (40, 36)
    (remark,) = images.remarks
    assert remark.sentence() == (
        f"{tmp_path}: 3 files that do not end like images were passed over: 2 .txt, 1 .json (cat/boxes.txt, "
        "cat/notes.json)"
    )


@pytest.mark.parametrize("ending", [".gif", ".tif"])
def test_several_pictures_in_a_file_are_refused(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "green", "blue")]
    path = tmp_path / f"film{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(BadImageError, match="expected one picture, got 3 in the file: keep the one that is meant"):
        read_image(path, upright=False)


def test_two_images_of_one_stem_are_matched_by_their_endings(tmp_path: Path) -> None:
    write_classes(tmp_path / "clean", ("cat", "dog"), ("1.jpg", "1.png"))
    write_classes(tmp_path / "tree", ("cat", "dog"), ("1.jpg", "1.png"))
    found = match_clean(list_images(tmp_path / "tree"), list_images(tmp_path / "clean"), tmp_path / "clean")
    assert {key: Path(path).name for key, path in found.items()} == {
        f"{name}/{file}": file for name in ("cat", "dog") for file in ("1.jpg", "1.png")
    }


def test_another_ending_is_matched_only_without_doubt(tmp_path: Path) -> None:
    tree = list_images(write_classes(tmp_path / "tree", ("cat",), ("1.jpeg",)))
    clean = write_classes(tmp_path / "clean", ("cat",), ("1.png",))
    assert match_clean(tree, list_images(clean), clean) == {"cat/1.jpeg": str(clean / "cat" / "1.png")}
    write_image(clean / "cat" / "1.jpg")
    with pytest.raises(
        ValueError, match=r"expected one clean image for cat/1.jpeg in .*, got 'cat/1.jpg', 'cat/1.png'"
    ):
        match_clean(tree, list_images(clean), clean)


def test_two_corrupted_images_do_not_share_a_clean_one(tmp_path: Path) -> None:
    tree = list_images(write_classes(tmp_path / "tree", ("cat",), ("1.jpg", "1.png")))
    clean = write_classes(tmp_path / "clean", ("cat",), ("1.png",))
    with pytest.raises(ValueError, match=r"for each of 'cat/1.jpg', 'cat/1.png', got one for all: give the corrupted"):
        match_clean(tree, list_images(clean), clean)
