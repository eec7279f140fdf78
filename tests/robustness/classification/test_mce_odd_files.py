"""`dtn-det mce` on folders with links that lead nowhere, bombs, and names that are no text."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from class_folders import WNIDS, picture, write_folders
from PIL import Image

from dtn_det.cli.main import main
from dtn_det.reports.sweep_results import sweep_report
from dtn_det.robustness.classification.images import ViewSlots
from dtn_det.robustness.classification.models.classifier import View
from dtn_det.robustness.store import Store

MODEL = """
import torch

class Mean(torch.nn.Module):
    def __init__(self, classes, sign=1):
        super().__init__()
        self.weight = torch.nn.Parameter(sign * torch.linspace(-9, 9, 3 * classes).view(3, classes))

    def forward(self, images):
        return images.mean((2, 3)) @ self.weight

def two():
    return Mean(2)

def other():
    return Mean(2, -1)

def thousand():
    return Mean(1000)
"""
CLASSES = ("ant", "bee")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "mean_models.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(data: Path, *options: str, model: str = "two", store: str = "store") -> tuple[int, str, str]:
        words = ["mce", f"python:mean_models:{model}", "--data", str(data), "--store", store, "--device", "cpu"]
        few = ["--corruptions", "contrast", "--severities", "1", "--workers", "0"]
        code = main([*words, *few, *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_links_that_lead_nowhere_are_bad_images_like_others(mce: Run, tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data", CLASSES, side=32)
    (data / "ant" / "gone.png").symlink_to("nowhere.png")
    (data / "ant" / "loop.png").symlink_to("loop.png")
    code, _, err = mce(data, "--profile", "cifar-c")
    assert code == 1
    assert "gone.png: there is no such file" in err
    assert "--on-bad-image record" in err
    shutil.rmtree("store")
    code, out, _ = mce(data, "--profile", "cifar-c", "--on-bad-image", "record")
    assert code == 1
    assert out.count("left out of two: image ") == 2
    assert "partial (2 bad images left out)" in out
    (data / "ant" / "loop.png").unlink()
    _, out, _ = mce(data, "--profile", "cifar-c", "--on-bad-image", "record", store="other")
    assert out.count("left out of two: image ") == 1
    assert "partial (1 bad image left out)" in out


def test_a_bomb_that_comes_first_is_a_bad_image_like_others(
    mce: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_folders(tmp_path / "data", WNIDS[:2])
    picture(0, 400).save(data / WNIDS[0] / "a_first.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 256 * 256)
    code, out, _ = mce(data, "--on-bad-image", "record", model="thousand")
    assert code == 1
    assert "a_first.png: expected an image within Pillow's limit on the number of pixels, got a larger one" in out


@pytest.mark.parametrize("bad", [False, True])
def test_names_that_are_no_text(mce: Run, tmp_path: Path, bad: bool) -> None:
    data = write_folders(tmp_path / "data", CLASSES, side=32)
    name = os.fsencode(data / "ant") + b"/\xff\xfe.png"
    with open(name, "wb") as file:
        if not bad:
            picture(5, 32).save(file, "png")
    code, out, _ = mce(data, "--profile", "cifar-c", "--on-bad-image", "record")
    assert code == int(bad)
    assert (r"ant/\udcff\udcfe.png: not an image" in out) is bad
    assert r"ant/\udcff\udcfe.png" in Store.open(Path("store")).images()["key"].to_pylist()


def test_other_clean_images_beside_a_tree_refuse_to_mix(mce: Run, tmp_path: Path) -> None:
    tree = write_folders(tmp_path / "tree" / "contrast" / "1", WNIDS[:2], side=224).parent.parent
    clean = write_folders(tmp_path / "clean", WNIDS[:2], side=224)
    assert mce(tree, "--clean", str(clean), model="thousand")[0] == 0
    assert mce(tree, "--clean", str(shutil.copytree(clean, tmp_path / "copy")), model="thousand")[0] == 0
    picture(9, 300).save(tmp_path / "copy" / WNIDS[0] / "image_0.png")
    code, _, err = mce(tree, "--clean", str(tmp_path / "copy"), model="thousand")
    assert code == 1
    assert "clean_images: the store has" in err


def test_an_unfinished_baseline_leaves_the_errors_and_says_so(mce: Run, tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data", CLASSES, side=32)
    for model in ("two", "other"):
        assert mce(data, "--profile", "cifar-c", "--unit-size", "1", model=model)[0] == 0
    store = Store.open(Path("store"))
    (store.model("two").folder / "unit-000002.parquet").unlink()
    report = sweep_report(store, ["other"], baseline="two")
    assert "other: no corruption errors, they were evaluated on other images (3 and 4)" in report.remarks
    numbers = report.sections[0].numbers
    numbers = numbers[numbers["model"] == "other"]
    assert not numbers["name"].isin(["CE", "mCE"]).any()
    assert numbers[numbers["name"] == "mean error"]["cells"].tolist()[0] == 1


def test_a_batch_is_no_larger_than_a_unit(mce: Run, tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data", CLASSES, side=32)
    assert mce(data, "--profile", "cifar-c", "--batch-size", "1000000000")[0] == 0
    with pytest.raises(OSError, match=r"expected [\d.,]+ GB of memory for [\d,]+ images under way, got less"):
        ViewSlots([View()], 76, 224, 10**11, shared=False)


def test_the_store_is_looked_at_before_the_images(mce: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = mce(tmp_path / "nowhere", store="file")
    assert code == 1
    assert "expected --store to be a folder, got the file file: name another" in err
    code, _, err = mce(tmp_path / "nowhere", store="file/inner")
    assert code == 1
    assert "got" in err


def test_errors_of_the_system_say_what_to_do(mce: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_folders(tmp_path / "data", CLASSES, side=32)

    def forbidden(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "store/images.parquet")

    monkeypatch.setattr("dtn_det.robustness.store.write_bytes", forbidden)
    code, _, err = mce(data, "--profile", "cifar-c")
    assert code == 1
    assert "expected to read or write store/images.parquet, got: Permission denied: see who may read and write" in err


def test_a_model_may_not_need_timm(mce: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dtn_det.cli import classifier_options as command

    wanted = []

    def absent(module: str, extra: str) -> object:
        wanted.append(module)
        if module in ("timm", "mmpretrain"):
            raise ImportError(f"this part of dtn-det needs `{module}`: pip install 'dtn-det[{extra}]'")
        return torch

    monkeypatch.setattr(command, "require", absent)
    data = write_folders(tmp_path / "data", CLASSES, side=32)
    assert mce(data, "--profile", "cifar-c")[0] == 0
    for model in ("timm:resnet10t", "config.py@weights.pth"):
        code = main(["mce", model, "--data", "nowhere", "--store", "store"])
        assert code == 1
    assert {"timm", "mmpretrain"} <= set(wanted)
