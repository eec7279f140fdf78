"""`spt=True` and `lsa=True` of the detection backbones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("mmdet")

from mmdet.models.backbones.pvt import SpatialReductionAttention
from mmdet.models.backbones.swin import ShiftWindowMSA
from mmdet.models.layers import PatchEmbed

from dtn_det.conversion.hosts.mmcv import tokenization_of
from dtn_det.conversion.hosts.mmdet import localize
from dtn_det.layers import ShiftedPatchTokenization
from dtn_det.layers.options import EXTRA_STATE

Build = Callable[..., nn.Module]
Randomise = Callable[..., nn.Module]
SWIN, PVT, PVTV2 = "DTNSwinTransformer", "DTNPyramidVisionTransformer", "DTNPyramidVisionTransformerV2"
BLOCKS = {SWIN: 7, PVT: 5, PVTV2: 5}
BOTH = {"spt": True, "lsa": True}
# Where the options exist: PVTv2's patches overlap.
OPTIONS = [(SWIN, BOTH), (SWIN, {"spt": True}), (SWIN, {"lsa": True}), (PVT, BOTH), (PVT, {"lsa": True})]
OPTIONS += [(PVTV2, {"lsa": True})]


def scales(backbone: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in backbone.named_parameters() if name.endswith(".scale")}


def draw_scales(backbone: nn.Module) -> None:
    with torch.no_grad():
        for scale in scales(backbone).values():
            scale.uniform_(0.2, 2.0)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("hw_shape", [(8, 8), (9, 13), (3, 2)])
def test_window_attention_is_that_of_the_paper(shift: int, hw_shape: tuple[int, int]) -> None:
    """MMDetection's own module with a scale per head and minus infinity on the diagonal, added last to the scores."""
    plain = ShiftWindowMSA(12, 3, 4, shift_size=shift).double()
    nn.init.normal_(plain.w_msa.relative_position_bias_table)
    ours = copy.deepcopy(plain)
    localize(ours.w_msa)
    torch.testing.assert_close(ours.w_msa.scale, torch.full((3,), 0.5, dtype=torch.float64))
    nn.init.uniform_(ours.w_msa.scale, 0.2, 2.0)
    plain.w_msa.scale = ours.w_msa.scale.detach()[:, None, None]
    diagonal = torch.eye(16, dtype=torch.bool)
    plain.w_msa.softmax.register_forward_pre_hook(lambda _, scores: scores[0].masked_fill(diagonal, -torch.inf))
    x = torch.randn(2, hw_shape[0] * hw_shape[1], 12, dtype=torch.float64)
    expected, out = plain(x, hw_shape), ours(x, hw_shape)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    grad = torch.randn_like(out)
    expected.backward(grad)
    out.backward(grad)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("sr_ratio", [1, 2])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_reduction_attention_masks_the_diagonal_where_there_is_one(sr_ratio: int, qkv_bias: bool) -> None:
    plain = SpatialReductionAttention(12, 3, sr_ratio=sr_ratio, qkv_bias=qkv_bias).double()
    ours = copy.deepcopy(plain)
    localize(ours)
    x = torch.randn(2, 24, 12, dtype=torch.float64)
    mask = torch.eye(24, dtype=torch.bool) if sr_ratio == 1 else None
    source = x
    if sr_ratio > 1:
        source = plain.norm(plain.sr(x.transpose(1, 2).reshape(2, 12, 4, 6)).flatten(2).transpose(1, 2))
    keys = source.transpose(0, 1)

    def attended() -> Tensor:
        return plain.attn(x.transpose(0, 1), keys, keys, attn_mask=mask)[0].transpose(0, 1)

    expected = 2 * x + attended()
    torch.testing.assert_close(ours(x, (4, 6), identity=2 * x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours(x, (4, 6)), expected - x, rtol=1e-9, atol=1e-9)
    # A scale twice as large is a query twice as large.
    nn.init.constant_(ours.scale, 1.0)
    with torch.no_grad():
        plain.attn.in_proj_weight[:12] *= 2
        if qkv_bias:
            plain.attn.in_proj_bias[:12] *= 2
    torch.testing.assert_close(ours(x, (4, 6)), x + attended())


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_only_what_the_options_name_is_new(build: Build, name: str, options: dict[str, bool]) -> None:
    plain, ours = build(name).state_dict(), build(name, **options).state_dict()
    added, gone = set(ours) - set(plain), set(plain) - set(ours)
    new_scales = {key for key in added if key.endswith(".scale")}
    shifts = {f"{key.rsplit('.', 2)[0]}.{EXTRA_STATE}" for key in patches(ours)}
    assert added == new_scales | patches(ours) | shifts
    assert bool(patches(ours)) == ("spt" in options)
    stems = {key.rsplit(".", 2)[0] for key in patches(ours)}
    assert {key.rsplit(".", 2)[0] for key in gone} == stems
    if "spt" in options:
        assert stems == (
            {"patch_embed", *(f"stages.{i}.downsample" for i in range(3))}
            if name == SWIN
            else {f"layers.{i}.0" for i in range(4)}
        )
    assert len(new_scales) == ("lsa" in options) * BLOCKS[name]


def patches(state: dict[str, Tensor]) -> set[str]:
    return {key for key in state if ".patch_norm." in key or ".patch_linear." in key}


def test_swin_with_both_by_hand(build: Build) -> None:
    """Tokens by the layer itself, the blocks by MMDetection's stages."""
    backbone = build(SWIN, **BOTH)
    backbone.init_weights()
    x = torch.randn(1, 3, 50, 70)
    tokens, hw_shape = backbone.patch_embed(x)
    assert hw_shape == (13, 18)
    for index, (stage, out) in enumerate(zip(backbone.stages, backbone(x), strict=True)):
        for block in stage.blocks:
            tokens = block(tokens, hw_shape)
        expected = getattr(backbone, f"norm{index}")(tokens).transpose(1, 2).unflatten(2, hw_shape)
        torch.testing.assert_close(out, expected)
        if index < 3:
            assert isinstance(stage.downsample, ShiftedPatchTokenization)
            assert (stage.downsample.shift, stage.downsample.patch_size) == (1, 2)
            tokens, hw_shape = stage.downsample(tokens, hw_shape)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
@pytest.mark.parametrize("size", [(64, 64), (65, 97), (7, 90), (1, 1)])
def test_any_image_size_trains(build: Build, name: str, options: dict[str, bool], size: tuple[int, int]) -> None:
    backbone = build(name, **options)
    backbone.init_weights()
    backbone.train()
    outs = backbone(torch.randn(2, 3, *size))
    height, width = size if name == SWIN else (max(side, 32) for side in size)
    for level, out in enumerate(outs):
        stride = 2 ** (level + 2)
        cut = name == PVT and "spt" not in options
        assert list(out.shape[2:]) == [side // stride if cut else -(-side // stride) for side in (height, width)]
    torch.stack([out.square().sum() for out in outs]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_checkpointing_changes_nothing(build: Build, name: str, options: dict[str, bool]) -> None:
    results = []
    for with_cp in (False, True):
        backbone = build(name, with_cp=with_cp, **options)
        torch.manual_seed(0)
        draw_scales(backbone)
        backbone(torch.ones(1, 3, 40, 56).cumsum(3))[-1].square().sum().backward()
        results.append({key: p.grad for key, p in backbone.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    for key, grad in results[0].items():
        torch.testing.assert_close(grad, results[1][key], msg=key)


@pytest.mark.parametrize("name", [SWIN, PVT])
def test_frozen_stages_hold_patches_and_scales(build: Build, name: str) -> None:
    backbone = build(name, frozen_stages=1, **BOTH).train()
    frozen = {key for key, p in backbone.named_parameters() if not p.requires_grad}
    first, second = ("stages.0.", "stages.1.downsample") if name == SWIN else ("layers.0.", "layers.1.0")
    assert {key for key in scales(backbone) if key.startswith(first)} == frozen & set(scales(backbone))
    assert ("patch_embed" if name == SWIN else "layers.0.0") + ".patch_linear.weight" in frozen
    assert f"{second}.patch_linear.weight" not in frozen


@pytest.mark.parametrize("name", [SWIN, PVT])
def test_start_of_the_new_weights(build: Build, name: str) -> None:
    backbone = build(name, **BOTH)
    start = {key: scale.clone() for key, scale in scales(backbone).items()}
    for key, parameter in backbone.named_parameters():
        if key not in start:
            nn.init.constant_(parameter, 7.0)
    backbone.init_weights()
    assert all(torch.equal(scale, start[key]) for key, scale in scales(backbone).items())
    for module in backbone.modules():
        if isinstance(module, ShiftedPatchTokenization):
            assert torch.equal(module.patch_norm.weight, torch.ones_like(module.patch_norm.weight))
            assert 0.015 < module.patch_linear.weight.std() < 0.025
            assert torch.count_nonzero(module.patch_linear.bias) == 0


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_own_checkpoint_loads_back_exactly(
    build: Build, randomise: Randomise, tmp_path: Path, name: str, options: dict[str, bool]
) -> None:
    trained = randomise(build(name, **options)).state_dict()
    torch.save(trained, tmp_path / "a.pth")
    checkpoint = {"type": "Pretrained", "checkpoint": str(tmp_path / "a.pth")}
    backbone = build(name, seed=1, init_cfg=checkpoint, **options)
    backbone.init_weights()
    assert all(torch.equal(value, trained[key]) for key, value in backbone.state_dict().items())
    with pytest.raises(ValueError, match=r"\d+ unexpected \(.*(patch_norm|scale)"):
        build(name, init_cfg=checkpoint).init_weights()


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_plain_checkpoint_tells_what_is_new(
    build: Build,
    randomise: Randomise,
    tmp_path: Path,
    warnings_and_infos: dict[str, list[str]],
    name: str,
    options: dict[str, bool],
) -> None:
    trained = randomise(build(name)).state_dict()
    torch.save(trained, tmp_path / "a.pth")
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "a.pth")}
    backbone = build(name, seed=1, init_cfg=init_cfg, **options)
    start = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.init_weights()
    for key, value in backbone.state_dict().items():
        kept = key in patches(start) or key.endswith(".scale") or (key.endswith(EXTRA_STATE) and key not in trained)
        assert torch.equal(value, start[key] if kept else trained[key]), key
    told = f"no scales of Locality Self-Attention, and {BLOCKS[name]} keep their start" in warnings_and_infos["info"][0]
    assert told == ("lsa" in options)
    warned = "\n".join(warnings_and_infos.get("warning", []))
    first = "patch_embed, stages.0.downsample" if name == SWIN else "layers.0.0, layers.1.0"
    assert (f"the patches of {first}" in warned) == ("spt" in options)


def test_checkpoint_with_some_of_the_scales_does_not_fit(build: Build, tmp_path: Path) -> None:
    state = build(SWIN, lsa=True).state_dict()
    del state["stages.0.blocks.0.attn.w_msa.scale"]
    torch.save(state, tmp_path / "a.pth")
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "a.pth")}
    with pytest.raises(ValueError, match=r"1 missing \(stages\.0\.blocks\.0\.attn\.w_msa\.scale\)"):
        build(SWIN, lsa=True, init_cfg=init_cfg).init_weights()


def test_patches_that_overlap_are_told(build: Build) -> None:
    with pytest.raises(ValueError, match="got patches of 7 x 7 with stride 4, padding 3 and dilation 1: patches that"):
        build(PVTV2, spt=True)


def test_norm_of_the_patches_has_the_eps_of_the_old_one(build: Build) -> None:
    assert build(PVT, spt=True).layers[0][0].patch_norm.eps == 1e-5
    assert build(PVT, spt=True, embed_norm_eps=None).layers[0][0].patch_norm.eps == 1e-6
    assert tokenization_of(PatchEmbed(3, 8, kernel_size=4, stride=4, norm_cfg=None)).patch_norm.eps == 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [SWIN, PVT])
def test_autocast_stays_close(build: Build, name: str, dtype: torch.dtype) -> None:
    backbone = build(name, **BOTH)
    backbone.init_weights()
    x = torch.randn(1, 3, 40, 40)
    with torch.autocast("cpu", dtype):
        outs = backbone(x)
    for half, full in zip(outs, backbone(x), strict=True):
        assert F.cosine_similarity(half.float().flatten(), full.flatten(), dim=0) > 0.99
