"""Layouts of Meta's DINOv2 and DINOv3, which timm's own filter brings into its names by dropping some weights."""

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
from dtn_det.errors import MisfitError
from dtn_det.training.run import read_by_package

timm = pytest.importorskip("timm")

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 2, "num_classes": 3}
V3, V3_BIAS, V2 = "vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb", "vit_small_patch14_reg4_dinov2"


def build(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(len(name))
    size = 28 if name == V2 else 32
    model: nn.Module = timm.create_model(name, img_size=size, **{**SMALL, **options}).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def images(model: nn.Module) -> Tensor:
    size = model.patch_embed.img_size[0]
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def as_metas_v3(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a DINOv3 of timm as Meta's code has it, with biases that are zero where timm has none."""
    found = {}
    for name, value in model.state_dict().items():
        if not name.endswith(("q_bias", "v_bias")):
            name = name.replace("gamma_", "ls").replace("reg_token", "storage_tokens")
            found[f"{name}.gamma" if name.endswith(("ls1", "ls2")) else name] = value
    for number, block in enumerate(model.blocks):
        width = block.attn.qkv.weight.shape[1]
        own = block.attn.q_bias is not None
        parts = [block.attn.q_bias, torch.zeros(width), block.attn.v_bias] if own else [torch.zeros(3 * width)]
        found[f"blocks.{number}.attn.qkv.bias"] = torch.cat([part.detach() for part in parts])
        mask = torch.ones(3 * width)
        mask[width : 2 * width] = 0
        found[f"blocks.{number}.attn.qkv.bias_mask"] = mask
    periods = dict(model.named_buffers())["rope.periods"].clone()
    return {**found, "mask_token": torch.randn(1, 48), "rope_embed.periods": periods}


def as_metas_v2(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a DINOv2 with registers as Meta's code has it: a position for the class token, too."""
    state = dict(model.state_dict())
    first = torch.randn(1, 1, 48)
    state["register_tokens"] = state.pop("reg_token")
    state["cls_token"] = state["cls_token"] - first
    state["pos_embed"] = torch.cat([first, state["pos_embed"]], 1)
    return {**state, "mask_token": torch.zeros(1, 48)}


def saved(content: Any, tmp_path: Path) -> str:
    torch.save(content, tmp_path / "a.pth")
    return str(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "layout", "dropped"), [(V3, as_metas_v3, 6), (V3_BIAS, as_metas_v3, 4), (V2, as_metas_v2, 1)]
)
def test_outputs_are_those_of_the_model_of_the_file(
    name: str, layout: Any, dropped: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = build(name)
    here = timm.create_model(name, img_size=there.patch_embed.img_size, **SMALL).eval()
    loaded = load_weights(here, saved(layout(there), tmp_path))
    with torch.no_grad():
        torch.testing.assert_close(here(images(here)), there(images(there)), rtol=1e-4, atol=1e-5)
    kinds = ["renamed_by_timm", "dropped_by_timm", "folded_positions"][: 3 if name == V2 else 2]
    assert [remark.kind for remark in loaded.remarks] == kinds
    assert loaded.remarks[1].count == dropped
    # timm's filter prints what it looks for.
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_biases_that_the_model_has_no_place_for_are_refused(tmp_path: Path) -> None:
    path = saved(as_metas_v3(build(V3_BIAS)), tmp_path)
    with pytest.raises(MisfitError) as error:
        load_weights(build(V3), path)
    assert str(error.value).endswith(
        "The file has biases that are not zero (blocks.0.attn.qkv.bias, blocks.1.attn.qkv.bias), and the model none "
        f"there. Name timm:{V3_BIAS}"
    )


def test_biases_count_as_their_masks_leave_them(tmp_path: Path) -> None:
    """Meta's attention multiplies the biases by their mask in each pass."""
    there = build(V3)
    state = as_metas_v3(there)
    for name in list(state):
        if name.endswith("bias_mask"):
            state[name] = torch.zeros(144)
            state[name.removesuffix("_mask")] = torch.ones(144)
    here = build(V3)
    load_weights(here, saved(state, tmp_path))
    with torch.no_grad():
        torch.testing.assert_close(here(images(here)), there(images(there)))
    unmasked = {name: value for name, value in state.items() if not name.endswith("bias_mask")}
    with pytest.raises(MisfitError, match="biases that are not zero"):
        load_weights(here, saved(unmasked, tmp_path))


def test_a_bias_of_the_keys_is_refused(tmp_path: Path) -> None:
    state = as_metas_v3(build(V3_BIAS))
    del state["blocks.0.attn.qkv.bias_mask"]
    state["blocks.0.attn.qkv.bias"] = torch.ones(144)
    with pytest.raises(MisfitError, match=r"biases that are not zero \(blocks\.0\.attn\.qkv\.bias\)"):
        load_weights(build(V3_BIAS), saved(state, tmp_path))


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        (lambda periods: periods, True),
        (lambda periods: periods.bfloat16(), True),
        (lambda periods: periods * 1.02, False),
        (lambda periods: periods[:-1], False),
    ],
)
def test_periods_must_be_those_of_the_model(change: Any, fits: bool, tmp_path: Path) -> None:
    state = as_metas_v3(build(V3))
    path = saved({**state, "rope_embed.periods": change(state["rope_embed.periods"])}, tmp_path)
    if fits:
        load_weights(build(V3), path)
    else:
        with pytest.raises(MisfitError):
            load_weights(build(V3), path)


@pytest.mark.parametrize(
    ("name", "layout", "extra"),
    [
        (V3, as_metas_v3, "local_cls_norm.weight"),
        (V3, as_metas_v3, "projectors.0.weight"),
        (V3, as_metas_v3, "rope_embed.scale"),
    ],
)
def test_what_else_timm_drops_is_refused(name: str, layout: Any, extra: str, tmp_path: Path) -> None:
    state = {**layout(build(name)), extra: torch.zeros(48)}
    here = build(name)
    before = {name: value.clone() for name, value in here.state_dict().items()}
    with pytest.raises(MisfitError):
        load_weights(here, saved(state, tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in here.state_dict().items())


def test_positions_of_another_image_size_are_not_resized(tmp_path: Path) -> None:
    state = as_metas_v2(build(V2))
    state["pos_embed"] = torch.randn(1, 10, 48)
    with pytest.raises(MisfitError):
        load_weights(build(V2), saved(state, tmp_path))


def test_a_missing_classifier_is_told_in_the_names_of_the_model(tmp_path: Path) -> None:
    state = as_metas_v3(build(V3, num_classes=0))
    with pytest.raises(MisfitError, match=r"2 missing \(head\.weight, head\.bias\)\. The file has no classifier"):
        load_weights(build(V3), saved(state, tmp_path))


def test_a_training_starts_from_a_backbone_without_classifier(tmp_path: Path) -> None:
    pytest.importorskip("mmengine")
    there, here, said = build(V3, num_classes=0), build(V3), []
    nn.init.zeros_(here.norm.weight)
    runner: Any = SimpleNamespace(
        model=here, rank=0, logger=logging.getLogger("test"), call_hook=lambda *_, **__: None, load_checkpoint=None
    )
    read_by_package(runner, "start", "take another", said.append)
    runner.load_checkpoint(saved(as_metas_v3(there), tmp_path))
    x = images(here)
    with torch.no_grad():
        torch.testing.assert_close(here.forward_features(x), there.forward_features(x))
    assert "were renamed by checkpoint_filter_fn of timm.models.eva" in said[0]


def test_check_builds_the_classifier_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm builds these models without one by default; `mce` builds them for the classes of the data."""
    path = saved(as_metas_v3(build(V3)), tmp_path)
    create = timm.create_model
    small = {"img_size": 32, **{name: value for name, value in SMALL.items() if name != "num_classes"}}
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **small, **options))
    (result,) = inspect_path(Path(path), Target(f"timm:{V3}"))
    assert result.fits
    kinds = {remark.kind: remark.count for remark in result.remarks}
    assert kinds["other_classes"] == 3, kinds
