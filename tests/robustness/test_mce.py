"""`dtn-det mce` from the command line to the store."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from class_folders import WNIDS, write_folders

from dtn_det.cli.main import main
from dtn_det.robustness.store import Store

MODELS = '''
import torch

class Colours(torch.nn.Module):
    """Tells images apart by their mean colours."""

    def __init__(self, classes, seed):
        super().__init__()
        self.linear = torch.nn.Linear(12, classes, bias=False)
        generator = torch.Generator().manual_seed(seed)
        torch.nn.init.normal_(self.linear.weight, std=20.0, generator=generator)

    def forward(self, images):
        return self.linear(torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1))

def imagenet():
    return Colours(1000, 0)

def small():
    return Colours(4, 1)

def other():
    return Colours(4, 2)

def prepared():
    return Colours(4, 1), lambda images: images.float() / 255

def not_finite():
    model = Colours(4, 1)
    model.linear.weight.data.fill_(float("nan"))
    return model

def no_module():
    return "a string"
'''


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "little_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "little_models", raising=False)


@pytest.fixture
def mce(tmp_path: Path, models: None, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `dtn-det mce` in this process on two corruptions of four small images."""

    def run(*arguments: str, store: str = "store", model: str = "python:little_models:small") -> tuple[int, str, str]:
        data = tmp_path / "data"
        if not data.exists():
            write_folders(data, ("ant", "bee", "cat", "dog"), side=32)
        defaults = {
            "--data": str(data),
            "--profile": "cifar-c",
            "--severities": "2",
            "--workers": "0",
            "--unit-size": "3",
            "--device": "cpu",
        }
        given = {argument for argument in arguments if argument.startswith("--")}
        options = [word for pair in defaults.items() if pair[0] not in given for word in pair]
        if "--corruptions" not in given:
            options += ["--corruptions", "contrast", "gaussian_noise"]
        code = main(["mce", *model.split(), "--store", str(tmp_path / store), *options, *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_prints_a_table_and_keeps_records(mce, tmp_path: Path) -> None:
    code, out, _ = mce()
    assert code == 0
    assert "gaussian_noise partial (1/5)" in out
    store = Store.open(tmp_path / "store")
    assert store.manifest.num_images == 8
    assert [cell.corruption for cell in store.manifest.cells] == ["clean", "gaussian_noise", "contrast"]
    model = store.model("small")
    assert model.finished() == {0, 1, 2}
    assert sum(table.num_rows for table in model.batches()) == 8 * 3


def test_started_again_it_repeats_only_what_is_missing(mce, tmp_path: Path) -> None:
    _, first, _ = mce()
    folder = Store.open(tmp_path / "store").model("small").folder
    before = {path.name: path.read_bytes() for path in folder.glob("unit-*")}
    (folder / "unit-000001.parquet").unlink()
    untouched = (folder / "unit-000000.parquet").stat().st_mtime_ns
    _, again, _ = mce()
    assert "2 of 3 units are done already" in again
    assert {path.name: path.read_bytes() for path in folder.glob("unit-*")} == before
    assert (folder / "unit-000000.parquet").stat().st_mtime_ns == untouched
    assert _table(first) == _table(again)


def _table(out: str) -> str:
    return out[out.index("┏") :]
