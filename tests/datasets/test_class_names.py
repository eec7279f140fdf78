"""What labels mean, decided by names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dtn_det.datasets.class_names import (
    ModelClasses,
    NamedSet,
    check_set,
    differing_order,
    facts_of_names,
    labels_in_evaluation,
    labels_in_training,
)
from dtn_det.errors import ClassNameError

CLASSES = ("disc", "square", "bar")
OTHER = ("bar", "disc", "square")
TRAIN = NamedSet("train_dataloader.dataset", "train.json", CLASSES, CLASSES)
TEST = NamedSet("test_dataloader.dataset", "test.json", CLASSES, CLASSES)
MODEL = ModelClasses({"model.bbox_head.num_classes": 3}, "epoch_1.pth")


def test_labels_are_the_categories_of_the_file_that_the_config_names_in_the_files_order() -> None:
    one = NamedSet("a", "a.json", ("square", "disc"), ("things", "disc", "bar", "square"))
    assert one.labels == ("disc", "square")


@pytest.mark.parametrize("names", [None, CLASSES, OTHER])
@pytest.mark.parametrize("order", [CLASSES, OTHER])
def test_files_of_one_order_are_no_matter_for_words(names: tuple[str, ...] | None, order: tuple[str, ...]) -> None:
    """Whatever order the config and with it the checkpoint list."""
    wanted = CLASSES if names is None else names
    train, test = (replace(one, wanted=wanted, categories=order) for one in (TRAIN, TEST))
    found = labels_in_evaluation([test], [train], replace(MODEL, names=names))
    assert (found.names, found.evidence, found.differing) == (order, "training file", ())
    assert differing_order(found) is None
    assert found.places(order) is None


@pytest.mark.parametrize("names", [None, CLASSES])
def test_a_test_file_of_another_order_is_known_by_the_training_file(names: tuple[str, ...] | None) -> None:
    test = replace(TEST, categories=OTHER)
    found = labels_in_evaluation([test], [TRAIN], replace(MODEL, names=names))
    assert (found.names, found.differing) == (CLASSES, (test,))
    assert found.places(OTHER) == (1, 2, 0)
    assert [OTHER[place] for place in found.places(OTHER) or ()] == list(CLASSES)
    assert str(differing_order(found)) == (
        "expected the categories in test.json (test_dataloader.dataset) in the order of the labels of the model, which "
        "is that of train.json (train_dataloader.dataset), got 'bar' for 'disc', 'disc' for 'square', 'square' for "
        "'bar' in place 0 and later: MMDetection would take each for another. Write the categories of the file in that "
        "order, or evaluate with dtn-det mpc, which goes by names"
    )


@pytest.mark.parametrize(("names", "evidence"), [(None, "config"), (CLASSES, "checkpoint")])
def test_without_the_training_file_one_order_everywhere_is_taken(names: tuple[str, ...] | None, evidence: str) -> None:
    found = labels_in_evaluation([TEST], [], replace(MODEL, names=names))
    assert (found.names, found.evidence) == (CLASSES, evidence)


@pytest.mark.parametrize(
    ("names", "wanted", "categories", "source"),
    [
        (None, CLASSES, OTHER, "the config"),
        (CLASSES, CLASSES, OTHER, r"epoch_1\.pth"),
        (OTHER, CLASSES, CLASSES, r"epoch_1\.pth"),
    ],
)
def test_without_the_training_file_two_orders_are_refused(
    names: tuple[str, ...] | None, wanted: tuple[str, ...], categories: tuple[str, ...], source: str
) -> None:
    test = replace(TEST, wanted=wanted, categories=categories)
    message = (
        rf"expected the categories in test\.json .* in the order of the classes of {source}, got .*: MMDetection "
        r"numbers .* name it by its whole path \(its categories suffice\) with --cfg-options "
        r"train_dataloader\.dataset\.ann_file=FILE"
    )
    with pytest.raises(ClassNameError, match=message):
        labels_in_evaluation([test], [], replace(MODEL, names=names))
    assert labels_in_evaluation([test], [TRAIN], replace(MODEL, names=CLASSES)).names == CLASSES


def test_a_checkpoint_of_this_projects_training_says_its_order_itself() -> None:
    model = replace(MODEL, names=OTHER, in_label_order=True)
    found = labels_in_evaluation([TEST], [TRAIN], model)
    assert (found.names, found.evidence, found.differing) == (OTHER, "checkpoint", (TEST,))


def test_a_checkpoint_of_a_third_order_is_of_another_config_or_file() -> None:
    names = ("square", "disc", "bar")
    model = replace(MODEL, names=names)
    with pytest.raises(ClassNameError, match=r"list the classes of train_dataloader\.dataset as the checkpoint has"):
        labels_in_evaluation([TEST], [TRAIN], model)
    # As the message advises.
    assert labels_in_evaluation([TEST], [replace(TRAIN, wanted=names)], model).names == CLASSES


def test_a_training_set_of_a_base_config_with_other_classes_says_nothing() -> None:
    base = NamedSet("train_dataloader.dataset", "coco.json", ("person", "dog"), ("person", "dog"))
    assert labels_in_evaluation([TEST], [base], MODEL).evidence == "config"


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("which", ["train", "val"])
def test_a_file_without_a_category_is_refused_before_training(place: int, which: str) -> None:
    lacking = CLASSES[:place] + CLASSES[place + 1 :]
    train, val = (TRAIN, replace(TEST, where="val_dataloader.dataset", file="val.json"))
    if which == "train":
        train = replace(train, categories=lacking)
    else:
        val = replace(val, categories=lacking)
    message = rf"among the categories in {which}\.json .*, got 2 without {CLASSES[place]!r}: rename or add them"
    with pytest.raises(ClassNameError, match=message):
        labels_in_training([train], [val], MODEL)
    with pytest.raises(ClassNameError, match=message):
        labels_in_evaluation([val], [train], MODEL)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (("disc", "Square", "bar"), r"without 'square' \(there is 'Square', which differs from 'square' in case\)"),
        (("disc", "square ", "bar"), r"without 'square' \(there is 'square ', which differs from 'square' in blanks"),
        (("disc", " SQUARE", "bar"), r"'square' in case and blanks"),
        (("disc", "bar", "ring"), r"got 3 without 'square': rename or add"),
        (
            ("x", "y"),
            r"got 2 without 'disc', 'square', 'bar': to train on them, set metainfo.classes of .* to the names",
        ),
        (("disc", "square", "square", "bar"), r"each class once among the categories in .*, got 'square' more than"),
    ],
)
def test_names_that_are_not_the_same(categories: tuple[str, ...], message: str) -> None:
    with pytest.raises(ClassNameError, match=message):
        check_set(replace(TRAIN, categories=categories))


def test_names_of_more_words_are_compared_without_dashes() -> None:
    one = NamedSet("a", "a.json", ("traffic light",), ("traffic-light",))
    with pytest.raises(ClassNameError, match="'traffic-light', which differs from 'traffic light' in dashes and blank"):
        check_set(one)


def test_classes_of_another_set_are_told_with_the_keys_of_the_heads() -> None:
    one = NamedSet("test_dataloader.dataset", "a.json", ("cat", "dog", "cow"), ("disc", "ball"))
    message = r"to the names in the file, 'disc', 'ball', and model\.bbox_head\.num_classes=2; for"
    with pytest.raises(ClassNameError, match=message):
        labels_in_evaluation([one], [], ModelClasses({"model.bbox_head.num_classes": 3}))


def test_a_class_that_the_config_lists_twice() -> None:
    with pytest.raises(ClassNameError, match=r"expected each class of .* once in the config, got 'disc' more than"):
        check_set(replace(TRAIN, wanted=(*CLASSES, "disc")))


def test_categories_that_the_config_leaves_out_do_not_matter() -> None:
    one = replace(TRAIN, categories=("parent", "disc", "twice", "square", "twice", "bar"))
    assert labels_in_training([one], [TEST], MODEL).names == CLASSES


def test_files_of_one_training_must_be_in_one_order() -> None:
    message = r"in the order of those in train\.json .*, got 'bar' for 'disc', .*: write the categories of both files"
    with pytest.raises(ClassNameError, match=message):
        labels_in_training([TRAIN, replace(TRAIN, file="more.json", categories=OTHER)], [], MODEL)
    with pytest.raises(ClassNameError, match=message):
        labels_in_training([TRAIN], [replace(TEST, categories=OTHER)], MODEL)
    with pytest.raises(ClassNameError, match="expected the training files of the config in one order of categories"):
        labels_in_evaluation([TEST], [TRAIN, replace(TRAIN, file="more.json", categories=OTHER)], MODEL)


def test_sets_of_other_classes() -> None:
    other = NamedSet("val_dataloader.dataset", "val.json", ("disc", "square", "Bar"), ("disc", "square", "Bar"))
    message = r"got 'bar' in train\S+ alone and 'Bar' in val\S+ alone \(there is 'Bar', which differs from 'bar' in"
    with pytest.raises(ClassNameError, match=message):
        labels_in_training([TRAIN], [other], MODEL)


def test_heads_of_another_number_of_classes() -> None:
    model = ModelClasses({"model.roi_head.bbox_head.0.num_classes": 80, "model.roi_head.mask_head.num_classes": 3})
    message = (
        r"heads of 3 classes, those of train_dataloader.dataset .*, got model\.roi_head\.bbox_head\.0\.num_classes=80: "
        r"add --cfg-options model\.roi_head\.bbox_head\.0\.num_classes=3, or list"
    )
    with pytest.raises(ClassNameError, match=message):
        labels_in_training([TRAIN], [], model)
    labels_in_training([replace(TRAIN, heads=False)], [], model)


def test_a_checkpoint_of_other_classes() -> None:
    with pytest.raises(ClassNameError, match=r"got 3: 'disc', 'square', 'Bar' \(there is 'Bar', which differs from"):
        labels_in_evaluation([TEST], [TRAIN], replace(MODEL, names=("disc", "square", "Bar")))
    # Without a number of classes in the config, two names may be those of the head.
    with pytest.raises(ClassNameError, match=r"expected epoch_1.pth to be trained on .*, got 2: 'cat', 'dog': name"):
        labels_in_evaluation([TEST], [], ModelClasses({}, "epoch_1.pth", ("cat", "dog")))


@pytest.mark.parametrize("in_order", [False, True])
def test_names_of_another_number_than_the_head_are_left_out_and_told(in_order: bool) -> None:
    coco = tuple(f"name{number}" for number in range(80))
    found = labels_in_evaluation([TEST], [TRAIN], replace(MODEL, names=coco, in_label_order=in_order))
    assert (found.names, found.evidence) == (CLASSES, "training file")
    (remark,) = found.remarks
    assert remark.sentence() == (
        "epoch_1.pth: 80 names of classes were left out: the head has 3 classes, which they do not describe "
        "(name0, name1, name2, ...)"
    )
    assert facts_of_names(found.remarks) == {"class names": "80 in the file, left out"}
    assert facts_of_names(labels_in_evaluation([TEST], [TRAIN], MODEL).remarks) == {}
    with pytest.raises(ClassNameError, match="in the order of the classes of the config"):
        labels_in_evaluation([replace(TEST, categories=OTHER)], [], replace(MODEL, names=coco))
