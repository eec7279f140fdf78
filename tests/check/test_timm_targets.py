"""Models of timm as `dtn-det mce` takes them, with which `dtn-det check` agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dtn_det.cli.main import main

timm = pytest.importorskip("timm")

CLASSES = ("cat", "dog", "eel")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in CLASSES:
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / name / "a.png")
    return tmp_path / "data"


def weights(path: Path, num_classes: int, name: str = "test_vit", **arguments: Any) -> str:
    torch.save(timm.create_model(name, num_classes=num_classes, **arguments).state_dict(), path)
    return str(path)


def checked(data: Path, source: str, capsys: pytest.CaptureFixture[str], *paths: str) -> tuple[bool, str]:
    """Whether `check` finds that all paths fit, and what it says."""
    code = main(["check", str(data), *paths, "--config", source])
    said = capsys.readouterr()
    return code == 0, said.out + said.err


def evaluated(data: Path, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[bool, str]:
    """Whether `mce` evaluates the data, and what it says."""
    options = ["--store", str(tmp_path / "store"), "--corruptions", "contrast", "--severities", "1"]
    code = main(["mce", source, "--data", str(data), *options, "--workers", "0", "--device", "cpu"])
    said = capsys.readouterr()
    return code == 0, said.out + said.err


def exported(folder: Path, names: tuple[str, ...]) -> str:
    pytest.importorskip("safetensors")
    pytest.importorskip("mmpretrain.models")
    from dtn_det.export import export_model

    arguments = {"num_classes": len(names)}
    export_model(timm.create_model("test_vit", **arguments), folder, "test_vit", arguments, class_names=names)
    return f"timm:local-dir:{folder}"


@pytest.mark.parametrize("kind", ["fits", "classes", "model", "random", "folder", "folder of others", "fewer"])
def test_check_says_what_mce_does(kind: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, fits, reason = {
        "fits": lambda: (f"timm:test_vit@{weights(tmp_path / 'a.pth', 3)}", True, ""),
        "classes": lambda: (
            f"timm:test_vit@{weights(tmp_path / 'a.pth', 5)}",
            False,
            f"got 5 classes in '{tmp_path / 'a.pth'}'",
        ),
        "model": lambda: (
            f"timm:test_vit@{weights(tmp_path / 'a.pth', 3, 'test_resnet')}",
            False,
            "Name the model that the checkpoint was written for",
        ),
        "random": lambda: ("timm:test_vit@random", True, ""),
        "folder": lambda: (exported(tmp_path / "out", CLASSES), True, ""),
        "folder of others": lambda: (exported(tmp_path / "out", ("cat", "cow", "eel")), False, "got 'dog' in place of"),
        "fewer": lambda: (exported(tmp_path / "out", CLASSES[:2]), False, "got 2 classes in 'out'"),
    }[kind]()
    for found, said in (checked(data, source, capsys), evaluated(data, source, tmp_path, capsys)):
        assert found is fits
        assert reason in said


def test_the_name_alone_stands_for_its_pretrained_weights(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fits, said = checked(data, "timm:test_vit", capsys)
    assert not fits
    assert "got 1,000 classes in 'timm:test_vit'" in said
    assert "with a checkpoint, timm:test_vit@FILE, dtn-det mce builds it for the classes of the data" in said


@pytest.mark.parametrize(("number", "fits"), [(3, True), (5, False)])
def test_a_folder_is_compared_with_the_checkpoint_beside_it(
    number: int, fits: bool, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = weights(tmp_path / "a.pth", number)
    found, said = checked(data, "timm:test_vit", capsys, path)
    assert found is fits
    assert f"{number} classes in the file; timm:test_vit fits as dtn-det mce builds it for data of so many" in said
    assert said.count("fits the model: yes") == 1 + fits
    assert ("got 5 classes in" in said) is not fits


def test_a_checkpoint_of_another_model_says_nothing_of_the_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = weights(tmp_path / "a.pth", 3, "test_resnet")
    assert "got 1,000 classes in 'timm:test_vit'" in checked(data, "timm:test_vit", capsys, path)[1]


def test_weights_are_compared_with_a_folder_of_timm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = exported(tmp_path / "out", CLASSES)
    assert checked(tmp_path / "out", source, capsys)[0]
    assert not checked(Path(weights(tmp_path / "a.pth", 5)), source, capsys)[0]


def test_the_order_of_classes_in_doubt_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `mce` tells it: names with numbers sort in two ways."""
    for name in ("c1", "c2", "c10"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / name / "a.png")
    source = f"timm:test_vit@{weights(tmp_path / 'a.pth', 3)}"
    fits, said = checked(tmp_path / "data", source, capsys)
    assert fits
    assert "2 orders of classes are possible" in said
    assert "2 orders of classes are possible" in evaluated(tmp_path / "data", source, tmp_path, capsys)[1]


def test_a_folder_without_a_config_is_refused_as_by_mce(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "expected a folder that `dtn-det export` or timm has written after 'timm:local-dir:'"
    for fits, said in (
        checked(data, "timm:local-dir:none", capsys),
        evaluated(data, "timm:local-dir:none", tmp_path, capsys),
    ):
        assert not fits
        assert reason in said


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_weights_without_a_classifier_are_told_as_such(
    kind: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    path = weights(tmp_path / "a.pth", 0)
    save_file(torch.load(path), tmp_path / "model.safetensors")
    settings = {"input_size": [3, 160, 160], "fixed_input_size": True, "classifier": "head", "num_classes": 0}
    config = {"architecture": "test_vit", "num_classes": 0, "pretrained_cfg": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = f"timm:test_vit@{path}" if kind == "file" else f"timm:local-dir:{tmp_path}"
    for fits, said in (
        checked(data, source, capsys),
        evaluated(data, source, tmp_path, capsys),
        checked(Path(path), source, capsys),
    ):
        assert not fits
        assert "no classifier: it gives features" in said
        assert "with a trained classifier" in said
        assert "empty folder" not in said
