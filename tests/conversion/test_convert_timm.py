"""Grids that converted models of timm hand to DTN, at several image sizes."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from conversion_models import move_off_start, norm_calls, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dtn_det import convert_norm

timm = pytest.importorskip("timm")

_SMALL_SWIN = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
_SMALL_PYRAMID = {"embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 3, 4), "depths": (1, 1, 2, 1)}

# Model, its arguments, image size, and the grid at each norm's width.
CASES: list[tuple[str, dict[str, Any], tuple[int, int], dict[int, tuple[int, int]]]] = [
    ("deit_tiny_distilled_patch16_224", {"depth": 2}, (224, 224), {192: (14, 14)}),
    ("deit3_small_patch16_224", {"depth": 2, "img_size": (96, 160)}, (96, 160), {384: (6, 10)}),
    ("cait_xxs24_224", {"depth": 2, "img_size": (96, 160)}, (96, 160), {192: (6, 10)}),
    (
        "swin_tiny_patch4_window7_224",
        {**_SMALL_SWIN, "strict_img_size": False},
        (96, 160),
        {16: (24, 40), 32: (12, 20), 64: (6, 10), 128: (3, 5)},
    ),
    ("swin_tiny_patch4_window7_224", _SMALL_SWIN, (224, 224), {16: (56, 56), 32: (28, 28), 64: (14, 14), 128: (7, 7)}),
    ("pvt_v2_b0", _SMALL_PYRAMID, (64, 96), {8: (16, 24), 16: (8, 12), 24: (4, 6)}),
    ("pvt_v2_b0", _SMALL_PYRAMID, (100, 70), {8: (25, 18), 16: (13, 9), 24: (7, 5)}),
    ("cait_xxs24_224", {"depth": 2}, (224, 224), {192: (14, 14)}),
    ("pit_ti_224", {"img_size": (96, 160)}, (96, 160), {64: (11, 19), 128: (6, 10)}),
    ("twins_pcpvt_small", _SMALL_PYRAMID, (96, 64), {8: (24, 16), 16: (12, 8), 24: (6, 4)}),
    ("pit_ti_224", {}, (224, 224), {64: (27, 27), 128: (14, 14)}),
    ("pit_ti_distilled_224", {}, (224, 224), {64: (27, 27), 128: (14, 14)}),
    ("twins_pcpvt_small", _SMALL_PYRAMID, (64, 96), {8: (16, 24), 16: (8, 12), 24: (4, 6)}),
    ("twins_svt_small", {**_SMALL_PYRAMID, "wss": (4, 4, 4, 4)}, (64, 96), {8: (16, 24), 16: (8, 12), 24: (4, 6)}),
]


@pytest.mark.parametrize(("name", "kwargs", "size", "grids"), CASES)
def test_norms_see_the_grid(
    name: str, kwargs: dict[str, Any], size: tuple[int, int], grids: dict[int, tuple[int, int]]
) -> None:
    model = timm.create_model(name, num_classes=3, **kwargs).eval()
    twin = copy.deepcopy(model)
    convert_norm(model)
    x = torch.randn(1, 3, *size)
    with norm_calls(model) as calls, torch.no_grad():
        out = model(x)
    assert {shape[-1] for _, shape, _ in calls} == set(grids)
    for _, shape, told in calls:
        assert (tuple(shape[1:3]) if len(shape) == 4 else told) == grids[shape[-1]]
    # LayerNorm's weights are kept, and DTN starts near it.
    with torch.no_grad():
        expected = twin(x)
    assert (out - expected).abs().max() < 0.05 * expected.abs().max() + 1e-6


@settings(max_examples=10)
@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_a_vit_takes_any_image_size(height: int, width: int) -> None:
    model = convert_norm(small_vit(depth=2), layers="blocks").eval()
    with norm_calls(model) as calls, torch.no_grad():
        model(torch.randn(1, 3, 4 * height, 4 * width))
    assert [told for _, _, told in calls] == [(height, width)] * 4


def test_weights_are_kept_and_their_names_too(vit: nn.Module) -> None:
    state = copy.deepcopy(vit.state_dict())
    convert_norm(vit, layers="blocks")
    converted = vit.state_dict()
    assert all(torch.equal(converted[key], value) for key, value in state.items())
    assert {key.rpartition("norm1.")[2] for key in converted if "blocks.0.norm1" in key} == {
        "weight",
        "bias",
        "mean_norm_weight",
        "var_norm_weight",
        "pos_proj.weight",
        "pos_proj.bias",
        "_extra_state",
    }


def test_dtype_mode_and_trainability_are_kept() -> None:
    model = small_vit(depth=1).double().eval()
    model.get_submodule("blocks.0.norm1").requires_grad_(False)
    convert_norm(model, layers="blocks")
    norm = model.get_submodule("blocks.0.norm1")
    assert not norm.training
    assert {p.dtype for p in norm.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in norm.parameters())
    assert all(p.requires_grad for p in model.get_submodule("blocks.0.norm2").parameters())


def test_checkpointing_gives_the_same_gradients(vit: nn.Module) -> None:
    convert_norm(vit, layers="blocks", init="local")
    move_off_start(vit)
    x = torch.randn(2, 3, 16, 32)
    vit(x).square().sum().backward()
    plain = {name: p.grad.clone() for name, p in vit.named_parameters() if p.grad is not None}
    vit.zero_grad()
    vit.set_grad_checkpointing(True)  # type: ignore[operator]
    vit(x).square().sum().backward()
    for name, parameter in vit.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name])


def test_checkpointing_uses_the_grid_of_its_own_forward_pass(vit: nn.Module) -> None:
    convert_norm(vit, layers="blocks", init="local")
    move_off_start(vit)
    a, b = torch.randn(2, 3, 16, 32), torch.randn(2, 3, 16, 16)
    vit(a).square().sum().backward()
    expected = vit.get_submodule("blocks.0.norm1").pos_proj.weight.grad.clone()  # type: ignore[union-attr, operator]
    vit.zero_grad()
    vit.set_grad_checkpointing(True)  # type: ignore[operator]
    out = vit(a).square().sum()
    vit(b)
    out.backward()
    torch.testing.assert_close(vit.get_submodule("blocks.0.norm1").pos_proj.weight.grad, expected)  # type: ignore[union-attr]


def test_checkpointing_refuses_to_guess_between_two_grids(vit: nn.Module) -> None:
    convert_norm(vit, layers="blocks")
    vit.set_grad_checkpointing(True)  # type: ignore[operator]
    out = vit(torch.randn(1, 3, 16, 32)).sum()
    vit(torch.randn(1, 3, 32, 16))
    with pytest.raises(ValueError, match="expected one grid of 33 tokens while activations are computed again"):
        out.backward()
    # One after the other is no trouble, nor is what needs no gradient.
    for size in ((16, 32), (32, 16)):
        out = vit(torch.randn(1, 3, *size)).sum()
        with torch.no_grad():
            vit(torch.randn(1, 3, *reversed(size)))
        out.backward()


def test_a_copy_has_hooks_of_its_own(vit: nn.Module) -> None:
    convert_norm(vit, layers="blocks")
    twin = copy.deepcopy(vit).eval()
    vit(torch.randn(1, 3, 16, 32))
    with norm_calls(twin) as calls, torch.no_grad():
        twin(torch.randn(1, 3, 32, 16))
    assert {told for _, _, told in calls} == {(8, 4)}


def test_a_model_can_be_pickled(vit: nn.Module, tmp_path: Any) -> None:
    convert_norm(vit.eval(), layers="blocks")
    torch.save(vit, tmp_path / "model.pth")
    again = torch.load(tmp_path / "model.pth", weights_only=False)
    x = torch.randn(1, 3, 16, 32)
    with torch.no_grad():
        assert torch.equal(again(x), vit(x))


def test_compiled_models_give_the_same(vit: nn.Module) -> None:
    convert_norm(vit.eval(), layers="blocks", init="local")
    move_off_start(vit)
    compiled = torch.compile(vit, backend="eager", fullgraph=True)
    with torch.no_grad():
        for size in ((16, 32), (32, 16), (16, 16)):
            x = torch.randn(2, 3, *size)
            torch.testing.assert_close(compiled(x), vit(x))


def test_threads_do_not_see_each_others_grids() -> None:
    model = convert_norm(small_vit(), layers="blocks", init="local").eval()
    move_off_start(model)
    images = [torch.randn(1, 3, height, width) for height, width in ((16, 64), (32, 32), (64, 16))]

    def many(x: torch.Tensor) -> list[torch.Tensor]:
        with torch.no_grad():
            return [model(x) for _ in range(10)]

    alone = [many(x)[0] for x in images]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(many, images))
    for expected, found in zip(alone, together, strict=True):
        assert all(torch.equal(one, expected) for one in found)


def test_traced_models_give_the_same(vit: nn.Module) -> None:
    convert_norm(vit.eval(), layers="blocks", init="local")
    x = torch.randn(2, 3, 16, 32)
    with torch.no_grad():
        traced = torch.jit.trace(vit, x, check_trace=False)
        torch.testing.assert_close(traced(x), vit(x))


def test_dropped_tokens_are_refused() -> None:
    model = convert_norm(small_vit(depth=1, patch_drop_rate=0.5), layers="blocks").train()
    with pytest.raises(ValueError, match=r"expected the tokens of 'blocks.0.norm1' to be a grid of 8 x 8 and 1 prefix"):
        model(torch.randn(1, 3, 32, 32))


def test_a_grid_can_be_given(vit: nn.Module) -> None:
    convert_norm(vit, layers="blocks", grid=lambda tokens: (2, (tokens - 1) // 2))
    with norm_calls(vit) as calls, torch.no_grad():
        vit(torch.randn(1, 3, 16, 32))
    assert {told for _, _, told in calls} == {(2, 16)}


def test_a_grid_that_no_hook_sees() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(8)
            self.attn = nn.MultiheadAttention(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.norm(x)
            return out

    with pytest.raises(ValueError, match=r"expected to see the grid of the tokens of '0.norm' .*, got \(1, 12, 8\)"):
        convert_norm(nn.Sequential(Block()), layers="blocks")(torch.randn(1, 12, 8))
    assert convert_norm(nn.Sequential(Block()), layers="blocks", grid=(3, 4))(torch.randn(1, 12, 8)).shape == (1, 12, 8)


def test_levit_keeps_its_affine_weights_and_trains() -> None:
    model = convert_norm(timm.create_model("levit_128s", num_classes=3), init="local")
    assert "stages.0.blocks.0.attn.qkv.bn.mean_norm_weight" in model.state_dict()
    model(torch.randn(2, 3, 224, 224)).sum().backward()
    gradient = model.get_parameter("stages.0.blocks.0.attn.qkv.bn.var_norm_weight").grad
    assert gradient is not None
    assert gradient.isfinite().all()


@pytest.mark.parametrize("norm", ["bn", "in", "gn", "sn", "scalenorm", "powernorm", "rmsnorm", "dyt", "ln"])
def test_every_normaliser_takes_the_place_of_layer_norm(norm: str, vit: nn.Module) -> None:
    convert_norm(vit, norm, layers="blocks")
    out = vit(torch.randn(2, 3, 16, 32))
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vit.parameters())
