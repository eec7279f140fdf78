"""Classes of corrupted trees that hold a part of the clean images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from odd_folders import write_classes

from dtn_det.datasets.class_folders import list_images
from dtn_det.datasets.corrupted_trees import list_tree, open_tree
from dtn_det.datasets.recognise import recognise
from dtn_det.robustness.classification_data import ClassificationRun, prepare

CELL = ("fog", 1)


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
    run = ClassificationRun((), tree, Path("store"), clean, corruptions=("fog",), severities=(1,))
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
