"""The store by itself: what it refuses, what it cleans up, how it is cut into units."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.corruptions.cells import Cell, sweep_cells
from dtn_det.datasets.remarks import Remark
from dtn_det.errors import StoreError
from dtn_det.robustness.store import Store
from dtn_det.robustness.store.files import BAD_IMAGES, bad_images_of
from dtn_det.robustness.store.manifest import ModelManifest, StoreManifest, differences, hash_lines, hash_weights
from dtn_det.robustness.sweep import Rank, current_rank, joined, pick_device, run_sweep
from dtn_det.system.files import locked

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

    def block_size(self, ahead):
        return 2

    def loading(self, images, ahead):
        return Numbers(self.die), iter(images)

    def evaluate(self, items, names):
        return dict.fromkeys(names, records(list(items)))


def records(images: Sequence[int], cells: Sequence[int] = (0, 1)) -> arrow.Table:
    """Rows of images under all cells."""
    return arrow.table({"image": [i for i in images for _ in cells], "cell": [c for _ in images for c in cells]})


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
    assert [row["image"] for table in model.batches() for row in table.to_pylist()][::2] == list(range(7))


def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    store = make(tmp_path / "store")
    with pytest.raises(ChildProcessError, match="start again with fewer --workers"):
        run_sweep(store, [store.add_model(MODEL)], Task(die=True), workers=1)


class FailingTask(Task):
    """Fails as a model does, or as torch does when a worker dies while a model is at work."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__()
        self.error = error

    def evaluate(self, items, names):
        raise self.error


def test_a_worker_that_dies_while_the_model_works_is_told_as_well(tmp_path: Path) -> None:
    store = make(tmp_path / "store")
    model = store.add_model(MODEL)
    died = FailingTask(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))
    with pytest.raises(ChildProcessError, match=r"got one that died .DataLoader worker .pid 7. is killed by signal"):
        run_sweep(store, [model], died, workers=0)
    failed = FailingTask(RuntimeError("Caught RuntimeError in DataLoader worker process 0."))
    with pytest.raises(RuntimeError, match="Caught RuntimeError"):
        run_sweep(store, [model], failed, workers=0)


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
        ('{"format": 1}', "got one that is damaged .*: put back a copy of it"),
        (json.dumps({**MANIFEST.to_dict(), "unit_size": 0}), "damaged .expected at least one image, .* got 7, 0 and 2"),
        (json.dumps({**MANIFEST.to_dict(), "num_images": "7"}), "got one that is damaged"),
        (json.dumps({**MANIFEST.to_dict(), "cells": [["fog"]]}), "got one that is damaged"),
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
        # A store of earlier versions may call the same images of a part of a tree all of them.
        {"selection": "limit=7 of 9 seed=0", "data_hash": "other"},
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
    store.add_model(MODEL).write(0, records([0]))
    field = "batch_size" if "protocol" in change else next(iter(change))
    with pytest.raises(StoreError, match=rf"\n  {field}: the store has"):
        store.add_model(replace(MODEL, **change))
    assert store.add_model(replace(MODEL, versions={"torch": "3"})).manifest == MODEL


def test_differences_are_told_so_that_people_can_read_them() -> None:
    cells = [["fog", severity] for severity in range(1, 6)]
    old = {"data_hash": "a" * 64, "cells": [["clean", 0], ["snow", 1], *cells], "corruption": f"x frost={'b' * 64}"}
    new = {"data_hash": "c" * 64, "cells": [["clean", 0], ["snow", 2]], "corruption": f"x frost={'d' * 64}"}
    listed, corruption, data = differences(old, new)
    assert corruption == f"corruption: the store has 'x frost={'b' * 12}', this run 'x frost={'d' * 12}'"
    assert listed == (
        "cells: the store has 7, this run 2; only the store has snow 1, fog 1, fog 2, fog 3, fog 4 and 1 more; "
        "only this run has snow 2"
    )
    assert data == (
        f"data_hash: the store has '{'a' * 12}', this run '{'c' * 12}' (names, sizes and labels of the images)"
    )
    (order,) = differences({"cells": cells}, {"cells": cells[::-1]})
    assert order == "cells: the store has 5, this run 5, in another order"


def test_a_store_of_folders_that_were_numbered_by_the_order_of_their_names() -> None:
    """Earlier versions called that `folder`; the labels are those of `sorted` today."""
    old = {"data_hash": "a", "protocol": {"classes": "folder"}}
    told = [Remark("numbered_folders", "folders are numbered as they are named", "data", 12).to_dict()]
    (line,) = differences(old, {"data_hash": "b", "protocol": {"classes": "folder"}, "remarks": told})
    assert line.endswith(
        "earlier versions took numbered folders by the text order of their names, as --classes sorted does)"
    )
    for same in ("sorted", "natural"):
        assert differences(old, {"data_hash": "a", "protocol": {"classes": same}, "remarks": told}) == []
    newer = {**old, "recognised": {"dataset": ""}}
    (line,) = differences(newer, {"data_hash": "b", "protocol": {"classes": "folder"}, "remarks": told})
    assert line.endswith("(names, sizes and labels of the images)")
    assert len(differences(old, {"data_hash": "a", "protocol": {"classes": "imagenet"}})) == 1


def test_what_is_damaged_or_absent_is_named(tmp_path: Path) -> None:
    store = make(tmp_path)
    with pytest.raises(StoreError, match=r"expected a model out of \(none\) in .*, got 'net'"):
        store.model("net")
    model = store.add_model(MODEL)
    (model.folder / "unit-000000.parquet").write_bytes(b"rubbish")
    with pytest.raises(StoreError, match="Delete the file and start again"):
        model.read(0)


@pytest.mark.parametrize(
    "rows",
    [
        records([0, 1]),
        records([0, 1, 2, 2]),
        records([0, 1, 3]),
        records([0, 1, 2], cells=[0]),
        records([0, 1, 2], cells=[0, 2]),
        arrow.table({"image": [0, None], "cell": [0, 1]}),
        arrow.table({"image": [0, 1]}),
        records([0, 1]).replace_schema_metadata({BAD_IMAGES: b"{"}),
        records([0, 1]).replace_schema_metadata({BAD_IMAGES: b'{"5": "of another unit"}'}),
        records([0, 1, 2]).replace_schema_metadata({BAD_IMAGES: b'{"2": "has rows"}'}),
    ],
)
def test_records_that_are_not_those_of_their_unit(tmp_path: Path, rows: arrow.Table) -> None:
    model = make(tmp_path).add_model(MODEL)
    model.write(0, rows)
    with pytest.raises(
        StoreError, match=r"expected records in .*unit-000000.parquet, got: .*Delete the file and start"
    ):
        model.read(0)


def test_bad_images_have_no_rows(tmp_path: Path) -> None:
    model = make(tmp_path).add_model(MODEL)
    model.write(0, records([0, 2]).replace_schema_metadata({BAD_IMAGES: b'{"1": "cut off"}'}))
    assert bad_images_of(model.read(0, ["image"])) == {1: "cut off"}
    assert model.read(0, ["image"]).column_names == ["image"]


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    model = make(tmp_path).add_model(MODEL)
    model.write(0, records([0, 1, 2]).append_column("correct", arrow.array([True, False] * 3)))
    path = model.folder / "unit-000000.parquet"
    whole, sound = path.read_bytes(), model.read(0).to_pydict()
    for place in range(4, 200):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with contextlib.suppress(StoreError):
            assert model.read(0).to_pydict() == sound


def test_what_is_no_unit_of_the_sweep_does_not_count(tmp_path: Path) -> None:
    model = make(tmp_path).add_model(MODEL)
    (model.folder / "unit-000009.parquet").write_bytes(b"")
    (model.folder / "unit-000001.parquet").mkdir()
    (model.folder / "unit-000002.parquet").symlink_to("nowhere")
    assert model.finished() == set()
    assert model.pending() == [0, 1, 2]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"name": 3}', "\xff"])
def test_a_damaged_manifest_of_a_model(tmp_path: Path, content: str) -> None:
    store = make(tmp_path)
    (store.add_model(MODEL).folder / "model.json").write_bytes(content.encode("latin1"))
    for call in (store.models, lambda: store.add_model(MODEL)):
        with pytest.raises(StoreError, match=r"model\.json, got .*: put back a copy of it, or"):
            call()


def test_two_folders_of_one_model(tmp_path: Path) -> None:
    store = make(tmp_path)
    shutil.copytree(store.add_model(MODEL).folder, tmp_path / "models" / "copy")
    with pytest.raises(StoreError, match=r"expected models of different names, got 'net' in .*copy and in .*net: del"):
        store.models()


@pytest.mark.parametrize("damage", ["absent", "empty", "other"])
def test_the_list_of_images_is_written_again(tmp_path: Path, damage: str) -> None:
    store = make(tmp_path)
    path = tmp_path / "images.parquet"
    if damage == "other":
        arrow.parquet.write_table(IMAGES.slice(1), path)
    else:
        path.unlink()
        if damage == "empty":
            path.touch()
        with pytest.raises(StoreError, match=r"expected the list of images in .*\. Start the run again"):
            store.images()
    assert make(tmp_path).images() == IMAGES


NAMES = (".", "..", "../../etc", "a/b", "a b", "a_b", "a:b", "模型", "型模", ".x", "x" * 300, "-", "a" * 80)


def test_every_name_has_a_folder_of_its_own_inside_the_store(tmp_path: Path) -> None:
    store = make(tmp_path / "store")
    for name in NAMES:
        model = store.add_model(replace(MODEL, name=name))
        assert model.folder.parent == tmp_path / "store" / "models"
        model.write(0, records([0, 1, 2]))
    assert set(store.models()) == set(NAMES)
    assert all(store.add_model(replace(MODEL, name=name)).finished() == {0} for name in NAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x1b[31m", "\ud800"])
def test_names_that_cannot_be_printed(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match=r"expected a name that can be printed on one line, got '.*': give another"):
        make(tmp_path).add_model(replace(MODEL, name=name))


def test_two_processes_cannot_begin_one_store(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with locked(folder, "--store"), pytest.raises(ValueError, match="got another dtn-det at work there"):
        make(folder)
    make(folder)
    # Once it is there, it can be opened while another process writes.
    with locked(folder, "--store"):
        assert make(folder).manifest == MANIFEST


def test_the_store_may_not_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"expected --store to be a folder, got the file .*file: name another"):
        make(tmp_path / "file")


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


def test_another_process_that_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed() -> None:
        raise RuntimeError("Connection closed by peer [127.0.0.1]:32654")

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "barrier", closed)
    rank = current_rank()
    assert (rank.number, rank.count, rank.is_first) == (1, 2, False)
    with pytest.raises(ConnectionError, match="expected all processes of the run to go on, got one that ended"):
        rank.barrier()


def test_processes_on_the_cpu_wait_for_days(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, timeout: waits.append(timeout))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with joined("pytorch", "cpu"):
        assert waits == [timedelta(days=7)]


@pytest.mark.parametrize("name", ["meta", "mps", "xpu"])
def test_devices_that_cannot_compute(name: str) -> None:
    if torch.accelerator.is_available() and torch.accelerator.current_accelerator().type == name:
        pytest.skip(f"this machine has {name}")
    with pytest.raises(ValueError, match=f"expected a device of this machine, got '{name}', with which torch cannot"):
        pick_device(name)


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
