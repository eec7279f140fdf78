"""A model whose classes are not those of the data is refused before the run, or answers by name."""

from __future__ import annotations

import argparse
import dataclasses
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from class_folders import WNIDS, write_folders
from torch import nn

from dtn_det.datasets.folders.class_folders import list_images
from dtn_det.datasets.folders.recognise import recognise
from dtn_det.robustness.classification.class_agreement import ClassSet, align, check_number
from dtn_det.robustness.classification.data import prepare
from dtn_det.robustness.classification.models.classifier import Classifier, View
from dtn_det.robustness.classification.models.loading import load_classifiers
from dtn_det.robustness.classification.models.timm import class_order
from dtn_det.robustness.options import ClassificationOptions


class Place(nn.Module):
    """Says that every image is of the same class."""

    def __init__(self, classes: int, place: int = 0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(classes).index_fill_(0, torch.tensor(place), 9.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


def model(classes: int, names: Sequence[str] = (), place: int = 0, num_classes: int | None = None) -> Classifier:
    network = Place(classes, place)
    return Classifier(
        "place", "python:place", network, network, View(), {}, num_classes=num_classes, class_names=tuple(names)
    )


def classes_of(root: Path, classes: str | None = None) -> ClassSet:
    return ClassSet(recognise(root), list_images(root, classes))


def test_the_right_number_passes_said_or_counted(tmp_path: Path) -> None:
    classes = classes_of(write_folders(tmp_path, ("ant", "bee")))
    check_number(model(2), classes, 32)
    check_number(model(2, num_classes=2), classes, 32)


def test_clean_images_of_more_classes_than_the_tree_are_named_and_not_the_model(tmp_path: Path) -> None:
    write_folders(tmp_path / "tree" / "fog" / "1", ("ant", "bee"), side=32)
    clean = write_folders(tmp_path / "clean", ("ant", "bee", "cat", "dog"), side=32)
    options = ClassificationOptions(
        models=(), data=tmp_path / "tree", store=tmp_path / "store", clean=clean, corruptions=["fog"], severities=[1]
    )
    prepared = prepare(options)
    classes = ClassSet(prepared.found, prepared.images, options.clean)
    check_number(model(4), classes, 32)
    told = r"expected the classes of .*tree alone in .*clean, .* got 2 folders more \('cat', 'dog'\) where the model "
    with pytest.raises(ValueError, match=told + "'place' has 2 classes: name a folder of clean images of these"):
        check_number(model(2), classes, 32)
    with pytest.raises(ValueError, match=r"expected a model of 4 classes for .* got 3 classes in 'place'"):
        check_number(model(3), classes, 32)


@pytest.mark.parametrize("said", [False, True])
@pytest.mark.parametrize(
    ("folders", "classes", "number", "message"),
    [
        (WNIDS, None, 4, r"of 1,000 classes for 4 class folders .* got 4 classes in 'place': take --classes folder"),
        (WNIDS, "folder", 1000, r"of 4 classes for .* got 1,000 classes in 'place': take --classes imagenet"),
        (tuple("abcdef"), None, 1000, r"expected a model of 6 classes for 6 class folders named by words \(a, b, c and "
         r"3 more\) in .* \(numbered by the folders' names\), got 1,000 classes in 'place': name a model of these"),
        (("0", "1", "2"), None, 1000, r"expected a model of 3 classes for 3 class folders named by whole numbers"),
        (WNIDS, None, 21843, r"got 21,843 classes in 'place': name a model of these classes"),
    ],
)  # fmt: skip
def test_another_number_is_refused_with_what_to_do(
    tmp_path: Path, folders: Sequence[str], classes: str | None, number: int, message: str, said: bool
) -> None:
    found = classes_of(write_folders(tmp_path, folders), classes)
    with pytest.raises(ValueError, match=message):
        check_number(model(number, num_classes=number if said else None), found, 32)


def test_a_checkpoint_of_the_folders_alone_names_the_option_that_works(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    root = write_folders(tmp_path / "data", WNIDS)
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("resnet10t", num_classes=4).state_dict(), path)
    source = f"timm:resnet10t@{path}"
    with pytest.raises(ValueError, match=r"got 4 classes in '.*weights.pth': take --classes folder"):
        load_classifiers([source], None, classes_of(root), 32)
    (loaded,), remarks = load_classifiers([source], None, classes_of(root, "folder"), 32)
    assert (loaded.num_classes, remarks) == (4, ())


def answer(one: Classifier) -> int:
    return int(one.forward(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).argmax())


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("ant", "bee", "cat"), ("cat", "ant", "bee")),
        (("Zebra", "ant", "bee"), ("ant", "bee", "zebra")),
        (("caf\u00e9", "zoo", "bar"), ("bar", unicodedata.normalize("NFD", "caf\u00e9"), "zoo")),
        (("polar_bear", "ant"), ("polar bear", "ant")),
        (tuple(map(str, range(12))), tuple(sorted(map(str, range(12))))),
    ],
    ids=["order", "case", "forms", "blanks", "text order of numbers"],
)
def test_answers_are_taken_by_name(tmp_path: Path, folders: Sequence[str], names: Sequence[str]) -> None:
    classes = classes_of(write_folders(tmp_path, folders, per_class=1))
    plain = {unicodedata.normalize("NFC", name).lower().replace("_", " "): number
             for number, name in enumerate(classes.images.labels.names)}  # fmt: skip
    for place, name in enumerate(names):
        aligned, remarks = align(model(len(names), names, place), classes)
        assert answer(aligned) == plain[unicodedata.normalize("NFC", name).lower()]
    moved = [name for place, name in enumerate(names) if plain[unicodedata.normalize("NFC", name).lower()] != place]
    assert [remark.count for remark in remarks] == ([len(moved)] if moved else [])


def test_names_that_say_nothing_of_each_other_are_left_alone(tmp_path: Path) -> None:
    classes = classes_of(write_folders(tmp_path, ("0", "1")))
    one = model(2, ("cat", "dog"))
    assert align(one, classes) == (one, ())


def test_other_names_are_refused_and_the_option_named_works(tmp_path: Path) -> None:
    root = write_folders(tmp_path, ("ant", "bee"))
    one = model(2, ("cow", "dog"))
    message = (
        r"as its checkpoint names them, in .*, got 'ant', 'bee' in place of 'cow', 'dog': rename .* --classes sort"
    )
    with pytest.raises(ValueError, match=message):
        align(one, classes_of(root))
    assert align(one, classes_of(root, "sorted")) == (one, ())


def test_folders_of_which_some_are_the_models_are_never_numbered_by_order(tmp_path: Path) -> None:
    root = write_folders(tmp_path, ("bee", "cat", "dog"))
    one = model(3, ("ant", "bee", "cat"), place=1)
    advice = (
        "got 'dog' in place of 'ant': leave out the folder 'dog', which the model does not know, and make an empty "
        "folder 'ant', or rename it where the class is the same"
    )
    with pytest.raises(ValueError, match=f"{advice}$"):
        align(one, classes_of(root))
    (root / "dog").rename(tmp_path.parent / f"{tmp_path.name}_dog")
    (root / "ant").mkdir()
    classes = classes_of(root)
    assert align(one, classes) == (one, ())
    assert classes.images.labels.names[answer(one)] == "bee"
    # All of this is so after the other advice, too.
    (root / "ant").rmdir()
    (tmp_path.parent / f"{tmp_path.name}_dog").rename(root / "ant")
    assert align(one, classes_of(root)) == (one, ())


def test_several_folders_that_the_model_does_not_know_are_named(tmp_path: Path) -> None:
    root = write_folders(tmp_path, ("bee", "cow", "dog"), per_class=1)
    message = "leave out the folders 'cow', 'dog', .* make empty folders 'ant', 'cat', or rename them where the class"
    with pytest.raises(ValueError, match=message):
        align(model(3, ("ant", "bee", "cat")), classes_of(root))


@pytest.mark.parametrize("order", ["sorted", "natural"])
def test_an_order_that_contradicts_names_of_the_model_is_told(tmp_path: Path, order: str) -> None:
    root = write_folders(tmp_path, ("bee", "cat", "dog"), per_class=1)
    one = model(3, ("ant", "bee", "cat"))
    same, (remark,) = align(one, classes_of(root, order))
    assert same == one
    assert (remark.kind, remark.count, remark.examples) == ("names_contradicted", 3, ("bee", "cat", "dog"))
    assert f"3 folders count as a class of another name of place by --classes {order}, such as 'bee' as 'ant'" in (
        remark.sentence()
    )
    _, (remark,) = align(model(3, ("bee", "cat", "ant")), classes_of(root, order))
    assert (remark.count, remark.examples) == (1, ("dog",))
    assert align(model(3, ("Bee", "cat", "dog")), classes_of(root, order))[1] == ()


def test_classes_in_a_checkpoint_of_mmpretrain(tmp_path: Path) -> None:
    from mmengine.config import Config

    from dtn_det.robustness.classification.models.mmpretrain import _class_names

    dataset = {"type": "CustomDataset", "classes": ["bee", "ant"]}
    config = Config({"train_dataloader": {"dataset": {"type": "RepeatDataset", "times": 2, "dataset": dataset}}})
    assert _class_names(config, {"meta": {"dataset_meta": {"classes": ("a", "b")}}}, 2, "a.pth") == (("a", "b"), ())
    assert _class_names(config, {"meta": {"CLASSES": ["a", "b"]}}, None, "a.pth") == (("a", "b"), ())
    assert _class_names(config, {"meta": {"epoch": 3}}, 2, "a.pth") == (("bee", "ant"), ())
    assert _class_names(Config({}), {}, 2, "a.pth") == ((), ())
    names, (remark,) = _class_names(config, {"meta": {"CLASSES": ["a", "b", "c"]}}, 2, "a.pth")
    assert (names, remark.kind, remark.count) == (("bee", "ant"), "names_left_out", 3)


def test_names_of_another_number_than_the_logits_are_as_if_there_were_none(tmp_path: Path) -> None:
    classes = classes_of(write_folders(tmp_path, TWELVE))
    found, (left_out, in_doubt) = align(model(12, ("cat", "dog")), classes)
    assert (left_out.kind, left_out.count, left_out.where) == ("names_left_out", 2, "place")
    assert in_doubt.kind == "order_in_doubt"
    assert found.training["class names"] == "2 in the file, left out"


TWELVE = tuple(f"class{number}" for number in range(1, 13))


def test_timms_training_numbers_folders_naturally(tmp_path: Path) -> None:
    classes = classes_of(write_folders(tmp_path, TWELVE))
    # Its second class is class2, the fifth in text order.
    one = dataclasses.replace(model(12, place=1), class_order="natural")
    aligned, (remark,) = align(one, classes)
    assert answer(aligned) == classes.images.labels.numbers["class2"] == 4
    assert aligned.protocol["class_order"] == "natural"
    assert aligned.training == {"class order": "natural order, that of timm's training"}
    assert remark.sentence() == (
        f"{tmp_path}: 12 classes of place, a checkpoint of timm's training, were numbered by the natural order of their"
        " names, in which 'class2' is before 'class10'"
    )
    natural = classes_of(tmp_path, "natural")
    assert align(one, natural) == (one, ())
    assert natural.images.labels.numbers["class2"] == 1
    _, (remark,) = align(one, classes_of(tmp_path, "sorted"))
    assert "was trained on folders in the natural order" in remark.what
    assert "--classes natural" in remark.what


def test_an_order_that_nobody_tells_is_told_with_the_other(tmp_path: Path) -> None:
    classes = classes_of(write_folders(tmp_path, TWELVE))
    one = model(12)
    same, (remark,) = align(one, classes)
    assert same.forward is one.forward
    assert same.training == {"class order": "text order, for the checkpoint tells none"}
    assert remark.what == (
        "orders of classes are possible for place, which does not tell its own: taken was the text order of their "
        "names, in which 'class10' is before 'class2' (torchvision, mmpretrain; --classes sorted), and not the natural "
        "order of their names, in which 'class2' is before 'class10' (timm; --classes natural)"
    )
    for chosen in ("sorted", "natural"):
        assert align(one, classes_of(tmp_path, chosen)) == (one, ())
    by_mmpretrain = dataclasses.replace(one, class_order="sorted")
    assert align(by_mmpretrain, classes) == (by_mmpretrain, ())


def test_names_of_one_order_need_no_word(tmp_path: Path) -> None:
    for order in ("", "natural", "sorted"):
        one = dataclasses.replace(model(3), class_order=order)
        assert align(one, classes_of(write_folders(tmp_path, ("ant", "bee", "cat")))) == (one, ())


TIMMS = {"epoch": 3, "arch": "vit", "version": 2}


@pytest.mark.parametrize(
    ("content", "order"),
    [
        (TIMMS, "natural"),
        ({**TIMMS, "args": argparse.Namespace(dataset="", class_map="")}, "natural"),
        ({**TIMMS, "args": {"dataset": "folder"}}, "natural"),
        ({**TIMMS, "args": argparse.Namespace(dataset="torch/image_folder")}, "sorted"),
        ({**TIMMS, "args": argparse.Namespace(dataset="torch/cifar10")}, ""),
        ({**TIMMS, "args": argparse.Namespace(dataset="tfds/imagenet2012")}, ""),
        ({**TIMMS, "args": argparse.Namespace(dataset="", class_map="map.txt")}, ""),
        ({"epoch": 3, "arch": "vit", "best_acc1": 70.0}, ""),
        ({}, ""),
    ],
)
def test_what_timms_training_writes_tells_the_order(content: dict, order: str) -> None:
    pytest.importorskip("timm")
    assert class_order(content) == order


def test_a_checkpoint_of_timms_training_brings_its_order(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    classes = classes_of(write_folders(tmp_path / "val", TWELVE))
    state = timm.create_model("test_vit", num_classes=12).state_dict()
    torch.save({**TIMMS, "state_dict": state}, tmp_path / "best.pth.tar")
    torch.save({"state_dict": state}, tmp_path / "bare.pth")
    kinds = []
    for name in ("best.pth.tar", "bare.pth"):
        (one,), remarks = load_classifiers([f"timm:test_vit@{tmp_path / name}"], ["m"], classes, 160)
        kinds.append([remark.kind for remark in remarks])
        image = torch.randint(256, (1, 3, 160, 160), dtype=torch.uint8)
        with torch.inference_mode():
            raw = load_classifiers(
                [f"timm:test_vit@{tmp_path / name}"], ["m"], classes_of(tmp_path / "val", "natural"), 160
            )
            theirs, ours = raw[0][0].forward(image), one.forward(image)
        numbers = classes.images.labels.numbers
        if name == "best.pth.tar":
            assert [ours[0, numbers[key]] for key in TWELVE] == [theirs[0, place] for place in range(12)]
        else:
            assert torch.equal(ours, theirs)
    assert kinds == [["order_of_training"], ["order_in_doubt"]]


def test_an_empty_folder_stands_for_a_class_without_images(tmp_path: Path) -> None:
    write_folders(tmp_path, ("ant", "cat"))
    with pytest.raises(ValueError, match=r"or make an empty folder in .* for each class that has no images there"):
        check_number(model(3), classes_of(tmp_path), 32)
    (tmp_path / "bee").mkdir()
    check_number(model(3), classes_of(tmp_path), 32)


def test_the_order_changes_nothing_else(tmp_path: Path) -> None:
    classes = classes_of(write_folders(tmp_path, ("ant", "bee")))
    one = model(2, ("bee", "ant"))
    aligned, _ = align(one, classes)
    assert dataclasses.replace(aligned, forward=one.forward) == one
