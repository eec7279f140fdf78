"""Checkpoints from paths and URLs, and files that must not be read."""

from __future__ import annotations

import argparse
import fractions
import json
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_file, save_model
from torch import nn

from dtn_det.checkpoints.files import check_checkpoint
from dtn_det.checkpoints.load import load_weights
from dtn_det.checkpoints.read import read_checkpoint
from dtn_det.errors import CheckpointError, CheckpointNotFoundError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor([True])}


def assert_is_state(found: dict) -> None:
    assert set(found) == set(STATE)
    assert all(torch.equal(found[key], value) for key, value in STATE.items())


class Server(ThreadingHTTPServer):
    """Serves a folder on this machine and keeps the paths that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        requests = self.requests

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                requests.append(self.path)

        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    (tmp_path / "served").mkdir()
    with Server(tmp_path / "served") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("as_path", [str, Path])
def test_path(tmp_path: Path, as_path: type) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    assert_is_state(read_checkpoint(as_path(tmp_path / "a.pth")))


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(STATE, tmp_path / "a.pth")
    assert_is_state(read_checkpoint("~/a.pth"))


def test_file_url_with_a_space(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a b.pth")
    assert_is_state(read_checkpoint((tmp_path / "a b.pth").as_uri()))


def test_safetensors(tmp_path: Path) -> None:
    pytest.importorskip("safetensors.torch").save_file(STATE, tmp_path / "a.safetensors")
    assert_is_state(read_checkpoint(tmp_path / "a.safetensors"))


def test_safetensors_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.safetensors").touch()
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"needs `safetensors`: pip install .*'dtn-det\[det\]'"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_http_is_fetched_once_and_told_apart_by_url(tmp_path: Path, server: Server) -> None:
    other = {"c": torch.ones(1)}
    for name, state in (("one", STATE), ("two", other)):
        (tmp_path / "served" / name).mkdir()
        torch.save(state, tmp_path / "served" / name / "model.pth")
    for _ in range(2):
        assert_is_state(read_checkpoint(f"{server.url}/one/model.pth?download=true"))
        assert set(read_checkpoint(f"{server.url}/two/model.pth")) == {"c"}
    assert len(server.requests) == 2


def test_what_cannot_be_fetched_is_one_message(server: Server) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"expected to fetch http.*/none\.pth, got HTTPError: HTTP Error 404: .*: check the network",
    ):
        read_checkpoint(f"{server.url}/none.pth")


def test_distributed_run_fetches_once(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads stand for the two processes; a barrier without its partner fails in its timeout."""
    torch.save(STATE, tmp_path / "served" / "model.pth")
    local, barrier = threading.local(), threading.Barrier(2)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: local.rank)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: barrier.wait(timeout=60))

    def read(rank: int) -> dict[str, Any]:
        local.rank = rank
        return read_checkpoint(f"{server.url}/model.pth")

    with ThreadPoolExecutor(2) as pool:
        for state in pool.map(read, range(2)):
            assert_is_state(state)
    assert len(server.requests) == 1


def test_what_training_scripts_store_beside_the_weights(tmp_path: Path) -> None:
    """Arguments and numpy numbers, as the authors' and timm's training scripts leave them."""
    extras = {
        "args": argparse.Namespace(lr=1e-3, name="pvt"),
        "metric": np.float64(0.5),
        "history": np.arange(3),
        "epoch": 7,
    }
    torch.save({"model": STATE, **extras}, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert_is_state(found["model"])
    assert found["args"].lr == 1e-3


class Innocent:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (os.system, ("touch pwned",))


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": STATE, "config": Innocent()}, "a.pth")
    with pytest.raises(
        CheckpointError, match=r"expected a\.pth to be a checkpoint of tensors and plain data.*if you trust"
    ):
        read_checkpoint("a.pth")
    assert not Path("pwned").exists()


def test_the_class_of_a_foreign_object_is_named(tmp_path: Path) -> None:
    torch.save({"model": STATE, "config": fractions.Fraction(1, 2)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(tmp_path / "a.pth")
    assert str(error.value).startswith(
        f"expected {tmp_path / 'a.pth'} to be a checkpoint of tensors and plain data, got one with an object of "
        "fractions.Fraction: if you trust where it comes from, load it with torch.load(path, weights_only=False)"
    )
    assert "\x1b" not in str(error.value)


class Attribute:
    """Reaches for an attribute when it is unpickled, the step before running code."""

    def __init__(self, owner: object, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self) -> tuple:
        return (getattr, (self.owner, self.name))


@pytest.mark.parametrize("name", ["__init__", "_set_default_statistics"])
def test_getattr_in_a_file_reaches_log_methods_alone(tmp_path: Path, name: str) -> None:
    history = pytest.importorskip("mmengine.logging.history_buffer").HistoryBuffer
    torch.save({"a": Attribute(history, "mean")}, tmp_path / "fine.pth")
    assert read_checkpoint(tmp_path / "fine.pth")["a"] is history.mean
    for owner in (history, argparse.Namespace):
        torch.save({"a": Attribute(owner, name if owner is history else "_get_args")}, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match=r"expected .* to be a checkpoint of tensors and plain data"):
            read_checkpoint(tmp_path / "a.pth")


def test_damaged_file(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        CheckpointError, match=r"to be a checkpoint, got a damaged file .*: delete it and fetch it again"
    ):
        read_checkpoint(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"to be a checkpoint, got a damaged file .*: delete it and fetch it again"
    ):
        read_checkpoint(tmp_path / "a.pth")


def test_damaged_safetensors_file(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(
        CheckpointError, match=r"to be a checkpoint, got a damaged file .*: delete it and fetch it again"
    ):
        read_checkpoint(tmp_path / "a.safetensors")


def test_file_with_something_else_than_a_dict(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="to hold a dict, got Tensor: save a state dict"):
        read_checkpoint(tmp_path / "a.pth")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"expected a checkpoint file at .*none\.pth, got none"):
        read_checkpoint(tmp_path / "none.pth")


def test_unsupported_scheme() -> None:
    with pytest.raises(
        CheckpointError, match=r"expected a path or a URL with file://, http:// or https://, got 's3://b/a"
    ):
        read_checkpoint("s3://b/a.pth")


def test_pickle_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": {1, 2, np.random.default_rng}}))
    with pytest.raises(CheckpointError, match="to be a checkpoint of tensors and plain data"):
        read_checkpoint(tmp_path / "a.pkl")


PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def write_parts(folder: Path, stale: bool = False, index: dict | None = None) -> Path:
    """Weights in two parts; stale ones in the second are those that the index has in the first."""
    save = pytest.importorskip("safetensors.torch").save_file
    folder.mkdir()
    old = {"a.weight": torch.full((2, 3), 9.0), "gone": torch.ones(1)} if stale else {}
    save({"a.weight": STATE["a.weight"]}, folder / PARTS[0])
    save({"b": STATE["b"], **old}, folder / PARTS[1])
    places = {"a.weight": PARTS[0], "b": PARTS[1]} if index is None else index
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


@pytest.mark.parametrize("stale", [False, True])
def test_the_index_decides_what_is_taken_from_which_part(tmp_path: Path, stale: bool) -> None:
    folder = write_parts(tmp_path / "model", stale)
    assert_is_state(read_checkpoint(folder))
    index = folder / "model.safetensors.index.json"
    assert_is_state(read_checkpoint(index))
    assert [check_checkpoint(str(path)) for path in (folder, index)] == [str(folder), str(index)]


@pytest.mark.parametrize("read", [read_checkpoint, lambda path: check_checkpoint(str(path))])
def test_one_part_alone_is_told_with_what_to_name(tmp_path: Path, read: Callable[[Path], object]) -> None:
    folder = write_parts(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"which is part 1 of 2: name the index, .*\.index\.json, or the folder"):
        read(folder / PARTS[0])
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"which is part 2 of 2: fetch the others and model\.safetensors\.index"):
        read(folder / PARTS[1])


def test_a_single_part_is_whole(tmp_path: Path) -> None:
    pytest.importorskip("safetensors.torch").save_file(STATE, tmp_path / "model-00001-of-00001.safetensors")
    assert_is_state(read_checkpoint(tmp_path / "model-00001-of-00001.safetensors"))


@pytest.mark.parametrize("text", ["{", "[]", '{"metadata": {}}', '{"weight_map": ["a"]}'])
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    folder = write_parts(tmp_path / "model")
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json to have a weight_map of names and files, got .*: fetch it"):
        read_checkpoint(folder)


def test_parts_that_lack(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "model")
    (folder / PARTS[1]).unlink()
    with pytest.raises(CheckpointNotFoundError, match=rf"the parts that .* names, got none of {PARTS[1]}: fetch the"):
        read_checkpoint(folder)


def test_tensors_that_their_part_lacks(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "model", index={"a.weight": PARTS[0], "b": PARTS[0], "c": PARTS[1]})
    with pytest.raises(CheckpointError, match=r"that .* names in its parts, got 2 missing \(b, c\): fetch the parts"):
        read_checkpoint(folder)


def tied(shared: bool = True) -> nn.Module:
    """Two levels whose convolutions are one module, beside norms of their own, as of RTMDet's head."""
    torch.manual_seed(5)
    levels = [nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)) for _ in range(2)]
    if shared:
        levels[1][0] = levels[0][0]
    return nn.ModuleDict({"levels": nn.ModuleList(levels), "last": nn.Linear(2, 2)})


def test_names_that_safetensors_keeps_in_the_metadata_alone(tmp_path: Path) -> None:
    there, oracle, here = tied(), tied(), tied()
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.normal_()
    save_model(there, str(tmp_path / "a.safetensors"))
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert len(file.keys()) == len(there.state_dict()) - 2
    load_model(oracle, tmp_path / "a.safetensors")
    state = read_checkpoint(tmp_path / "a.safetensors")
    assert list(state) != list(there.state_dict())
    assert set(state) == set(there.state_dict())
    loaded = load_weights(here, str(tmp_path / "a.safetensors"))
    assert loaded.remarks == ()
    for name, value in there.state_dict().items():
        assert torch.equal(state[name], value)
        assert torch.equal(here.state_dict()[name], value)
        assert torch.equal(oracle.state_dict()[name], value)


def test_other_metadata_names_no_tensors(tmp_path: Path) -> None:
    metadata = {"format": "pt", "b": "a", "c": "none", "a": "d", "e": "b"}
    save_file({"a": torch.ones(1), "d": torch.zeros(1)}, tmp_path / "a.safetensors", metadata)
    state = read_checkpoint(tmp_path / "a.safetensors")
    assert {name: float(value) for name, value in state.items()} == {"a": 1, "b": 1, "d": 0}


@pytest.mark.parametrize("absent", ["levels.0.0", "levels.1.0"])
def test_one_name_of_a_tensor_is_enough_in_any_file(absent: str, tmp_path: Path) -> None:
    """As of `pytorch_model.bin`, which holds a tied tensor once and has no metadata."""
    there, here = tied(), tied()
    with torch.no_grad():
        there["levels"][0][0].weight.normal_()
    state = {name: value for name, value in there.state_dict().items() if not name.startswith(absent)}
    assert len(state) == len(there.state_dict()) - 2
    torch.save(state, tmp_path / "pytorch_model.bin")
    loaded = load_weights(here, str(tmp_path / "pytorch_model.bin"))
    assert set(loaded.state) == set(there.state_dict())
    assert torch.equal(here["levels"][1][0].weight, there["levels"][0][0].weight)
    with pytest.raises(CheckpointError, match=rf"got others: 2 missing \({absent}\.weight, {absent}\.bias\)"):
        load_weights(tied(shared=False), str(tmp_path / "pytorch_model.bin"))


def test_different_weights_under_the_names_of_one_tensor_are_refused(tmp_path: Path) -> None:
    torch.save(tied(shared=False).state_dict(), tmp_path / "a.pth")
    message = r"2 different where the model has one tensor \(levels\.0\.0\.weight and levels\.1\.0\.weight, .*share"
    with pytest.raises(CheckpointError, match=message):
        load_weights(tied(), str(tmp_path / "a.pth"))
