"""The store by itself: what it refuses, what it cleans up, how it is cut into units."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as arrow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.robustness.cells import Cell, sweep_cells
from dtn_det.robustness.manifest import ModelManifest, StoreManifest, differences, hash_lines, hash_weights
from dtn_det.robustness.store import Store, StoreError
from dtn_det.robustness.sweep import Rank, run_sweep

MANIFEST = StoreManifest("classification", "data", "hash", 7, "all", "cifar-c", (Cell("clean", 0), Cell("fog", 1)), 3)
MODEL = ModelManifest("net", "timm:net", "weights", 5, {"batch_size": "4"}, {"torch": "2"})
IMAGES = arrow.table({"key": [str(number) for number in range(7)]})


def make(folder: Path) -> Store:
    return Store.create(folder, MANIFEST, IMAGES)


class Numbers(torch.utils.data.Dataset):
    def __init__(self, die: bool = False) -> None:
        self.die = die

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> int:
        if self.die:
            import os

            os._exit(3)
        return index


class Task:
    """Keeps the numbers of the images."""

    def __init__(self, die: bool = False) -> None:
        self.die = die

    def loading(self, images, ahead):
        return Numbers(self.die), iter(images)

    def evaluate(self, items, names):
        table = arrow.table({"image": list(items)})
        return dict.fromkeys(names, table)


def test_manifests_go_through_json(tmp_path: Path) -> None:
    store = make(tmp_path / "store")
    store.add_model(MODEL)
    again = Store.open(tmp_path / "store")
    assert again.manifest == MANIFEST
    assert again.model("net").manifest == MODEL
    assert again.images() == IMAGES


@given(images=st.integers(1, 300), size=st.integers(1, 50))
def test_units_hold_each_image_once(images: int, size: int) -> None:
    manifest = replace(MANIFEST, num_images=images, unit_size=size)
    units = [list(manifest.unit(number)) for number in range(manifest.num_units)]
    assert [image for unit in units for image in unit] == list(range(images))
    assert all(len(unit) == size for unit in units[:-1])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_ranks_share_the_units_without_loss(tmp_path: Path, count: int) -> None:
    store = make(tmp_path / "store")
    model = store.add_model(MODEL)
    for number in range(count):
        waiting = Rank(number, count)
        # Each rank lists what is pending before any commits; here they run one after the other.
        for done in model.finished():
            (model.folder / f"unit-{done:06d}.parquet").rename(model.folder / f"kept-{done:06d}")
        run_sweep(store, [model], Task(), workers=0, rank=waiting)
    for kept in model.folder.glob("kept-*"):
        kept.rename(kept.with_name(f"{kept.name.replace('kept', 'unit')}.parquet"))
    assert [row["image"] for table in model.batches() for row in table.to_pylist()] == list(range(7))


def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    store = make(tmp_path / "store")
    with pytest.raises(ChildProcessError, match="start again with fewer --workers"):
        run_sweep(store, [store.add_model(MODEL)], Task(die=True), workers=1)


def test_what_a_kill_leaves_is_cleared_away(tmp_path: Path) -> None:
    store = make(tmp_path / "store")
    model = store.add_model(MODEL)
    (model.folder / ".unit-000001.parquet.123.tmp").write_bytes(b"half")
    assert model.finished() == set()
    with store.writing():
        assert not list(model.folder.glob(".*"))


def test_stores_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"got no store\.json there"):
        Store.open(tmp_path)
    path = tmp_path / "store.json"
    for content, message in (
        ("{", "expected JSON in .*, got a damaged file"),
        ("[]", "expected a JSON object in .*, got list"),
        ('{"format": 1}', "got one that is damaged"),
        ('{"format": 2}', "got format 2: read it with the version"),
    ):
        path.write_text(content)
        with pytest.raises(StoreError, match=message):
            Store.open(tmp_path)


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(StoreError, match=r"to be empty or a store, got thesis\.tex"):
        make(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "detection"},
        {"data": "other"},
        {"data_hash": "other"},
        {"num_images": 8},
        {"selection": "limit=7 of 9 seed=0"},
        {"corruption": "cifar-c seed=1"},
        {"cells": (Cell("clean", 0),)},
        {"unit_size": 4},
        {"protocol": {"classes": "folder"}},
    ],
)
def test_each_field_of_a_store_refuses_to_mix(tmp_path: Path, change: dict[str, object]) -> None:
    make(tmp_path)
    field = "classes" if "protocol" in change else next(iter(change))
    with pytest.raises(StoreError, match=rf"\n  {field}: the store has"):
        Store.create(tmp_path, replace(MANIFEST, **change), IMAGES)


@pytest.mark.parametrize(
    "change", [{"source": "x"}, {"weights_hash": "x"}, {"num_parameters": 6}, {"protocol": {"batch_size": "8"}}]
)
def test_each_field_of_a_model_refuses_to_mix(tmp_path: Path, change: dict[str, object]) -> None:
    store = make(tmp_path)
    store.add_model(MODEL).write(0, arrow.table({"image": [0]}))
    field = "batch_size" if "protocol" in change else next(iter(change))
    with pytest.raises(StoreError, match=rf"\n  {field}: the store has"):
        store.add_model(replace(MODEL, **change))
    assert store.add_model(replace(MODEL, versions={"torch": "3"})).manifest == MODEL


def test_what_is_damaged_or_absent_is_named(tmp_path: Path) -> None:
    store = make(tmp_path)
    with pytest.raises(StoreError, match=r"expected a model out of \(none\) in .*, got 'net'"):
        store.model("net")
    model = store.add_model(MODEL)
    (model.folder / "unit-000000.parquet").write_bytes(b"rubbish")
    with pytest.raises(StoreError, match="Delete the file and start again"):
        model.read(0)


def test_differences_leave_versions_out_and_long_values_short() -> None:
    lines = differences({"versions": 1, "a": "x" * 500}, {"versions": 2, "a": "y"})
    assert len(lines) == 1
    assert "(502 characters), this run 'y'" in lines[0]


def test_hashes_tell_things_apart() -> None:
    assert hash_lines(["ab", "c"]) != hash_lines(["a", "bc"])
    weights = {"a": torch.zeros(2), "b": torch.ones(3, dtype=torch.bfloat16)}
    assert hash_weights(weights) == hash_weights(dict(reversed(weights.items())))
    assert hash_weights(weights) != hash_weights({**weights, "a": torch.zeros(2, 1)})
    assert hash_weights(weights) != hash_weights({**weights, "a": torch.zeros(2, dtype=torch.int32)})
    assert hash_weights({"a": torch.zeros(())}) != hash_weights({"a": torch.ones(())})


def test_cells_of_a_sweep() -> None:
    assert sweep_cells(("fog",), (2, 1)) == (Cell("clean", 0), Cell("fog", 2), Cell("fog", 1))
    assert len(sweep_cells()) == 76
    with pytest.raises(ValueError, match="expected each of corruptions once"):
        sweep_cells(("fog", "fog"))
    with pytest.raises(ValueError, match="expected each of severities once"):
        sweep_cells(("fog",), (1, 1))
    with pytest.raises(ValueError, match="expected a corruption out of"):
        sweep_cells(("mist",))
    with pytest.raises(ValueError, match="expected a severity"):
        sweep_cells(("fog",), (6,))
