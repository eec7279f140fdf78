"""The tools stop before they start where the files of a config number the classes differently."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from config_catalog import CONFIGS
from mmdet.datasets import CocoDataset

CONFIG = str(CONFIGS["retinanet_dtn-pvtv2-b0_fpn_1x_coco"])
NAMES = CocoDataset.METAINFO["classes"]

Change = Callable[[list[dict[str, Any]]], object]


@pytest.fixture
def changed(coco: Path, tmp_path: Path) -> Callable[[str, Change], str]:
    """A copy of the annotations with other categories in one file."""

    def write(split: str, change: Change) -> str:
        root = tmp_path / "coco"
        shutil.copytree(coco / "annotations", root / "annotations", dirs_exist_ok=True)
        for images in ("train2017", "val2017"):
            if not (root / images).exists():
                (root / images).symlink_to(coco / images)
        file = root / "annotations" / f"instances_{split}2017.json"
        content = json.loads(file.read_text())
        change(content["categories"])
        file.write_text(json.dumps(content))
        return str(root)

    return write


@pytest.fixture
def no_runner(train_tool: ModuleType, test_tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a runner was built")

    monkeypatch.setattr(train_tool.launch, "build_runner", never)


def reverse(rows: list[dict[str, Any]]) -> None:
    rows.reverse()


@pytest.mark.usefixtures("no_runner")
@pytest.mark.parametrize("names", [None, NAMES])
def test_testing_with_another_order_than_training(
    names: tuple[str, ...] | None,
    changed: Callable[[str, Change], str],
    test_tool: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    meta = {} if names is None else {"dataset_meta": {"classes": names}}
    torch.save({"state_dict": {}, "meta": meta}, tmp_path / "a.pth")
    root = changed("val", reverse)
    assert test_tool.main([CONFIG, str(tmp_path / "a.pth"), "--data-root", root, "--work-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "tools/test.py: error: expected the categories in" in error
    assert "instances_val2017.json (test_dataloader.dataset) in the order of the labels of the model" in error
    assert "got 'toothbrush' for 'person', 'hair drier' for 'bicycle', " in error
    assert "or evaluate with dtn-det mpc, which goes by names" in error


@pytest.mark.usefixtures("no_runner")
@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("train", lambda rows: rows.pop(40), "instances_train2017.json (train_dataloader.dataset), got 79 without"),
        ("val", lambda rows: rows.pop(40), "instances_val2017.json (val_dataloader.dataset), got 79 without 'wine"),
        ("val", reverse, "instances_val2017.json (val_dataloader.dataset) in the order of those in"),
        ("train", reverse, "instances_val2017.json (val_dataloader.dataset) in the order of those in"),
    ],
)
def test_training_on_files_that_disagree(
    split: str,
    change: Change,
    message: str,
    changed: Callable[[str, Change], str],
    train_tool: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = changed(split, change)
    assert train_tool.main([CONFIG, "--data-root", root, "--work-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tools/train.py: error: expected the ")
    assert message in error


@pytest.mark.usefixtures("no_runner")
def test_heads_of_another_number(
    coco: Path, train_tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [CONFIG, "--data-root", str(coco), "--work-dir", str(tmp_path)]
    assert train_tool.main([*arguments, "--cfg-options", "model.bbox_head.num_classes=3"]) == 2
    error = capsys.readouterr().err
    assert "got model.bbox_head.num_classes=3: add --cfg-options model.bbox_head.num_classes=80, or list" in error
