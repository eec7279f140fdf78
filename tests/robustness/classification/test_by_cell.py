"""Sweeps cell by cell, of models that adapt while they are tested."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from class_folders import write_folders
from ranks import run_ranks
from warm_python import WarmPython

from dtn_det.check.artefacts import check_artefact
from dtn_det.cli.main import main
from dtn_det.corruptions.cells import CLEAN, sweep_cells
from dtn_det.corruptions.engine import Corruptor
from dtn_det.datasets.choosing import shuffled
from dtn_det.errors import InputError
from dtn_det.robustness import store as store_module
from dtn_det.robustness.classification.by_cell import cell_order
from dtn_det.robustness.classification.images import read_clean
from dtn_det.robustness.options import ClassificationOptions
from dtn_det.robustness.store import Store
from dtn_det.robustness.store.blocks import Blocks

MODELS = '''
import copy
import torch
from torch import nn

class Little(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 5, stride=4), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, images):
        return self.head(self.norm(self.conv(images)).relu().mean((2, 3)))

class RunningStatistics(Little):
    """Blends the statistics of each batch into those of BatchNorm before it answers."""

    def __init__(self):
        super().__init__()
        self.start = copy.deepcopy(self.state_dict())

    def forward(self, images):
        self.norm.train()
        super().forward(images)
        self.norm.eval()
        return super().forward(images)

    def reset(self):
        self.load_state_dict(self.start)

class Tent(Little):
    """Takes the statistics of each batch, and lowers the entropy of its answers by a step on the norm's weights."""

    def __init__(self):
        super().__init__()
        self.norm.track_running_stats, self.norm.running_mean, self.norm.running_var = False, None, None
        self.start = copy.deepcopy(self.state_dict())
        self.optimizer = torch.optim.SGD(self.norm.parameters(), lr=0.5, momentum=0.9)
        self.fresh = copy.deepcopy(self.optimizer.state_dict())

    @torch.enable_grad()
    def forward(self, images):
        answers = super().forward(images)
        entropy = -(answers.softmax(1) * answers.log_softmax(1)).sum(1).mean()
        entropy.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return answers

    def reset(self):
        self.load_state_dict(self.start)
        self.optimizer.load_state_dict(self.fresh)

class Noisy(Little):
    def forward(self, images):
        return super().forward(images + torch.rand_like(images))

class Later(Little):
    """Changes only after its tenth image."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.count = 0

    def forward(self, images):
        self.count += len(images)
        if self.count > 10:
            self.seen += 1
        return super().forward(images)

class Table(Little):
    """Makes a table for the size of the image at its first batch."""

    def forward(self, images):
        self.register_buffer("table", torch.arange(images.shape[-1]))
        return super().forward(images)

class Halfway(RunningStatistics):
    def reset(self):
        self.norm.running_mean.zero_()

class Failing(RunningStatistics):
    def reset(self):
        raise RuntimeError("no way back")

def statistics():
    return RunningStatistics()

def tent():
    return Tent()

def little():
    return Little().eval()

def batch_statistics():
    return Little().train()

def noisy():
    return Noisy().eval()

def later():
    return Later().eval()

def table():
    return Table().eval()

def halfway():
    return Halfway()

def failing():
    return Failing()

def five_classes():
    network = RunningStatistics()
    network.head = nn.Linear(6, 5)
    network.start = copy.deepcopy(network.state_dict())
    return network
'''
CLASSES = ("ant", "bee", "cat", "dog")
CORRUPTIONS, SEVERITIES = ("brightness", "contrast"), (2, 5)
BATCH = 5

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "adapting_models.py").write_text(MODELS)
    write_folders(tmp_path / "data", CLASSES, per_class=3, side=32)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "adapting_models", raising=False)
    return tmp_path


def command(model: str, *options: str, store: str = "store") -> list[str]:
    sources = [f"python:adapting_models:{name}" for name in model.split()]
    options = (*options, "--order", "cell") if "--order" not in options else options
    data = () if "--data" in options else ("--data", "data", "--profile", "cifar-c")
    sizes = ["--batch-size", str(BATCH), "--unit-size", "4", "--workers", "0", "--device", "cpu"]
    cells = ["--corruptions", *CORRUPTIONS, "--severities", *map(str, SEVERITIES)]
    return ["mce", *sources, "--store", store, *data, *cells, *sizes, *options]


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `dtn-det mce --order cell` in this process."""

    def mce(model: str, *options: str, store: str = "store") -> tuple[int, str, str]:
        code = main(command(model, *options, store=store))
        printed = capsys.readouterr()
        return code, " ".join(printed.out.split()), printed.err

    return mce


def rows(store: Path, model: str) -> list[dict[str, object]]:
    return [row for unit in Store.open(store).model(model).batches() for row in unit.to_pylist()]


def plain_loop(folder: Path, model: str, reset: str) -> Iterator[tuple[int, int, int, float]]:
    """Image, cell, prediction and confidence by a loop over cells and batches, in the order of a sorted list."""
    make = getattr(sys.modules["adapting_models"], model)
    keys = [path.relative_to(folder / "data").as_posix() for path in sorted((folder / "data").rglob("*.png"))]
    order, corruptor = shuffled(keys, 0), Corruptor("cifar-c")
    network, last, found = make(), "", []
    for cell, (name, severity) in enumerate(sweep_cells(CORRUPTIONS, SEVERITIES)):
        if reset == "cell" or (reset == "corruption" and name != last):
            network, last = make(), name
        for start in range(0, len(order), BATCH):
            numbers = order[start : start + BATCH]
            clean = [read_clean(str(folder / "data" / keys[number]), 32) for number in numbers]
            pixels = [
                one if name == "clean" else corruptor(one, name, severity, keys[number])
                for number, one in zip(numbers, clean, strict=True)
            ]
            images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous().float() / 255
            confidence, prediction = network(images).detach().softmax(1).max(1)
            found += zip(numbers, itertools.repeat(cell), prediction.tolist(), confidence.tolist(), strict=False)
    return iter(sorted(found))


@pytest.mark.parametrize("reset", ["cell", "corruption", "never"])
@pytest.mark.parametrize("model", ["statistics", "tent"])
def test_a_model_that_adapts_answers_as_in_a_plain_loop(run: Run, folder: Path, model: str, reset: str) -> None:
    code, out, err = run(model, "--reset", reset)
    assert code == 0, err
    assert "Evaluating: 60 of 60" in out
    columns = ("image", "cell", "prediction", "confidence")
    found = [tuple(row[name] for name in columns) for row in rows(folder / "store", model)]
    expected = list(plain_loop(folder, model, reset))
    assert [one[:3] for one in found] == [one[:3] for one in expected]
    assert [one[3] for one in found] == pytest.approx([one[3] for one in expected], abs=1e-6)
    manifest = Store.open(folder / "store").model(model).manifest
    assert {name: manifest.protocol[name] for name in ("order", "reset", "order_seed")} == {
        "order": "cell",
        "reset": reset,
        "order_seed": "0",
    }
    assert manifest.facts.flops is None


def test_resets_and_the_order_of_images_change_the_answers(run: Run, folder: Path) -> None:
    answers = set()
    for store, options in {"cell": (), "corruption": ("--reset", "corruption"), "order": ("--order-seed", "1")}.items():
        assert run("statistics", *options, store=store)[0] == 0
        answers.add(tuple(row["confidence"] for row in rows(folder / store, "statistics")))
    assert len(answers) == 3


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--reset", "never"], "reset: the store has 'cell', this run 'never'"),
        (["--order-seed", "1"], "order_seed: the store has '0', this run '1'"),
        (
            ["--order", "image"],
            "order: the store has 'cell', this run nothing (of evaluation, image by image ",
        ),
    ],
)
def test_other_orders_refuse_to_mix_even_in_a_store_without_units(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], field: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Blocks, "finish", lambda blocks, model: None)
        run("little")
    assert not Store.open(folder / "store").model("little").finished()
    (checked,) = check_artefact(folder / "store") or ()
    assert checked.facts["models"] == ["little (0 of 3 units, 5 blocks of --order cell)"]
    code, _, err = run("little", *options)
    assert code == 1
    assert field in err


@pytest.mark.parametrize("reset", ["cell", "corruption", "never"])
def test_a_run_that_is_stopped_goes_on_with_the_same_answers(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, reset: str
) -> None:
    """It stops while a block is evaluated, and once more while units are written."""
    assert run("statistics noisy", "--reset", reset, store="straight")[0] == 0
    models, answered = sys.modules["adapting_models"], 0
    forward = models.RunningStatistics.forward

    def stop(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        nonlocal answered
        answered += len(images)
        if answered > 30:
            raise RuntimeError("the power is out")
        return forward(network, images)

    with monkeypatch.context() as patch:
        patch.setattr(models.RunningStatistics, "forward", stop)
        assert "the power is out" in run("statistics noisy", "--reset", reset)[2]
    left = Store.open(folder / "store").model("statistics")
    assert len(left.blocks()) == {"cell": 2, "corruption": 1, "never": 0}[reset]
    assert not left.finished()
    real = store_module.write_bytes

    def fill_up(path: Path, data: bytes) -> None:
        if path.name == "unit-000001.parquet":
            raise OSError(28, "No space left on device")
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_bytes", fill_up)
        _, out, err = run("statistics noisy", "--reset", reset)
    assert reset == "never" or "of 5 corruptions and severities are done already" in out
    assert "No space left on device" in err
    assert left.finished() == {0}
    code, out, err = run("statistics noisy", "--reset", reset)
    assert code == 0, err
    for model in ("statistics", "noisy"):
        assert rows(folder / "store", model) == rows(folder / "straight", model)
    assert not list((folder / "store").rglob("block-*"))
    again = run("statistics noisy", "--reset", reset)[1]
    assert again.partition("Classification")[2] == out.partition("Classification")[2]


def test_a_damaged_block_is_named(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Blocks, "finish", lambda blocks, model: None)
        run("little")
    block = Store.open(folder / "store").model("little").blocks()[1]
    block.write_bytes(b"nothing")
    assert f"expected records in store/models/little/{block.name}, got" in run("little")[2]
    block.unlink()
    assert run("little")[0] == 0


def test_randomness_does_not_depend_on_other_models(run: Run, folder: Path) -> None:
    assert run("noisy")[0] == 0
    assert run("little noisy", store="both")[0] == 0
    assert rows(folder / "store", "noisy") == rows(folder / "both", "noisy")


def test_one_model_under_two_names_and_on_two_sets_is_loaded_for_each(run: Run, folder: Path) -> None:
    assert run("statistics statistics", "--reset", "never", "--names", "first", "second")[0] == 0
    assert rows(folder / "store", "first") == rows(folder / "store", "second")
    other = write_folders(folder / "other", CLASSES, per_class=2, side=32)
    alone = ("--data", str(other), "--profile", "cifar-c", "--reset", "never")
    assert run("statistics", *alone, store="alone")[0] == 0
    arguments = command("statistics", "--set", "all=data", "--set", f"other={other}", "--reset", "never", store="sets")
    del arguments[arguments.index("--data") : arguments.index("--data") + 2]
    assert main(["evaluate", *arguments[1:]]) == 0
    assert rows(folder / "sets" / "all", "statistics") == rows(folder / "store", "first")
    assert rows(folder / "sets" / "other", "statistics") == rows(folder / "alone", "statistics")


def test_a_model_that_does_not_adapt_answers_the_same_in_both_orders(run: Run, folder: Path) -> None:
    assert run("table")[0] == 0
    assert run("table", "--order", "image", store="image")[0] == 0
    by_cell, by_image = rows(folder / "store", "table"), rows(folder / "image", "table")
    assert [(row["image"], row["cell"], row["prediction"]) for row in by_cell] == [
        (row["image"], row["cell"], row["prediction"]) for row in by_image
    ]
    assert [row["confidence"] for row in by_cell] == pytest.approx([row["confidence"] for row in by_image], abs=1e-6)


@pytest.mark.parametrize(
    ("model", "name"), [("statistics", "norm.running_mean"), ("later", "seen"), ("tent", "norm.weight")]
)
def test_image_by_image_a_model_that_changes_is_refused(run: Run, folder: Path, model: str, name: str) -> None:
    code, _, err = run(model, "--order", "image")
    assert code == 1
    assert f"got another {name} after some images: evaluate a model that adapts with --order cell" in err
    assert not Store.open(folder / "store").model(model).finished()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "batch_statistics",
            "expected a method reset() of the model 'batch_statistics', whose norm.running_mean chan",
        ),
        ("later", "expected a method reset() of the model 'later', whose seen changes"),
        ("five_classes", "expected 4 logits for each of 5 images from the model 'five_classes', got the shape (5, 5)"),
        ("halfway", "expected reset() of the model 'halfway' to restore the parameters and buffers"),
        ("failing", "expected reset() of the model 'failing' to work without arguments, got RuntimeError: no way back"),
    ],
)
def test_a_model_that_cannot_be_reset_is_refused(run: Run, folder: Path, model: str, message: str) -> None:
    code, _, err = run(model)
    assert code == 1
    assert message in err
    if "reset" in message:
        code, _, err = run(model, "--reset", "never")
        assert code == 0, err


def test_options_that_do_not_fit_the_order_are_refused(run: Run, folder: Path) -> None:
    assert "got --reset never: add --order cell" in run("little", "--order", "image", "--reset", "never")[2]
    assert "got --order-seed: add --order cell" in run("little", "--order", "image", "--order-seed", "2")[2]
    options = ClassificationOptions(models=(), data=folder, store=folder, order="cell", reset="never")
    with pytest.raises(InputError, match="expected one process with --reset never, got 2"):
        cell_order(options, 2)
    assert cell_order(replace(options, reset="corruption"), 2) is not None


def test_an_image_that_is_bad_under_one_cell_is_left_out_of_all(run: Run, folder: Path) -> None:
    for name, severity in itertools.product(CORRUPTIONS, SEVERITIES):
        write_folders(folder / "tree" / name / str(severity), CLASSES, per_class=3, side=32)
    bad = folder / "tree" / "contrast" / "5" / "bee" / "image_1.png"
    bad.write_bytes(b"")
    code, out, err = run("statistics", "--data", "tree", "--on-bad-image", "record", "--reset", "corruption")
    assert code == 1
    assert out.count("left out of statistics: image ") == 1, err
    found = rows(folder / "store", "statistics")
    assert {row["image"] for row in found} == set(range(12)) - {4}
    assert len(found) == 11 * 4
    assert CLEAN not in Store.open(folder / "store").manifest.cells


@pytest.mark.slow
def test_workers_and_two_processes_give_the_answers_of_one(run: Run, folder: Path, warm_python: WarmPython) -> None:
    warm = warm_python.load("dtn_det.robustness.classification.run", "dtn_det.reports.sweep_results")
    assert run("statistics")[0] == 0
    assert run("statistics", "--workers", "2", store="workers")[0] == 0
    arguments = ["-m", "dtn_det.cli.main", *command("statistics", "--launcher", "pytorch", store="ranks")]
    run_ranks(warm, arguments, cwd=folder)
    for store in ("workers", "ranks"):
        assert rows(folder / store, "statistics") == rows(folder / "store", "statistics")
