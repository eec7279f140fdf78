"""Classes of corrupted trees that hold a part of the clean images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from odd_folders import write_classes

from dtn_det.cli.main import main
from dtn_det.corrupted_folders.reading import list_tree, open_tree
from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.datasets.folders.recognise import recognise
from dtn_det.robustness.classification.data import prepare
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.store.manifest import differences

CELL = ("fog", 1)
FEW = {"corruptions": ("fog",), "severities": (1,)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Of the classes ant, bee and cat, without bee."""
    write_classes(tmp_path / "tree" / "fog" / "1", ("ant", "cat"), size=(224, 224))
    return tmp_path / "tree"


def write_manifest(tree: Path, **values: object) -> None:
    content = {"version": 1, "identity": "coco-c no-jpeg rgb seed=0", "num_images": 6, **values}
    (tree / "corruptions.json").write_text(json.dumps(content))


def test_the_tree_tells_all_classes(tree: Path) -> None:
    write_manifest(tree, classes=["ant", "bee", "cat"])
    images, _ = list_tree(open_tree(recognise(tree)), [CELL])
    assert {image.key.partition("/")[0]: image.label for image in images.images} == {"ant": 0, "cat": 2}
    assert images.num_classes == 3


def test_the_clean_images_tell_all_classes(tmp_path: Path, tree: Path) -> None:
    clean = write_classes(tmp_path / "clean", ("ant", "bee", "cat"))
    run = ClassificationOptions(models=(), data=tree, store=Path("store"), clean=clean, **FEW)
    images = prepare(run).images
    assert {image.key.partition("/")[0]: image.label for image in images.images} == {"ant": 0, "cat": 2}


def test_a_part_that_tells_no_classes_is_refused(tmp_path: Path, tree: Path) -> None:
    write_manifest(tree)
    with pytest.raises(ValueError, match=r"got 4 of 6: write it again with the same `dtn-det corrupt` command, which"):
        list_tree(open_tree(recognise(tree)), [CELL])
    clean = list_images(write_classes(tmp_path / "clean", ("ant", "bee", "cat")))
    assert list_tree(open_tree(recognise(tree)), [CELL], clean=clean)[0].num_classes == 3


def test_other_classes_than_the_clean_ones_are_named(tree: Path) -> None:
    write_manifest(tree, classes=["ant", "bee"])
    with pytest.raises(ValueError, match=r"the clean images have too \(ant, bee\), got 'cat' besides: move them away"):
        list_tree(open_tree(recognise(tree)), [CELL])


def write_half(tmp_path: Path, *options: str) -> tuple[Path, Path]:
    """Six clean images, and a tree of those that ``dtn-det corrupt`` took with the options."""
    clean, tree = write_classes(tmp_path / "clean", ("ant", "bee", "cat"), size=(32, 32)), tmp_path / "half"
    arguments = ["--corruptions", "fog", "--severities", "1", "--workers", "1", "--yes", *options]
    assert main(["corrupt", str(clean), str(tree), *arguments]) == 0
    return clean, tree


def run_on(data: Path, clean: Path | None = None, **options: int) -> ClassificationOptions:
    return ClassificationOptions(models=(), data=data, store=Path("store"), clean=clean, **FEW, **options)


@pytest.mark.usefixtures("in_process")
def test_a_tree_of_a_part_is_called_as_the_part_that_is_corrupted_on_the_fly(tmp_path: Path) -> None:
    clean, tree = write_half(tmp_path, "--limit", "4", "--seed", "3")
    here = prepare(run_on(clean, limit=4, limit_seed=3)).images
    there = prepare(run_on(tree, clean))
    assert [image.key for image in there.images.images] == [image.key for image in here.images]
    assert there.images.selection == here.selection == "limit=4 of 6 seed=3"
    (remark,) = (remark for remark in there.remarks if remark.kind == "unused_clean")
    assert remark.count == 2
    assert remark.sentence().endswith("2 clean images out of 6 have no corrupted ones in the tree and were left out")
    assert not [remark for remark in prepare(run_on(tree)).remarks if remark.kind == "unused_clean"]
    assert prepare(run_on(tree, limit=2)).images.selection == "limit=2 of 4 seed=0 in the tree, of 6 clean images"


@pytest.mark.usefixtures("in_process")
def test_a_tree_of_all_images_is_whole(tmp_path: Path) -> None:
    clean, tree = write_half(tmp_path, "--limit", "6")
    prepared = prepare(run_on(tree, clean))
    assert prepared.images.selection == "all"
    assert not [remark for remark in prepared.remarks if remark.kind == "unused_clean"]


@pytest.mark.usefixtures("in_process")
def test_a_tree_is_continued_with_a_higher_limit(tmp_path: Path) -> None:
    write_half(tmp_path, "--limit", "4")
    arguments = ["--corruptions", "fog", "--severities", "1", "--workers", "1", "--yes"]
    assert main(["corrupt", str(tmp_path / "clean"), str(tmp_path / "half"), *arguments]) == 0
    assert prepare(run_on(tmp_path / "half")).images.selection == "all"
    assert main(["corrupt", str(tmp_path / "clean"), str(tmp_path / "half"), *arguments, "--limit", "2"]) == 0
    assert prepare(run_on(tmp_path / "half")).images.selection == "all"


def test_a_part_of_unknown_choice_is_still_a_part(tree: Path) -> None:
    write_manifest(tree, classes=["ant", "bee", "cat"])
    assert prepare(run_on(tree)).images.selection == "4 of 6 in the tree"


def test_stores_that_called_a_part_all_are_continued() -> None:
    old = {"data_hash": "1", "selection": "all"}
    assert not differences(old, {"data_hash": "1", "selection": "limit=4 of 6 seed=0"})
    assert len(differences(old, {"data_hash": "2", "selection": "limit=4 of 6 seed=0"})) == 2
    assert differences({**old, "selection": "limit=4 of 6 seed=0"}, old)
