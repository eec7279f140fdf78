"""`dtn-det mce` on sets whose images are rows of a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from array_sets import LABELS, clean_images, write_batches, write_cifar_c, write_parquet
from PIL import Image

from dtn_det.cli.main import main
from dtn_det.corruptions.cells import CLEAN
from dtn_det.metrics import mean_error
from dtn_det.metrics.formulas import Summary
from dtn_det.robustness.classification.data import prepare
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.store import Store

MODEL = '''
import torch

class Colours(torch.nn.Module):
    """Tells images apart by their mean colours."""

    def __init__(self, classes):
        super().__init__()
        self.linear = torch.nn.Linear(12, classes, bias=False)
        torch.nn.init.normal_(self.linear.weight, std=20.0, generator=torch.Generator().manual_seed(1))

    def forward(self, images):
        return self.linear(torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1))

def ten():
    return Colours(10)

def hundred():
    return Colours(100)
'''


@pytest.fixture
def mce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `dtn-det mce` in this process and returns what it printed, its error where it failed."""
    (tmp_path / "models_of_rows.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "models_of_rows", raising=False)

    def run(data: Path, *arguments: str, store: str = "store", model: str = "ten") -> str:
        words = ["mce", f"python:models_of_rows:{model}", "--data", str(data), "--store", str(tmp_path / store)]
        code = main([*words, "--workers", "0", "--device", "cpu", *arguments])
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


def predictions(store: Path) -> dict[str, np.ndarray]:
    """The prediction of each image under each cell, by the name and severity of the cell, in the order of the rows."""
    opened = Store.open(store)
    (model,) = opened.models()
    table = next(iter(opened.model(model).batches())).to_pandas()
    cells = opened.manifest.cells
    return {
        f"{cells[number].corruption} {cells[number].severity}": rows.sort_values("image")["prediction"].to_numpy()
        for number, rows in table.groupby("cell")
    }


def test_the_rows_of_a_severity_are_evaluated_with_their_labels(mce, tmp_path: Path) -> None:
    data = write_cifar_c(tmp_path / "CIFAR-10-C")
    out = mce(data, "--severities", "2", "5")
    assert "CIFAR-10-C as NumPy arrays (10 images of 32 x 32 under 2 corruptions)" in " ".join(out.split())
    assert "Mean error partial (4/75)" in out
    assert "mCE" not in out.partition("no baseline")[0]
    manifest = Store.open(tmp_path / "store").manifest
    assert manifest.recognised["dataset"] == "CIFAR-10-C"
    assert (manifest.protocol["classes"], manifest.protocol["num_classes"]) == ("labels", "10")
    images = Store.open(tmp_path / "store").images()
    assert images["key"].to_pylist() == [f"{row:05}" for row in range(10)]
    assert images["label"].to_pylist() == LABELS.tolist()
    sys.path.insert(0, str(tmp_path))
    from models_of_rows import ten

    for name in ("fog", "contrast"):
        rows = torch.from_numpy(np.load(data / f"{name}.npy")[40:50]).permute(0, 3, 1, 2).float() / 255
        assert predictions(tmp_path / "store")[f"{name} 5"].tolist() == ten()(rows).argmax(1).tolist()


@pytest.mark.parametrize("layout", ["batches", "pair", "parquet", "parquet folder", "folders"])
def test_every_layout_of_the_clean_set_gives_the_same_clean_answers(mce, tmp_path: Path, layout: str) -> None:
    data = write_cifar_c(tmp_path / "CIFAR-10-C", ("fog",))
    clean = tmp_path / "clean"
    if layout == "batches":
        write_batches(clean)
    elif layout == "pair":
        clean.mkdir()
        np.save(clean / "cifar_data.npy", clean_images())
        np.save(clean / "cifar_labels.npy", LABELS)
    elif layout.startswith("parquet"):
        clean = write_parquet(clean / "test-00000-of-00001.parquet")
        clean = clean.parent if layout.endswith("folder") else clean
    else:
        for row, pixels in enumerate(clean_images()):
            path = clean / "abcdefghij"[row] / f"test_{row:05}.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(pixels).save(path)
    out = mce(data, "--clean", str(clean), "--severities", "1")
    assert "clean" in out.lower()
    sys.path.insert(0, str(tmp_path))
    from models_of_rows import ten

    answers = ten()(torch.from_numpy(clean_images()).permute(0, 3, 1, 2).float() / 255).argmax(1)
    assert predictions(tmp_path / "store")["clean 0"].tolist() == answers.tolist()


def test_clean_rows_are_corrupted_like_the_files_of_class_folders(mce, tmp_path: Path) -> None:
    out = mce(write_batches(tmp_path / "cifar-10-batches-py"), "--corruptions", "fog", "--severities", "1")
    assert "CIFAR-10's own batches" in out
    manifest = Store.open(tmp_path / "store").manifest
    assert (manifest.recognised["dataset"], manifest.recognised["profile"]) == ("CIFAR-10", "cifar-c")
    assert set(predictions(tmp_path / "store")) == {"clean 0", "fog 1"}


def test_a_changed_array_is_another_set(mce, tmp_path: Path) -> None:
    data = write_cifar_c(tmp_path / "c")
    mce(data, "--severities", "1")
    rows = np.load(data / "fog.npy")
    np.save(data / "fog.npy", 255 - rows)
    assert "data_hash" in mce(data, "--severities", "1")


def test_a_model_of_other_classes_is_refused_before_anything_is_evaluated(mce, tmp_path: Path) -> None:
    error = " ".join(mce(write_cifar_c(tmp_path / "c"), model="hundred").split())
    assert "expected a model of 10 classes for CIFAR-10-C as NumPy arrays (10 images" in error
    assert "(numbered by the labels of the set), got 100 classes in 'hundred'" in error
    assert not (tmp_path / "store").exists()


def test_the_estimate_is_computed_once_a_unit(mce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(frame: pd.DataFrame, **values: object) -> Summary:
        calls.append(len(frame))
        return mean_error(frame, **values)

    monkeypatch.setattr("dtn_det.robustness.classification.progress.mean_error", counted)
    out = mce(write_cifar_c(tmp_path / "c"), "--severities", "1", "--unit-size", "5")
    assert "(estimate)" in out
    # Ten images in two units: before the first unit is finished, and before the second is.
    assert calls == [0, 2]


def options(data: Path, **values: object) -> ClassificationOptions:
    return ClassificationOptions(models=(), data=data, store=Path("store"), **values)


def test_without_a_choice_the_benchmark_is_read_and_the_rest_is_told(tmp_path: Path) -> None:
    data = write_cifar_c(tmp_path / "c", ("fog", "spatter", "mystery"))
    prepared = prepare(options(data))
    assert prepared.cells == tuple(("fog", severity) for severity in range(1, 6))
    told = {remark.kind: list(remark.examples) for remark in prepared.remarks}
    assert told["other_arrays"] == ["spatter.npy"]
    assert told["unknown_arrays"] == ["mystery.npy"]
    assert len(told["missing_corruptions"]) == 14
    assert CLEAN not in prepared.cells


def test_memory_does_not_grow_with_the_arrays(tmp_path: Path) -> None:
    """The arrays of this test lie in a file with holes, which no disk and no memory would hold."""
    data = write_cifar_c(tmp_path / "c", ("fog",))
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, 32, 32, 3), np.uint8))
    count = 50_000_000
    with (data / "fog.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (5 * count, 32, 32, 3)})
        file.truncate(file.tell() + 5 * count * 3072)
    from dtn_det.datasets.arrays.rows import NpyRows, read_header

    rows = NpyRows(read_header(data / "fog.npy"))
    assert rows.row(5 * count - 1).sum() == 0
