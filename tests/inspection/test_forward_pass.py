"""One forward pass is watched, gives what the blocks compute, and leaves no trace."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("mmdet", reason="Swin and PVT are MMDetection's")

from small_networks import PVT, SWIN, SWIN_OF_MMDET, build, subject_of, timm_vit

from dtn_det.conversion import convert_tokenization
from dtn_det.inspection.blocks import Block, find_blocks
from dtn_det.inspection.forward_pass import Looks, look, observe
from dtn_det.inspection.subject import Subject
from dtn_det.layers import DTN, build_token_norm

MODELS_SEEN: dict[str, tuple[dict[str, Any], list[tuple[int, int]], list[str]]] = {
    "swin": (SWIN, [(9, 12), (5, 6), (5, 6)], ["DTN"] * 6),
    "swin without small shifts": ({**SWIN, "shift_small_maps": False}, [(9, 12), (5, 6), (5, 6)], ["DTN"] * 6),
    "swin with layer norm": ({**SWIN, "dtn_stages": ()}, [(9, 12), (5, 6), (5, 6)], ["LN"] * 6),
    "swin of mmdet": (SWIN_OF_MMDET, [(9, 12), (5, 6), (5, 6)], ["LN"] * 6),
    "pvt": (
        {**PVT, "type": "DTNPyramidVisionTransformer"},
        [(9, 12), (4, 6), (4, 6), (2, 3), (1, 1)],
        ["DTN"] * 8 + ["LN"] * 2,
    ),
    "pvtv2": (
        {**PVT, "type": "DTNPyramidVisionTransformerV2"},
        [(9, 12), (5, 6), (5, 6), (3, 3), (2, 2)],
        ["DTN"] * 8 + ["LN"] * 2,
    ),
}


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in network.modules())


@pytest.fixture(scope="module", params=MODELS_SEEN)
def seen(request: pytest.FixtureRequest) -> tuple[Looks, list[tuple[int, int]], list[str]]:
    settings, grids, kinds = MODELS_SEEN[request.param]
    # Whole patches in PVT's stages; the others pad.
    x = torch.randn(1, 3, 36, 48)
    return look(subject_of(build(settings), x)), grids, kinds


def test_grids_and_norms(seen) -> None:
    looks, grids, kinds = seen
    assert [block.inside.shape for block in looks.blocks] == grids
    assert [norm.kind for _, norm in looks.norms] == kinds
    assert [(norm.gates is None, norm.kernels is None) for _, norm in looks.norms] == [
        (kind == "LN", kind == "LN") for kind in kinds
    ]
    assert looks.has_dtn == ("DTN" in kinds)
    assert not looks.has_class_token


def test_attention_of_every_block(seen) -> None:
    looks, *_ = seen
    for block in looks.blocks:
        attention = block.attention
        keys = tuple(side // block.key_ratio for side in block.inside.shape)
        assert attention.received.shape[1:] == keys
        longest = np.hypot(*block.inside.shape)
        assert (attention.distance >= 0).all()
        assert (attention.distance <= longest).all()
        assert (attention.on_map > 0).all()
        assert (attention.on_map <= 1 + 1e-6).all()


@pytest.mark.parametrize("name", ["swin", "pvt"])
def test_names_lead_to_the_blocks(name: str) -> None:
    network = nn.ModuleDict({"backbone": build(MODELS_SEEN[name][0])})
    modules = dict(network.named_modules())
    blocks = find_blocks(network, "m")
    assert all(modules[block.name] is block.module for block in blocks)
    assert all(block.name.startswith("backbone.") for block in blocks)
    assert all(modules[f"{block.name}.norm1"] is block.norms["norm1"] for block in blocks)
    indices = {"swin": [(1, 1), (2, 1), (2, 2)], "pvt": [(1, 1), (2, 1), (2, 2), (3, 1), (4, 1)]}
    assert [(block.stage, block.index) for block in blocks] == indices[name]
    strides = {"swin": [4, 8, 8], "pvt": [4, 8, 8, 16, 32]}
    assert [block.stride for block in blocks] == strides[name]


def test_magnitudes_in_the_middle_of_a_network() -> None:
    network = build(SWIN).double()
    x = torch.randn(1, 3, 36, 48, dtype=torch.float64)
    looks = look(subject_of(network, x))
    inputs: list[Tensor] = []
    norm = network.stages[1].blocks[1].norm1
    handle = norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        network(x)
    handle.remove()
    with torch.no_grad():
        out = norm(inputs[0], (5, 6))[0].reshape(5, 6, 2, 8)
    # Scale and shift are 1 and 0 in an untrained network.
    expected = out.square().mean(-1).sqrt().permute(2, 0, 1)
    np.testing.assert_allclose(looks.blocks[2].norms["norm1"].magnitudes.dtn, expected, rtol=1e-5)


def ignore(*_: object) -> None:
    pass


def test_one_pass_no_hooks_no_change() -> None:
    network = build(SWIN)
    x = torch.randn(1, 3, 36, 48)
    calls = []
    with torch.no_grad():
        before = network(x)
    during = []

    def run() -> None:
        calls.append(hooks(network))
        during.extend(network(x))

    observe(find_blocks(network, "m"), run, (36, 48), ignore, ignore)
    assert len(calls) == 1
    assert calls[0] == 3 * 4
    assert hooks(network) == 0
    assert not during[0].requires_grad
    for one, other in zip(before, during, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("where", ["network", "norm", "attention", "registration"])
def test_hooks_go_whatever_happens(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(SWIN)
    blocks = find_blocks(network, "m")
    x = torch.randn(1, 3, 36, 48)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    run = fail if where == "network" else lambda: network(x)
    if where == "registration":
        monkeypatch.setattr(blocks[1].module, "register_forward_pre_hook", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        observe(blocks, run, (36, 48), fail if where == "norm" else ignore, fail if where == "attention" else ignore)
    assert hooks(network) == 0


def test_tensors_are_let_go() -> None:
    network = build(SWIN)
    x = torch.randn(1, 3, 36, 48)
    refs: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def on_norm(block: Block, name: str, tokens: Tensor) -> None:
        alive.append(sum(ref() is not None for ref in refs))
        refs.append(weakref.ref(tokens))

    observe(find_blocks(network, "m"), lambda: network(x), (36, 48), on_norm, ignore)
    assert alive == [0] * 6


def test_tokens_of_the_padding_do_not_count() -> None:
    network = build(SWIN)
    x = torch.randn(1, 3, 40, 48)
    whole = subject_of(network, x)
    part = Subject("m", "c", "i", network, whole.run, whole.picture[:30, :37], (40, 48), (30, 37))
    inside = look(part).blocks[0].inside
    assert inside.shape == (10, 12)
    assert inside.sum() == 7 * 9
    assert inside[:7, :9].all()


def mmpretrain_vit() -> nn.Module:
    pytest.importorskip("mmpretrain.models")
    vit = pytest.importorskip("mmpretrain.models.backbones").VisionTransformer
    arch = {"embed_dims": 12, "num_layers": 2, "num_heads": 3, "feedforward_channels": 24}
    network = vit(arch=arch, img_size=(32, 48), patch_size=8)
    network.eval()
    return network


@pytest.mark.parametrize("make", [timm_vit, lambda: timm_vit(reg_tokens=2), mmpretrain_vit])
def test_vit(make) -> None:
    network = make()
    looks = look(subject_of(network, torch.randn(1, 3, 32, 48)))
    assert looks.has_class_token
    assert [(block.stage, block.index, block.stride, block.title) for block in looks.blocks] == [
        (1, 1, 8, "block 1"),
        (1, 2, 8, "block 2"),
    ]
    for block in looks.blocks:
        assert block.attention.class_map.shape == (3, 4, 6)
        np.testing.assert_allclose(block.attention.class_map.mean(axis=(1, 2)), 1, rtol=1e-5)
        assert block.norms["norm1"].magnitudes.tokens.shape == (3, 4, 6)


def test_vit_without_class_token() -> None:
    network = timm_vit(class_token=False, global_pool="avg")
    looks = look(subject_of(network, torch.randn(1, 3, 32, 48)))
    assert not looks.has_class_token
    assert all(block.attention.on_map == pytest.approx(1) for block in looks.blocks)


def test_vit_with_dtn() -> None:
    """DTN in a ViT sees a grid behind a class token."""
    network = timm_vit()

    class Grid(DTN):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x, (4, 6))

    for block in network.blocks:
        block.norm1 = Grid(12, 3)
    looks = look(subject_of(network, torch.randn(1, 3, 32, 48)))
    norm = looks.blocks[0].norms["norm1"]
    assert norm.kind == "DTN"
    assert norm.gates.mean.tolist() == [0.5] * 3
    assert norm.kernels.coefficients.tolist() == [[0, 0, -1]] * 3
    assert norm.magnitudes.dtn.shape == (3, 4, 6)


def test_no_known_backbone() -> None:
    with pytest.raises(ValueError, match=r"expected a backbone with Swin's, PVT's or ViT's blocks in c.py, got Conv2d"):
        find_blocks(nn.Conv2d(3, 8, 3), "c.py")


def test_norms_that_are_no_layer_norm() -> None:
    network = timm_vit(norm_layer=lambda width, **_: nn.Identity())
    with pytest.raises(ValueError, match=r"expected LayerNorm or DTN as blocks.0.norm1 of m, got Identity: name a"):
        find_blocks(network, "m")


def test_norms_that_would_pass_for_layer_norm() -> None:
    network = timm_vit(norm_layer=lambda width, **_: build_token_norm("sn", width))
    with pytest.raises(ValueError, match=r"expected LayerNorm or DTN as blocks.0.norm1 of m, got SwitchNorm: name a"):
        find_blocks(network, "m")
    assert find_blocks(timm_vit(norm_layer=lambda width, **_: build_token_norm("ln", width)), "m")


def test_vit_with_other_blocks() -> None:
    network = timm_vit()
    network.blocks[1].attn = nn.Identity()
    with pytest.raises(ValueError, match=r"one projection for queries, keys and values, got Block with Identity"):
        find_blocks(network, "m")


@pytest.mark.parametrize("settings", [SWIN, {**PVT, "type": "DTNPyramidVisionTransformer"}], ids=["swin", "pvt"])
def test_strides_of_shifted_patches_are_those_of_plain_ones(settings: dict[str, Any]) -> None:
    plain, shifted = (find_blocks(build({**settings, "spt": spt}), "m") for spt in (False, True))
    assert [block.stride for block in shifted] == [block.stride for block in plain]


def test_stride_of_a_converted_vit_is_its_patch() -> None:
    network = convert_tokenization(timm_vit())
    assert {block.stride for block in find_blocks(network, "m")} == {8}
