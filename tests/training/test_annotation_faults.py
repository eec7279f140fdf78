"""The tools tell faults of annotation files in one sentence, as `dtn-det mpc` does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from config_catalog import CONFIGS

from dtn_det.datasets.configs import files as config_files

CONFIG = str(CONFIGS["retinanet_dtn-pvtv2-b0_fpn_1x_coco"])


@pytest.fixture
def root(coco: Path, tmp_path: Path) -> Path:
    """The COCO folder with the first validation image listed twice, with two sizes."""
    folder = tmp_path / "coco"
    folder.mkdir()
    shutil.copytree(coco / "annotations", folder / "annotations")
    for images in ("train2017", "val2017"):
        (folder / images).symlink_to(coco / images)
    file = folder / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["images"].append({**content["images"][0], "height": 50})
    file.write_text(json.dumps(content))
    return folder


def failing(*_: object) -> None:
    raise RuntimeError("deep in MMDetection")


SENTENCE = "expected each id once in "


def test_before_training(root: Path, train_tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_tool.main([CONFIG, "--data-root", str(root), "--work-dir", str(root)]) == 2
    assert f"tools/train.py: error: {SENTENCE}" in capsys.readouterr().err


def test_before_testing(root: Path, test_tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}}, root / "a.pth")
    arguments = [CONFIG, str(root / "a.pth"), "--data-root", str(root), "--work-dir", str(root)]
    assert test_tool.main(arguments) == 2
    assert f"tools/test.py: error: {SENTENCE}" in capsys.readouterr().err
    (root / "annotations" / "instances_val2017.json").write_text("")
    assert test_tool.main(arguments) == 2
    assert "tools/test.py: error: expected JSON in " in capsys.readouterr().err


def test_large_files_are_looked_at_where_a_run_fails(
    root: Path,
    train_tool: ModuleType,
    test_tool: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reading them takes as long as MMDetection needs for them."""
    monkeypatch.setattr(config_files, "LARGEST", 10)
    monkeypatch.setattr(train_tool.launch, "build_runner", failing)
    common = ["--data-root", str(root), "--work-dir", str(root)]
    assert train_tool.main([CONFIG, *common]) == 1
    assert f"tools/train.py: error: {SENTENCE}" in capsys.readouterr().err
    torch.save({"state_dict": {}}, root / "a.pth")
    assert test_tool.main([CONFIG, str(root / "a.pth"), *common]) == 1
    assert f"tools/test.py: error: {SENTENCE}" in capsys.readouterr().err


def test_an_error_of_the_program_keeps_its_traceback(
    coco: Path, train_tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_tool.launch, "build_runner", failing)
    with pytest.raises(RuntimeError, match="deep in MMDetection"):
        train_tool.main([CONFIG, "--data-root", str(coco), "--work-dir", str(tmp_path)])
