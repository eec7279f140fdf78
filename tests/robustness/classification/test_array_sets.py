"""`dtn-det mce` on sets whose images are rows of a file."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from array_sets import LABELS, clean_images, write_batches, write_cifar_c, write_parquet
from PIL import Image

from dtn_det.cli.main import main
from dtn_det.corruptions import Corruptor
from dtn_det.corruptions.catalog import BENCHMARK, CIFAR_C_BAR_CATALOG
from dtn_det.corruptions.cells import CLEAN, Cell
from dtn_det.metrics import mean_error
from dtn_det.metrics.formulas import Summary
from dtn_det.robustness.classification.data import Prepared, prepare
from dtn_det.robustness.classification.images import ClassificationImages, CorruptedRows, Item, ViewSlots, see
from dtn_det.robustness.classification.models.classifier import View
from dtn_det.robustness.classification.records import score
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

class Reused(Colours):
    """Returns the same memory for every batch, as CUDA graphs do."""

    answers = torch.empty(4, 10)

    def forward(self, images):
        return self.answers[:len(images)].copy_(super().forward(images))

def reused():
    return Reused(10)

def convolutions():
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(3, 16, 3, 2), torch.nn.Conv2d(16, 32, 3, 2)
    pool = torch.nn.AdaptiveAvgPool2d(1)
    layers = [first, torch.nn.ReLU(), second, torch.nn.ReLU(), pool, torch.nn.Flatten(), torch.nn.Linear(32, 10)]
    return torch.nn.Sequential(*layers)
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


def read_items(prepared: Prepared, numbers: Sequence[int], view: View) -> tuple[list[Item], torch.Tensor]:
    """Read some images into slots of their own as a worker process does, which gets the source pickled."""
    source, images = pickle.loads(pickle.dumps((prepared.source, prepared.images.images)))
    slots = ViewSlots([view], len(source), 32, len(numbers), shared=False)
    data = ClassificationImages(images, source, [view], slots.stacks)
    return data.__getitems__([(number, slot) for slot, number in enumerate(numbers)]), slots.stacks[0]


@pytest.mark.parametrize("view", [View(), View((16, 20))])
@pytest.mark.parametrize("rows", [range(10), (3, 4, 9, 0, 1), (7,)])
def test_images_that_are_read_together_are_those_that_are_read_alone(
    tmp_path: Path, view: View, rows: Sequence[int]
) -> None:
    data = write_cifar_c(tmp_path / "c")
    write_batches(tmp_path / "clean")
    prepared = prepare(options(data, clean=tmp_path / "clean", severities=(2, 5)))
    items, pixels = read_items(prepared, rows, view)
    assert items == [Item(row, slot) for slot, row in enumerate(rows)]
    arrays = {name: np.load(data / f"{name}.npy") for name in ("fog", "contrast")}
    for slot, row in enumerate(rows):
        for number, cell in enumerate(prepared.cells):
            clean = cell == CLEAN
            wanted = clean_images()[row] if clean else arrays[cell.corruption][(cell.severity - 1) * 10 + row]
            assert np.array_equal(pixels[slot, number].numpy(), see(wanted, view))


def test_of_images_that_are_read_together_the_bad_one_is_named(tmp_path: Path) -> None:
    data = write_cifar_c(tmp_path / "c", ("fog",))
    prepared = prepare(options(data, severities=(5,)))
    with (data / "fog.npy").open("r+b") as file:
        file.truncate((data / "fog.npy").stat().st_size - 3072 - 5)
    items, pixels = read_items(prepared, range(10), View())
    assert [item.error for item in items] == [None] * 8 + [f"{data}/fog.npy: row {row} is cut off" for row in (48, 49)]
    assert np.array_equal(pixels[7, 0].numpy(), clean_images()[7] // 6)


def test_few_images_are_read_together_where_memory_is_short() -> None:
    def rows(cells: int, side: int) -> CorruptedRows:
        return CorruptedRows({}, tuple(Cell("fog", number) for number in range(cells)), {}, side)

    assert rows(1, 32).block_size(4) == 32
    # 95 cells of 32 x 32 are 291,840 bytes, and 5 blocks have 2**25; 224 x 224 are more than the share of a block.
    assert rows(95, 32).block_size(4) == 22
    assert rows(95, 224).block_size(4) == 1


def test_a_model_that_answers_in_the_same_memory_has_its_own_answers(mce, tmp_path: Path) -> None:
    data = write_cifar_c(tmp_path / "c")
    mce(data, "--severities", "1", "--batch-size", "4")
    mce(data, "--severities", "1", "--batch-size", "4", store="reused", model="reused")
    for cell, answers in predictions(tmp_path / "store").items():
        assert np.array_equal(predictions(tmp_path / "reused")[cell], answers)


@pytest.mark.parametrize("classes", [7, 10, 100, 1000])
def test_answers_that_are_scored_together_are_scored_as_alone(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(95, classes, generator=generator)
    labels = torch.randint(classes, (95,), generator=generator)
    together = score(logits, labels, "model")
    for size in (1, 2, 13, 60):
        parts = [score(a, b, "model") for a, b in zip(logits.split(size), labels.split(size), strict=True)]
        for name, values in together.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), values)


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "names"), [("cifar-c", BENCHMARK), ("cifar-c-bar", CIFAR_C_BAR_CATALOG.benchmark)])
def test_arrays_that_were_written_give_the_records_of_corrupting_on_the_fly(
    mce, tmp_path: Path, shared_dir: Path, profile: str, names: Sequence[str]
) -> None:
    source = shared_dir / "data" / "cifar" / "cifar10_exact_subset.npz"
    if not source.is_file():
        pytest.skip(f"no {source}")
    clean = {name: np.load(source)[f"{name}_test"][:500] for name in ("x", "y")}
    for folder in ("clean", "arrays"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "clean" / "images.npy", clean["x"])
    np.save(tmp_path / "clean" / "classes.npy", clean["y"])
    corruptor = Corruptor(profile)
    for name in names:
        rows = [
            corruptor(pixels, name, severity, f"{row:05}")
            for severity in range(1, 6)
            for row, pixels in enumerate(clean["x"])
        ]
        np.save(tmp_path / "arrays" / f"{name}.npy", np.stack(rows))
    np.save(tmp_path / "arrays" / "labels.npy", np.tile(clean["y"], 5))
    mce(tmp_path / "clean", "--profile", profile, store="made", model="convolutions")
    read = mce(
        tmp_path / "arrays", "--clean", str(tmp_path / "clean"), "--workers", "2", store="read", model="convolutions"
    )
    assert "500 images of 32 x 32" in " ".join(read.split())
    made, read_back = (Store.open(tmp_path / store) for store in ("made", "read"))
    assert made.manifest.cells == read_back.manifest.cells
    assert len(made.manifest.cells) == 1 + 5 * len(names)
    tables = [list(store.model("convolutions").batches()) for store in (made, read_back)]
    assert sum(table.num_rows for table in tables[0]) == 500 * len(made.manifest.cells)
    assert all(one.equals(other) for one, other in zip(*tables, strict=True))


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
