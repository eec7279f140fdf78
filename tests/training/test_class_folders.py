"""Folders of classes that are not those of the model are refused before training, with both named."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("mmpretrain.models", reason="the classifiers need mmpretrain")

from mmengine.config import Config

from dtn_det.datasets.configs.folders import check_trained_folders
from dtn_det.errors import ClassNameError
from dtn_det.training import launch

ROOT = Path(__file__).resolve().parents[2]
CIFAR = ROOT / "configs" / "dtn_cifar" / "swin-pico-p4-w4_8e_cifar10.py"
SPLITS = ["train_dataloader", "val_dataloader"]


def make_folders(root: Path, **splits: list[str]) -> Path:
    for split, names in splits.items():
        for name in names:
            (root / split / name).mkdir(parents=True)
    return root


def names(number: int) -> list[str]:
    return [f"class{index}" for index in range(number)]


def settings(root: Path, num_classes: int = 3, **dataset: Any) -> Config:
    def loader(split: str) -> dict[str, Any]:
        return {"dataset": {"type": "CustomDataset", "data_root": str(root), "data_prefix": split, **dataset}}

    model = {"type": "ImageClassifier", "head": {"num_classes": num_classes}}
    return Config({"model": model, "train_dataloader": loader("train"), "val_dataloader": loader("val")})


def test_folders_of_the_models_classes_pass(tmp_path: Path) -> None:
    make_folders(tmp_path, train=names(3), val=names(3))
    (tmp_path / "train" / "list.txt").touch()
    launch.check_data(settings(tmp_path), SPLITS)


def test_hidden_folders_are_classes_to_mmpretrain(tmp_path: Path) -> None:
    make_folders(tmp_path, train=[*names(2), ".cache"], val=names(3))
    with pytest.raises(ValueError, match=r"folders of classes in '.*train', got '.cache', which mmpretrain takes for"):
        launch.check_data(settings(tmp_path), SPLITS)


def test_images_that_mmpretrain_passes_over_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folders(tmp_path, train=names(3), val=names(3))
    for file in ("a.webp", "b.webp", "c.jfif", "d.png"):
        (tmp_path / "train" / "class1" / file).touch()
    launch.check_data(settings(tmp_path), SPLITS)
    said = capsys.readouterr().err
    assert "train: 3 images are passed over by mmpretrain for their endings (.jfif, .webp): add" in said
    assert said.count("passed over") == 1
    launch.check_data(settings(tmp_path, extensions=(".png", ".webp", ".jfif")), SPLITS)
    assert not capsys.readouterr().err


def test_images_that_are_named_like_masks_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folders(tmp_path, train=names(3), val=names(3))
    for file in ("a.png", "a_mask.png"):
        (tmp_path / "train" / "class1" / file).touch()
    launch.check_data(settings(tmp_path), SPLITS)
    assert "train: 1 image is named like the mask of the image beside it and was taken" in capsys.readouterr().err


@pytest.mark.parametrize("as_file", [False, True])
def test_names_in_another_order_than_the_folders_are_refused(tmp_path: Path, as_file: bool) -> None:
    make_folders(tmp_path, train=["cat", "dog", "owl"], val=["cat", "dog", "owl"])
    listed = ["dog", "cat", "owl"]
    (tmp_path / "classes.txt").write_text("\n".join(listed))
    classes = str(tmp_path / "classes.txt") if as_file else listed
    with pytest.raises(ValueError, match=r"got 'dog' as class 0, which is the folder 'cat': sort `classes`, or leave"):
        launch.check_data(settings(tmp_path, classes=classes), SPLITS)
    launch.check_data(settings(tmp_path, classes=sorted(listed)), SPLITS)
    # Names of another language say nothing of the order.
    launch.check_data(settings(tmp_path, metainfo={"classes": ["Katze", "Hund", "Eule"]}), SPLITS)


def test_names_that_differ_in_case_alone_are_said_to(tmp_path: Path) -> None:
    make_folders(tmp_path, train=["ant", "bee", "cat"], val=["Bee", "ant", "cat"])
    with pytest.raises(ValueError, match=r"1 more \(Bee\), of which 'Bee' differ in case or in the form of their lett"):
        launch.check_data(settings(tmp_path), SPLITS)


def test_what_else_a_folder_is_is_said(tmp_path: Path) -> None:
    make_folders(tmp_path, train=names(3), val=["images"])
    (tmp_path / "val" / "val_annotations.txt").touch()
    cfg = settings(tmp_path)
    with pytest.raises(
        ValueError, match=r"these are Tiny-ImageNet's validation images as downloaded .*; sort them with"
    ):
        launch.check_data(cfg, SPLITS[1:])


@pytest.mark.parametrize("number", [0, 2, 4])
def test_another_number_of_folders_is_refused(number: int, tmp_path: Path) -> None:
    make_folders(tmp_path, train=names(number), val=names(number))
    for split in ("train", "val"):
        (tmp_path / split).mkdir(exist_ok=True)
    shown = re.escape(f" ({', '.join(names(number))})") if number else ""
    # A model of no classes is nothing to advise.
    change = rf", or .* --cfg-options model.head.num_classes={number}$" if number else "$"
    message = (
        r"expected folders of 3 classes \(model.head.num_classes\) for train_dataloader, "
        rf"got {number} in '.*/train'{shown}: name the folder of the dataset with --data-root{change}"
    )
    with pytest.raises(ValueError, match=message):
        launch.check_data(settings(tmp_path), SPLITS)


def test_every_number_of_a_converted_model_counts(tmp_path: Path) -> None:
    make_folders(tmp_path, train=names(4), val=names(4))
    cfg = settings(tmp_path)
    cfg.model = {"type": "ConvertedModel", "model": {"type": "TimmClassifier", "num_classes": 4}}
    launch.check_data(cfg, SPLITS)
    cfg.data_preprocessor = {"num_classes": 10}
    options = "data_preprocessor.num_classes=4 model.model.num_classes=4"
    with pytest.raises(ValueError, match=rf"of 10 classes \(data_preprocessor.num_classes\) .* {options}$"):
        launch.check_data(cfg, SPLITS)


def test_other_names_than_in_training_are_refused(tmp_path: Path) -> None:
    make_folders(tmp_path, train=["cat", "dog", "owl"], val=["cat", "dogs", "owl"])
    message = (
        r"expected '.*/val' for val_dataloader to have the classes of '.*/train' for train_dataloader, got "
        r"1 missing \(dog\) and 1 more \(dogs\): the sorted names"
    )
    with pytest.raises(ValueError, match=message):
        launch.check_data(settings(tmp_path), SPLITS)


def test_long_lists_are_cut_short(tmp_path: Path) -> None:
    make_folders(tmp_path, train=names(9), val=names(9))
    with pytest.raises(ValueError, match=r"got 9 in '.*/train' \(class0, class1, class2, class3, class4, \.\.\.\)"):
        launch.check_data(settings(tmp_path), SPLITS)


def test_wrapped_datasets_are_checked(tmp_path: Path) -> None:
    make_folders(tmp_path, train=names(2), val=names(2))
    cfg = settings(tmp_path)
    cfg.train_dataloader.dataset = {"type": "RepeatDataset", "times": 3, "dataset": cfg.train_dataloader.dataset}
    with pytest.raises(ValueError, match="got 2 in"):
        launch.check_data(cfg, SPLITS)


@pytest.mark.parametrize(
    "dataset",
    [{"type": "Unknown"}, {"with_label": False}, {"ann_file": "list.txt"}, {"type": "ImageNet", "split": "test"}],
    ids=["other", "unlabelled", "listed", "test"],
)
def test_other_datasets_are_passed_over(dataset: dict[str, Any], tmp_path: Path) -> None:
    make_folders(tmp_path, train=names(2), val=names(1))
    (tmp_path / "list.txt").touch()
    launch.check_data(settings(tmp_path, **dataset), SPLITS)


def test_models_without_a_number_are_passed_over(tmp_path: Path) -> None:
    make_folders(tmp_path, train=names(2), val=names(2))
    cfg = settings(tmp_path)
    cfg.model = {"type": "HuggingFaceClassifier", "model_name": "resnet"}
    launch.check_data(cfg, SPLITS)


def test_splits_of_imagenet_are_folders_or_lists(tmp_path: Path) -> None:
    make_folders(tmp_path, train=names(3), val=[])
    cfg = settings(tmp_path, type="ImageNet", data_prefix="", metainfo={"classes": None})
    cfg.train_dataloader.dataset.split, cfg.val_dataloader.dataset.split = "train", "val"
    with pytest.raises(FileNotFoundError, match=r"the data of val_dataloader at '.*/val', got nothing there"):
        launch.check_data(cfg, SPLITS)
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match=r"expected '.*/val' for val_dataloader to have .*, got 3 missing"):
        launch.check_data(cfg, SPLITS)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "val.txt").touch()
    launch.check_data(cfg, SPLITS)


@pytest.mark.parametrize("tool", ["train", "test"])
def test_tools_say_so_and_stop(
    tool: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    module: ModuleType = request.getfixturevalue(f"{tool}_tool")
    make_folders(tmp_path, train=names(9), test=names(9))
    (tmp_path / "weights.pth").write_bytes(b"\x80\x02.")
    checkpoint = [str(tmp_path / "weights.pth")] * (tool == "test")
    assert module.main([str(CIFAR), *checkpoint, "--data-root", str(tmp_path), "--work-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    expected = f"expected folders of 10 classes (model.head.num_classes) for {tool}_dataloader"
    assert f"tools/{tool}.py: error: {expected}, got 9 in" in error


@pytest.mark.parametrize(
    ("evaluator", "path"),
    [
        ({"type": "Accuracy", "topk": (1, 5)}, "val_evaluator"),
        ([{"type": "Accuracy", "topk": 5}, {"type": "ConfusionMatrix"}], "val_evaluator.0"),
    ],
)
def test_more_likeliest_classes_than_there_are(evaluator: Any, path: str, tmp_path: Path) -> None:
    make_folders(tmp_path, train=names(3), val=names(3))
    cfg = settings(tmp_path)
    cfg.val_evaluator = evaluator
    with pytest.raises(ValueError, match=rf"expected {path}.topk of at most 3, .*: add --cfg-options {path}.topk=1"):
        launch.check_data(cfg, SPLITS)
    launch.check_data(cfg, SPLITS[:1])


def test_folders_that_lack_a_class_of_the_training_are_compared_with_it(tmp_path: Path) -> None:
    make_folders(tmp_path, train=names(3), val=names(2))
    with pytest.raises(ValueError, match=r"to have the classes of .* got 1 missing"):
        launch.check_data(settings(tmp_path), SPLITS)


def test_folders_in_another_order_than_in_training_are_refused(tmp_path: Path) -> None:
    make_folders(tmp_path, val=["ant", "bee", "cat"])
    cfg = settings(tmp_path)

    def check(*classes: str) -> None:
        content = {"meta": {"dataset_meta": {"classes": classes}}} if classes else {}
        check_trained_folders(cfg, "val_dataloader", "net.pth", content)

    for names_ in ((), ("ant", "bee", "cat"), ("Ameise", "Biene", "Katze")):
        check(*names_)
    with pytest.raises(ClassNameError, match=r"in net.pth, got 'ant' as class 0, which is 'bee' there: evaluate the"):
        check("bee", "ant", "cat")
    with pytest.raises(ClassNameError, match=r"by name with `dtn-det mce`$"):
        check("cat", "bee", "ANT")
    advice = "leave out the folder 'cat', which the model does not know, and make an empty folder 'cats', or rename it"
    with pytest.raises(ClassNameError, match=rf"got 1 missing \(cats\) and 1 more \(cat\): {advice}") as refused:
        check("ant", "bee", "cats")
    assert "mce" not in str(refused.value)
    content = {"meta": {"CLASSES": ("ant", "bee", "cat", "dog")}}
    (remark,) = check_trained_folders(cfg, "val_dataloader", "net.pth", content)
    assert (remark.kind, remark.count, remark.where) == ("names_left_out", 4, "net.pth")
    (tmp_path / "val" / "cat").rmdir()
    (tmp_path / "val" / "cats").mkdir()
    check("ant", "bee", "cats")
