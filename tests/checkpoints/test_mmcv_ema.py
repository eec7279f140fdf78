"""Checkpoints of mmcv's EMAHook, which hold two sets of weights in one state dict."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtn_det.check import inspect_path
from dtn_det.check.model import Target
from dtn_det.checkpoints.backbone_keys import backbone_weights
from dtn_det.checkpoints.load import load_weights
from dtn_det.checkpoints.mmcv_ema import find_copies
from dtn_det.errors import CheckpointError
from dtn_det.training.run import read_by_package

State = dict[str, Tensor]
OWN, COPIES = 1.0, 2.0


def net() -> nn.Module:
    model = nn.ModuleDict({"backbone": nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), "head": nn.Linear(2, 3)})
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def written(buffers: bool = False) -> State:
    """What the hook's buffers leave in a state dict: of parameters alone in mmcv, of all in MMDetection."""
    model = net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(OWN)
    named = model.state_dict() if buffers else dict(model.named_parameters())
    copied = {f"ema_{name.replace('.', '_')}": torch.full_like(value, COPIES).detach() for name, value in named.items()}
    return {**model.state_dict(), **copied}


def save(state: State, folder: Path, **meta: Any) -> str:
    torch.save({"meta": {"mmdet_version": "2.28.2", **meta}, "state_dict": state}, folder / "epoch_12.pth")
    return str(folder / "epoch_12.pth")


def values(model: nn.Module) -> set[float]:
    return {float(value) for parameter in model.parameters() for value in parameter.detach().flatten()}


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize(
    ("wanted", "taken", "fact", "end"),
    [
        (
            None,
            OWN,
            "ema or plain (names of the model",
            "the names of the model were taken; --weights ema takes",
        ),
        (
            "plain",
            OWN,
            "ema or plain (names of the model",
            "the names of the model were taken; --weights ema takes",
        ),
        (
            "ema",
            COPIES,
            "ema or plain (copies ema_*",
            "the copies ema_* were taken; --weights plain takes",
        ),
    ],
)
def test_a_set_is_chosen_and_told(
    wanted: Any, taken: float, fact: str, end: str, buffers: bool, tmp_path: Path
) -> None:
    model = net()
    path = save(written(buffers), tmp_path)
    loaded = load_weights(model, path, weights=wanted)
    assert values(model) == {taken}
    assert loaded.facts == {"weights": f"{fact}, of mmcv's EMAHook)"}
    (remark,) = loaded.remarks
    assert "does not tell which is the average (EMA)" in remark.what
    assert end in remark.what
    # The statistics are those of both sets, unless the hook has copied them, too.
    mean = model["backbone"][1].running_mean
    assert mean.tolist() == ([2, 2] if buffers and wanted == "ema" else [0, 0])


def hook(priority: str) -> str:
    return (
        f"custom_hooks = [dict(type='NumClassCheckHook'), dict(type='ExpMomentumEMAHook', momentum=1e-4{priority})]\n"
    )


EPOCHS = "runner = dict(type='EpochBasedRunner', max_epochs=12)\n"


@pytest.mark.parametrize(
    ("config", "average"),
    [
        # The swap comes before the checkpoint where the hook's number is less than its 50.
        (EPOCHS + hook(", priority=49"), "own"),
        (EPOCHS + hook(", priority='ABOVE_NORMAL'"), "own"),
        (EPOCHS + hook(", priority=49") + "evaluation = dict(save_best='auto')\n", "own"),
        # Of one priority, the hook that was registered first: the checkpoint's.
        (EPOCHS + hook(""), "copies"),
        (EPOCHS + hook(", priority='normal'"), "copies"),
        (EPOCHS + hook(", priority=50") + "checkpoint_config = dict(interval=1)\n", "copies"),
        # By iterations, the hook has not swapped.
        ("runner = dict(type='IterBasedRunner', max_iters=9)\n" + hook(", priority=49"), "copies"),
        (EPOCHS + hook(", priority=49") + "checkpoint_config = dict(interval=9, by_epoch=False)\n", "copies"),
        # The best checkpoint is saved after the swap, and the file may be that.
        (EPOCHS + hook("") + "evaluation = dict(save_best='auto')\n", None),
        (hook(", priority=49"), None),
        (EPOCHS, None),
        (EPOCHS + hook(", priority='FIRST'"), None),
        ("# mmdet 2 config\nmodel=dict(", None),
    ],
)
def test_the_config_in_the_file_tells_the_average(config: str, average: Any, tmp_path: Path) -> None:
    path = save(written(), tmp_path, config=config)
    taken = {wanted: net() for wanted in (None, "ema", "plain")}
    loaded = {wanted: load_weights(model, path, weights=wanted) for wanted, model in taken.items()}
    found = find_copies(written(), torch.load(path))
    assert found is not None
    assert found.average == average
    assert values(taken[None]) == {OWN}
    assert values(taken["ema"]) == {OWN if average == "own" else COPIES}
    assert values(taken["plain"]) == {COPIES if average == "own" else OWN}
    kind = {"own": "ema", "copies": "plain", None: "ema or plain"}[average]
    assert loaded[None].facts["weights"].startswith(f"{kind} (names of the model")
    if average is not None:
        told = "names of the model" if average == "own" else "copies"
        assert f"by its config the {told} hold the average (EMA)" in loaded[None].remarks[0].what
        turn = "plain" if average == "own" else "ema"
        assert loaded[None].remarks[0].what.endswith(f"--weights {turn} takes the copies ema_*")


def test_a_set_that_is_not_whole_is_not_taken(tmp_path: Path) -> None:
    state = written()
    del state["ema_head_weight"]
    path = save(state, tmp_path)
    load_weights(net(), path)
    with pytest.raises(
        CheckpointError, match=r"of each weight, got none of head\.weight: take the names of the model, --weights plain"
    ):
        load_weights(net(), path, weights="ema")


@pytest.mark.parametrize(
    "change",
    [
        {"ema_strange": torch.ones(1)},
        {"ema_head_weight": torch.ones(1)},
        {"backbone.0_weight": torch.ones(2, 1, 1, 1)},
    ],
)
def test_other_names_that_begin_so_are_no_such_copies(change: State, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="unexpected"):
        load_weights(net(), save({**written(), **change}, tmp_path))


def test_a_model_with_such_buffers_takes_them(tmp_path: Path) -> None:
    model = net()
    for name, value in written().items():
        if name.startswith("ema_"):
            model.register_buffer(name, torch.zeros_like(value))
    loaded = load_weights(model, save(written(), tmp_path))
    assert loaded.remarks == ()
    assert float(model.ema_head_bias[0]) == COPIES


def test_a_backbone_takes_the_same_sets() -> None:
    name = "layers.0.blocks.0.attn.qkv.weight"
    state = {f"backbone.{name}": torch.ones(1), f"ema_backbone_{name.replace('.', '_')}": 2 * torch.ones(1)}
    for wanted, value in {None: OWN, "plain": OWN, "ema": COPIES}.items():
        found = backbone_weights({"state_dict": state}, "swin", wanted=wanted)
        assert {key: float(tensor) for key, tensor in found.state.items()} == {name: value}
        assert [remark.kind for remark in found.remarks("a.pth")] == ["ema_copies"]


def test_check_tells_of_both_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(save(written(), tmp_path))
    monkeypatch.setattr(Target, "build", lambda self, num_classes=None: net())
    for target in (None, Target("timm:anything")):
        (result,) = inspect_path(path, target)
        assert result.problems == ()
        assert result.fits is (None if target is None else True)
        assert result.facts["second set of weights"] == "6 tensors ema_* of mmcv's EMAHook"
        assert result.facts["average (EMA)"] == "not told"
        assert result.facts["tensors"] == len(net().state_dict())
        assert [remark.kind for remark in result.remarks] == ["ema_copies"]


@pytest.mark.parametrize("purpose", ["test", "start", "resume"])
def test_trainings_and_tests_are_told(purpose: Any, tmp_path: Path) -> None:
    pytest.importorskip("mmengine")
    model, said = net(), []
    runner: Any = SimpleNamespace(
        model=model, rank=0, logger=logging.getLogger("test"), call_hook=lambda *_, **__: None, load_checkpoint=None
    )
    read_by_package(runner, purpose, "take another", said.append)
    given = runner.load_checkpoint(save(written(), tmp_path))
    assert values(model) == {OWN}
    assert not any(name.startswith("ema_") for name in given["state_dict"])
    assert len(said) == 1
    assert "as copies ema_* of mmcv's EMAHook" in said[0]
