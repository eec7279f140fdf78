"""How the tests of `dtn-det mpc` run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from dtn_det.cli.main import main

FEW = ("--corruptions", "contrast", "--severities", "2", "--unit-size", "2", "--device", "cpu", "--workers", "0")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Records are compared with those of other runs, and sums depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def mpc(detector: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `dtn-det mpc` in this process under two cells: the exit code, output and errors on one line each."""

    def run(*options: str, model: tuple[str, str] = detector, store: str = "store") -> tuple[int, str, str]:
        code = main(["mpc", *model, "--store", str(tmp_path / store), *FEW, *options])
        captured = capsys.readouterr()
        return code, " ".join(captured.out.split()), " ".join(captured.err.split())

    return run


@pytest.fixture(scope="session")
def finished_mpc(detector: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store of the cells of :func:`mpc`; to be copied before it is changed."""
    folder = tmp_path_factory.mktemp("results") / "store"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main(["mpc", *detector, "--store", str(folder), *FEW]) == 0
    torch.set_num_threads(before)
    return folder


@pytest.fixture(scope="session")
def ssd_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a detector of torchvision with three classes and a background."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    builder = torchvision.models.detection.ssdlite320_mobilenet_v3_large
    path = tmp_path_factory.mktemp("weights") / "own.pth"
    model = builder(weights=None, weights_backbone=None, num_classes=4)
    torch.save({"model": model.state_dict(), "classes": ["disc", "square", "bar"]}, path)
    return path
