"""Averages of the weights as libraries write them: which is taken, which is the other, and what cannot be taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dtn_det.check import inspect_path
from dtn_det.checkpoints.load import load_weights
from dtn_det.checkpoints.state_dict import averages_without_names
from dtn_det.errors import CheckpointError

State = dict[str, Tensor]
COUNT = torch.tensor(3)


def model() -> nn.Sequential:
    """A model whose names have several dots, with a buffer that LitEma does not average."""
    return nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.Linear(4, 2))


@pytest.fixture
def plain() -> State:
    return {name: value + 2 for name, value in model().state_dict().items()}


@pytest.fixture
def average() -> State:
    return {name: value + 1 for name, value in model().state_dict().items()}


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def lit_ema(plain: State, average: State, owner: str = "model_ema.", prefix: str = "model.") -> State:
    flat = {name.replace(".", ""): v for name, v in average.items() if name.endswith(("weight", "bias"))}
    return {**under(prefix, plain), **under(owner, {**flat, "decay": torch.tensor(0.9), "num_updates": COUNT})}


def composer(plain: State, average: State, active: bool) -> dict:
    ema = {"ema_model": under("module.", average), "training_model": under("module.", plain)}
    shown = under("module.", average if active else plain)
    return {"state": {"model": shown, "algorithms": {"EMA": {**ema, "ema_weights_active": active}}}, "rng": [1]}


BOTH: dict[str, tuple[Callable[[State, State], Any], str, str]] = {
    "LitEma": (lambda p, a: {"state_dict": lit_ema(p, a)}, "model_ema", "model"),
    "LitEma of the module itself": (lambda p, a: {"state_dict": lit_ema(p, a, prefix="")}, "model_ema", "state_dict"),
    "LitEma in parallel": (lambda p, a: under("module.", lit_ema(p, a)), "module.model_ema", "module.model"),
    "ema_pytorch": (
        lambda p, a: {**under("online_model.", p), **under("ema_model.", a), "initted": COUNT, "step": COUNT},
        "ema_model.",
        "online_model.",
    ),
    "ema_pytorch beside": (
        lambda p, a: {"model": p, "ema": {**under("online_model.module.", p), **under("ema_model.module.", a)}},
        "ema",
        "model",
    ),
    "swa_utils beside": (
        lambda p, a: {"model": p, "swa_model": {"n_averaged": COUNT, **under("module.", a)}},
        "swa_model",
        "model",
    ),
    "Lightning's SWA": (
        lambda p, a: {
            "state_dict": p,
            "callbacks": {"StochasticWeightAveraging": {"n_averaged": 3, "average_model_state": a}},
        },
        "callbacks.StochasticWeightAveraging.average_model_state",
        "state_dict",
    ),
    "YOLO": (lambda p, a: {"model": p, "ema": {"module": a, "updates": 3}}, "ema", "model"),
    "d2go": (lambda p, a: {"model": p, "ema_state": a}, "ema_state", "model"),
    "Composer": (lambda p, a: composer(p, a, True), "state.model", "state.algorithms.EMA.training_model"),
    "Composer in training": (
        lambda p, a: composer(p, a, False),
        "state.algorithms.EMA.ema_model",
        "state.model",
    ),
}


def assert_weights(network: nn.Module, state: State) -> None:
    found = dict(network.named_parameters())
    assert [name for name, value in found.items() if not torch.equal(value, state[name])] == []


@pytest.mark.parametrize("kind", BOTH)
def test_the_average_is_taken_and_the_others_where_asked(
    kind: str, plain: State, average: State, tmp_path: Path
) -> None:
    make, place, other = BOTH[kind]
    torch.save(make(plain, average), tmp_path / "a.pth")
    for wanted, state, taken, left in ((None, average, place, other), ("plain", plain, other, place)):
        network = model()
        loaded = load_weights(network, str(tmp_path / "a.pth"), weights=wanted)
        assert_weights(network, state)
        (remark,) = [remark for remark in loaded.remarks if remark.kind == "averaged_weights"]
        assert f"under {taken!r}; --weights {'ema' if wanted else 'plain'} takes that under {left!r}" in remark.what
        assert loaded.facts["weights"] == f"{wanted or 'ema'} ({taken.rstrip('.')})"


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
def test_a_model_of_swa_utils_is_an_average(wrap: Any, tmp_path: Path) -> None:
    there, here = AveragedModel(model()), model()
    torch.save(wrap(there.state_dict()), tmp_path / "a.pth")
    loaded = load_weights(here, str(tmp_path / "a.pth"), weights="ema")
    assert_weights(here, dict(there.module.named_parameters()))
    assert [remark.kind for remark in loaded.remarks] == ["averaged_weights"]
    with pytest.raises(CheckpointError, match=r"got only their average, under .*: take it, --weights ema"):
        load_weights(here, str(tmp_path / "a.pth"), weights="plain")


def test_lit_ema_averages_parameters_alone(plain: State, average: State, tmp_path: Path) -> None:
    torch.save({"state_dict": lit_ema(plain, average)}, tmp_path / "a.pth")
    network = model()
    load_weights(network, str(tmp_path / "a.pth"))
    assert torch.equal(network[0][1].running_mean, plain["0.1.running_mean"])
    (result,) = inspect_path(tmp_path / "a.pth")
    assert result.facts["weights under"] == "model_ema"
    assert result.facts["kind of weights"] == "average (EMA)"
    assert result.facts["others under"] == "model"


def test_lit_ema_whose_names_match_no_weights_is_refused(plain: State, average: State, tmp_path: Path) -> None:
    state = {**lit_ema(plain, average), "model_ema.strangeweight": torch.ones(2)}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"got 1 that are not those of exactly one weight \(strangeweight\)"):
        load_weights(model(), str(tmp_path / "a.pth"))
    network = model()
    load_weights(network, str(tmp_path / "a.pth"), weights="plain")
    assert_weights(network, plain)


def test_a_buffer_named_as_a_counter_of_ema_pytorch_is_loaded(tmp_path: Path) -> None:
    network = model()
    network.register_buffer("step", COUNT)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    assert "step" in load_weights(network, str(tmp_path / "a.pth")).state


def test_averages_that_are_lists_are_named(plain: State, tmp_path: Path) -> None:
    values = list(plain.values())
    assert averages_without_names({"state_dict": plain, "callbacks": {"EMA": {"ema_weights": values}}}) == (
        "callbacks.EMA",
    )
    torch.save({"decay": 0.9, "optimization_step": 3, "shadow_params": values}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a list without names, under 'shadow_params': copy it into the model"):
        load_weights(model(), str(tmp_path / "a.pth"))
