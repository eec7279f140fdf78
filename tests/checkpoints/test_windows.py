"""Checkpoints of SwinV2 whose windows are not those of the model, which no weight shows."""

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
from dtn_det.checkpoints.load import load_weights
from dtn_det.checkpoints.windows import compare_windows
from dtn_det.errors import CheckpointError
from dtn_det.training.run import read_by_package

timm = pytest.importorskip("timm")

SMALL = {"img_size": 64, "embed_dim": 16, "depths": (1, 2), "num_heads": (2, 2), "num_classes": 3}
X = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def swin(window: int, name: str = "swinv2_tiny_window16_256", **options: Any) -> nn.Module:
    torch.manual_seed(window)
    model: nn.Module = timm.create_model(name, window_size=window, **{**SMALL, **options}).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def with_buffers(model: nn.Module) -> dict[str, Tensor]:
    """A state dict as Microsoft's code saves it, with the tables and masks, but in timm's names."""
    return {**model.state_dict(), **{name: value.clone() for name, value in model.named_buffers()}}


def microsofts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Downsampling at the end of the stage before, and the classifier as `head`."""
    names = {name: name.replace("layers.1.downsample", "layers.0.downsample") for name in state}
    return {names[name].replace("head.fc.", "head."): value for name, value in state.items()}


def saved(content: Any, tmp_path: Path) -> str:
    torch.save(content, tmp_path / "a.pth")
    return str(tmp_path / "a.pth")


@pytest.mark.parametrize("layout", [dict, microsofts])
@pytest.mark.parametrize("left", ["relative_coords_table", "relative_position_index"])
def test_other_windows_are_refused_by_one_of_the_tables(layout: Any, left: str, tmp_path: Path) -> None:
    state = {name: value for name, value in with_buffers(swin(8)).items() if left in name or "relative" not in name}
    here = swin(4)
    before = {name: value.clone() for name, value in here.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_weights(here, saved({"model": layout(state)}, tmp_path), advice="take another")
    assert str(error.value) == (
        f"expected weights for windows of 4 x 4 tokens, which the model has, got {tmp_path / 'a.pth'} with "
        f"layers.0.blocks.0.attn.{left} of a model with windows of 8 x 8, for which its position biases were trained: "
        "take another"
    )
    assert all(torch.equal(value, before[name]) for name, value in here.state_dict().items())


@pytest.mark.parametrize("layout", [dict, microsofts])
def test_equal_windows_give_the_outputs_of_the_file(layout: Any, tmp_path: Path) -> None:
    there, here = swin(8), swin(8)
    there.head.fc.bias.data += 1
    state = {name: v.half() if name.endswith("coords_table") else v for name, v in with_buffers(there).items()}
    loaded = load_weights(here, saved(layout(state), tmp_path))
    with torch.no_grad():
        assert torch.equal(here(X), there(X))
    assert [remark.kind for remark in loaded.remarks] == ["renamed_by_timm"] * (layout is microsofts)


def test_masks_of_another_image_size_do_not_matter(tmp_path: Path) -> None:
    there, here = swin(8, img_size=128), swin(8)
    state, own = with_buffers(there), dict(here.named_buffers())
    masks = [name for name in state if name.endswith("attn_mask")]
    assert masks
    assert all(name not in own or own[name].shape != state[name].shape for name in masks)
    assert load_weights(here, saved(state, tmp_path)).remarks == ()
    assert all(torch.equal(value, state[name]) for name, value in here.state_dict().items())


def test_a_pretraining_with_other_windows_is_told(tmp_path: Path) -> None:
    there, here = swin(8, pretrained_window_sizes=(4, 4)), swin(8)
    loaded = load_weights(here, saved(with_buffers(there), tmp_path))
    (remark,) = loaded.remarks
    assert (remark.kind, remark.count) == ("other_positions", 3)
    assert remark.examples[0] == "layers.0.blocks.0.attn.relative_coords_table"
    assert (
        "tables of the coordinates of relative positions have other values than in the model, as after" in remark.what
    )
    with torch.no_grad():
        assert not torch.allclose(here(X), there(X))


def test_indices_in_another_order_are_told() -> None:
    here = swin(8)
    state = with_buffers(here)
    name = "layers.0.blocks.0.attn.relative_position_index"
    found = compare_windows({**state, name: state[name].T.contiguous()}, here)
    assert (found.others, found.scaled, found.numbered) == ((), (), (name,))
    assert "table of the indices of relative positions has other values" in found.remarks("a")[0].what


def test_a_training_goes_on_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("mmengine")
    there, here, said = swin(8), swin(4), []
    runner: Any = SimpleNamespace(
        model=here, rank=0, logger=logging.getLogger("test"), call_hook=lambda *_, **__: None, load_checkpoint=None
    )
    read_by_package(runner, "start", "take another", said.append)
    runner.load_checkpoint(saved(with_buffers(there), tmp_path))
    assert torch.equal(here.head.fc.weight, there.head.fc.weight)
    (line,) = said
    assert (
        "6 tables of relative positions are those of a model with windows of 8 x 8 tokens; the model has 4 x 4" in line
    )


def test_check_names_the_model_of_timm_with_these_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **{**SMALL, **options}))
    monkeypatch.setitem(SMALL, "img_size", 256)
    path = saved(microsofts(with_buffers(create("swinv2_tiny_window8_256", **SMALL))), tmp_path)
    (refused,) = inspect_path(Path(path), Target("timm:swinv2_tiny_window16_256"))
    assert not refused.fits
    assert refused.problems[0].endswith("name timm:swinv2_tiny_window8_256")
    assert inspect_path(Path(path), Target("timm:swinv2_tiny_window8_256"))[0].fits
