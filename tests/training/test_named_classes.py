"""Data sets whose type or config names other classes than their folders: told at once, and the printed options work."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("mmpretrain.models", reason="the classifiers need mmpretrain")

from mmpretrain.datasets import ImageNet
from mmpretrain.registry import DATASETS
from PIL import Image
from printed_advice import printed_options

from dtn_det.check import inspect_path
from dtn_det.check.model import read_target
from dtn_det.datasets.configs.folders import check_class_folders
from dtn_det.errors import InputError
from dtn_det.training.config import parse_options

SPLITS = ["train_dataloader", "val_dataloader"]
CONFIG = """
_base_ = ["mmpretrain::_base_/default_runtime.py"]
data_root = "data/imagenet/"
model = dict(
    type="ImageClassifier",
    backbone=dict(type="LeNet5", num_classes=-1),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead", num_classes={number}, in_channels=120, cal_acc=True, topk=(1, 5),
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, num_classes={number}, mode="original"),
    ),
)
data_preprocessor = dict(num_classes={number}, mean=[127.0], std=[127.0])
pipeline = [
    dict(type="LoadImageFromFile", color_type="grayscale"), dict(type="Resize", scale=(32, 32)), dict(type="PackInputs")
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type="RepeatDataset",
        times=1,
        dataset=dict(type="ImageNet", data_root=data_root, split="train", pipeline=pipeline),
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type="ImageNet", data_root=data_root, split="val", pipeline=pipeline),
    sampler=dict(type="DefaultSampler", shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_evaluator = [dict(type="Accuracy", topk=(1, 5))]
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.01))
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
test_cfg = dict()
"""


def write_folders(root: Path, *names: str) -> Path:
    for split in ("train", "val"):
        for number, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for place in range(2):
                Image.new("RGB", (32, 32), (80 * number, 10, place)).save(root / split / name / f"{place}.png")
    return root


def write_config(folder: Path, number: int) -> Path:
    path = folder / "net.py"
    path.write_text(CONFIG.format(number=number))
    return path


@pytest.mark.parametrize("number", [1000, 2], ids=["the type's", "the folders'"])
def test_the_printed_options_train_and_test(
    number: int,
    tmp_path: Path,
    train_tool: ModuleType,
    test_tool: ModuleType,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A config of ImageNet on two folders: each tool asks once, for all that it needs, and then runs."""
    root, config = write_folders(tmp_path / "data", "cats", "dogs"), write_config(tmp_path, number)
    common = ["--data-root", str(root), "--work-dir", str(tmp_path / "work")]
    assert train_tool.main([str(config), *common]) == 2
    said = capsys.readouterr().err
    assert "expected folders of 1000 classes (" in said
    assert "for train_dataloader, got 2 in" in said
    options = printed_options(said)
    assert {*options} >= {
        "train_dataloader.dataset.dataset.metainfo.classes=None",
        "val_dataloader.dataset.metainfo.classes=None",
        "model.head.num_classes=2",
        "model.head.topk=[1]",
        "val_evaluator.topk=1",
    }
    assert train_tool.main([str(config), *common, "--cfg-options", *options]) == 0
    weights = str(tmp_path / "work" / "epoch_1.pth")
    assert test_tool.main([str(config), weights, *common]) == 2
    options = printed_options(capsys.readouterr().err)
    assert {*options} >= {"test_dataloader.dataset.metainfo.classes=None", "test_evaluator.0.topk=1"}
    assert test_tool.main([str(config), weights, *common, "--cfg-options", *options]) == 0


def test_folders_without_names_of_their_own_are_left(tmp_path: Path) -> None:
    """Types without classes, and those of other classes than their folders in words alone, such as ImageNet."""
    root = write_folders(tmp_path, "cats", "dogs")
    for settings in (
        {"type": "ImageNet21k", "split": "train"},
        {"type": "CustomDataset", "data_prefix": {"img_path": "train"}},
    ):
        check(root, settings)
    with pytest.raises(InputError, match=r"expected folders of 3 classes .* got 2 in"):
        check(root, {"type": "CustomDataset", "data_prefix": {"img_path": "train"}}, number=3)


@pytest.fixture
def owls() -> Any:
    """A data set that somebody registered, with names of its own and nothing else."""

    class Owls(ImageNet):
        METAINFO = {"classes": ("cats", "owls")}  # noqa: RUF012

    DATASETS.register_module(name="Owls", module=Owls)
    yield Owls
    DATASETS.module_dict.pop("Owls")


def check(root: Path, dataset: dict[str, Any], number: int = 2) -> None:
    cfg = {
        "model": {"type": "ImageClassifier", "head": {"num_classes": number}},
        "train_dataloader": {"dataset": {"data_root": str(root), **dataset}},
    }
    check_class_folders(cfg, ["train_dataloader"])


@pytest.mark.parametrize("as_class", [False, True])
def test_names_of_a_registered_type(as_class: bool, tmp_path: Path, owls: type) -> None:
    root = write_folders(tmp_path, "cats", "dogs")
    dataset = {"type": owls if as_class else "Owls", "split": "train"}
    with pytest.raises(
        InputError, match=r"got 'owls' as class 1, which is the folder 'dogs': sort `classes`"
    ) as caught:
        check(root, dataset)
    assert printed_options(str(caught.value)) == ["train_dataloader.dataset.metainfo.classes=None"]
    check(root, {**dataset, "metainfo": {"classes": None}})
    check(root, {**dataset, "metainfo": {"classes": ("cats", "dogs")}})
    # Nothing in common: names in other words.
    check(root, {**dataset, "metainfo": {"classes": ("Katzen", "Hunde")}})


def test_names_that_are_no_list_and_no_file(tmp_path: Path) -> None:
    root = write_folders(tmp_path, "cats", "dogs")
    dataset = {"type": "CustomDataset", "data_prefix": "train", "classes": "cats"}
    with pytest.raises(
        InputError, match=r"with a name a line, as train_dataloader.dataset.classes, got 'cats': name"
    ) as caught:
        check(root, dataset)
    assert printed_options(str(caught.value)) == ["train_dataloader.dataset.metainfo.classes=None"]
    check(root, {**dataset, "metainfo": {"classes": None}})


def test_models_with_too_few_outputs_for_the_labels_of_a_type(tmp_path: Path) -> None:
    for kind, number in {"CIFAR10": 10, "CIFAR100": 100}.items():
        message = (
            rf"at least {number} classes, those of {kind} \(train.*=2: change it with .*num_classes={number}, or name"
        )
        with pytest.raises(InputError, match=message):
            check(tmp_path, {"type": kind})
        for enough in (number, 1000):
            check(tmp_path, {"type": kind}, enough)


def test_check_says_what_the_tools_say(tmp_path: Path) -> None:
    """With the printed options the config fits, in `check` as in training."""
    root, config = write_folders(tmp_path / "data", "cats", "dogs"), str(write_config(tmp_path, 2))
    (result,) = inspect_path(root / "val", read_target(config))
    assert result.fits is False
    assert "(train_dataloader.dataset.dataset.type=ImageNet) for train_dataloader, got 2 in" in result.problems[0]
    assert "name the folder of its classes, or change the config" in result.problems[0]
    options = parse_options(printed_options(result.problems[0]))
    (result,) = inspect_path(root / "val", read_target(config, options=options))
    assert (result.fits, result.problems) == (True, [])


def test_a_part_of_imagenet_is_for_mce_alone(tmp_path: Path) -> None:
    root, config = write_folders(tmp_path / "data", "n01440764", "n01443537"), str(write_config(tmp_path, 1000))
    (result,) = inspect_path(root / "val", read_target(config, options={"val_evaluator.topk": 1}))
    assert (result.fits, result.problems) == (True, [])
    (remark,) = [remark for remark in result.remarks if remark.kind == "refused_by_tools"]
    assert "dtn-det mce evaluates, and that tools/train.py and tools/test.py refuse: expected folders of" in remark.what
