"""A training that starts from LayerNorm's weights says which norms took them and what begins anew."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dtn_det.checkpoints.fresh_norms import find_fresh_norms
from dtn_det.errors import CheckpointError
from dtn_det.layers import DTN
from dtn_det.training.run import read_by_package

pytest.importorskip("mmengine")


def net(norm: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({"norm": norm, "head": nn.Linear(8, 2)})


@pytest.mark.parametrize("init", ["local", "layernorm"])
def test_a_training_from_layernorm_logs_what_the_norms_took(
    init: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there, here = net(nn.LayerNorm(8)), net(DTN(8, 2, init=init))
    nn.init.uniform_(there["norm"].weight)
    torch.save({"state_dict": there.state_dict()}, tmp_path / "ln.pth")
    before = {name: value.clone() for name, value in here.state_dict().items() if isinstance(value, torch.Tensor)}
    logger = logging.getLogger("test of fresh norms")
    runner: Any = SimpleNamespace(
        model=here, rank=0, logger=logger, call_hook=lambda *_, **__: None, load_checkpoint=None
    )
    read_by_package(runner, "start", "take another", lambda line: None)
    with caplog.at_level(logging.INFO, logger=logger.name):
        runner.load_checkpoint(str(tmp_path / "ln.pth"))
    assert torch.equal(here["norm"].weight, there["norm"].weight)
    assert torch.equal(here["norm"].mean_norm_weight, before["norm.mean_norm_weight"])
    text = "ln.pth: 1 DTN norms got LayerNorm's weight and bias and keep their initial gates and kernels, as it"
    assert text in caplog.text
    assert ("init='layernorm' among the options of the norms" in caplog.text) == (init == "local")
    assert "missing keys" not in caplog.text


def test_norms_without_weights_in_the_file_are_not_fresh() -> None:
    model = net(DTN(8, 2))
    assert len(find_fresh_norms(model, ["norm.weight", "norm.bias", "head.weight"])) == 1
    assert find_fresh_norms(model, ["head.weight"]) == ()
    assert find_fresh_norms(model, model.state_dict()) == ()


def test_a_file_of_which_nothing_fits_is_no_start(tmp_path: Path) -> None:
    torch.save({"state_dict": {"other.weight": torch.ones(3)}}, tmp_path / "a.pth")
    runner: Any = SimpleNamespace(model=net(DTN(8, 2)), rank=0, load_checkpoint=None)
    read_by_package(runner, "start", "name another for load_from", lambda line: None)
    message = r"The file holds other\.weight, none of which the model has\. Name another for load_from"
    with pytest.raises(CheckpointError, match=message):
        runner.load_checkpoint(str(tmp_path / "a.pth"))
