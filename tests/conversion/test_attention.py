"""`convert_attention` on timm's, mmpretrain's and MMDetection's models."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtn_det.conversion import convert_attention, plan_attention

timm = pytest.importorskip("timm")

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
MODELS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": VIT,
    "vit_small_patch14_reg4_dinov2": VIT,
    "deit_tiny_distilled_patch16_224": VIT,
    "deit3_small_patch16_224": VIT,
    "swin_tiny_patch4_window7_224": {
        "img_size": 64,
        "embed_dim": 12,
        "depths": (2, 2),
        "num_heads": (2, 3),
        "window_size": 4,
        "num_classes": 5,
    },
    "pit_ti_224": {
        "img_size": 32,
        "patch_size": 4,
        "stride": 4,
        "base_dims": (8, 8),
        "depth": (1, 2),
        "heads": (2, 4),
        "num_classes": 5,
    },
    "cait_xxs24_224": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5},
}


def build(name: str, **extra: Any) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, **{**MODELS[name], **extra}).eval()
    for parameter_name, parameter in model.named_parameters():
        if parameter.dim() < 2 or "proj_" in parameter_name:  # away from zeros and ones; mixing heads too
            nn.init.normal_(parameter, 0.5, 0.3)
    return model


def images(model: nn.Module, side: int | None = None) -> Tensor:
    side = side or (64 if "Swin" in type(model).__name__ else 32)
    return torch.randn(2, 3, side, side)


def scales(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if name.endswith("attn.scale")}


@pytest.mark.parametrize("name", MODELS)
def test_only_scales_are_new_and_weights_stay(name: str) -> None:
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert convert_attention(model, "lsa") is model
    after = model.state_dict()
    added = set(after) - set(before)
    attentions = [path for path, module in model.named_modules() if path.endswith("attn")]
    assert added == {f"{path}.scale" for path in attentions}
    assert all(torch.equal(after[key], value) for key, value in before.items())
    for path in attentions:
        module = model.get_submodule(path)
        heads, width = module.num_heads, module.proj.in_features
        assert torch.equal(module.scale, torch.full((heads,), (width // heads) ** -0.5))


@pytest.mark.parametrize("name", MODELS)
def test_trains_with_checkpointing_and_copies(name: str) -> None:
    model = convert_attention(build(name)).train()
    x = images(model)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    model(x).square().sum().backward()
    assert all(scale.grad is not None and scale.grad.abs().sum() > 0 for scale in scales(model).values())
    if hasattr(copied, "set_grad_checkpointing") and not name.startswith("pit"):
        copied.set_grad_checkpointing(True)
    copied(x).square().sum().backward()
    for key, scale in scales(copied).items():
        torch.testing.assert_close(scale.grad, scales(model)[key].grad, msg=key)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "cait_xxs24_224"])
def test_autocast_stays_close(name: str, dtype: torch.dtype) -> None:
    model = convert_attention(build(name))
    x = images(model)
    with torch.autocast("cpu", dtype):
        half = model(x)
    assert nn.functional.cosine_similarity(half.float().flatten(), model(x).flatten(), dim=0) > 0.99


def masked(scores: Tensor) -> Tensor:
    return scores.masked_fill(torch.eye(scores.shape[-1], dtype=torch.bool), -torch.inf)


def test_vit_attention_is_that_of_the_paper() -> None:
    """timm's own attention with queries scaled by hand and its mask argument."""
    plain = build("vit_tiny_patch16_224", qk_norm=True).blocks[0].attn.double()
    ours = convert_attention(nn.ModuleDict({"attn": copy.deepcopy(plain)})).attn
    nn.init.uniform_(ours.scale, 0.1, 2.0)
    plain.q_norm = nn.Sequential(plain.q_norm, _Scaled(ours.scale.detach() * 8**0.5))
    x = torch.randn(2, 17, 24, dtype=torch.float64)
    allowed = ~torch.eye(17, dtype=torch.bool)
    torch.testing.assert_close(ours(x), plain(x, attn_mask=allowed), rtol=1e-9, atol=1e-9)
    # A mask of the caller's, of either kind, and the causal one.
    bias = torch.randn(17, 17, dtype=torch.float64)
    for mask in (bias, bias > -1):
        merged = allowed & mask if mask.dtype == torch.bool else masked(mask)
        torch.testing.assert_close(ours(x, attn_mask=mask), plain(x, attn_mask=merged), rtol=1e-9, atol=1e-9)
    lower = torch.ones(17, 17, dtype=torch.bool).tril()
    lower_alone = allowed & lower
    lower_alone[0, 0] = True  # the first token has none before it
    torch.testing.assert_close(ours(x, is_causal=True), plain(x, attn_mask=lower_alone), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        ours(x, attn_mask=bias, is_causal=True)[:, 1:],
        plain(x, attn_mask=bias.masked_fill(~lower_alone, -torch.inf))[:, 1:],
        rtol=1e-9,
        atol=1e-9,
    )
    torch.testing.assert_close(ours(x, attn_mask=lower, is_causal=True), ours(x, attn_mask=lower))


class _Scaled(nn.Module):
    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, q: Tensor) -> Tensor:
        return q * self.scale[:, None, None]


@pytest.mark.parametrize("with_mask", [False, True])
def test_window_attention_is_that_of_the_paper(with_mask: bool) -> None:
    plain = build("swin_tiny_patch4_window7_224").layers[0].blocks[0].attn.double()
    nn.init.normal_(plain.relative_position_bias_table)
    ours = convert_attention(nn.ModuleDict({"attn": copy.deepcopy(plain)})).attn
    nn.init.uniform_(ours.scale, 0.1, 2.0)
    plain.fused_attn = False
    plain.scale = ours.scale.detach()[:, None, None]
    plain.softmax.register_forward_pre_hook(lambda _, scores: masked(scores[0]))
    x = torch.randn(2 * 3, 16, 12, dtype=torch.float64)
    mask = None
    if with_mask:
        mask = torch.zeros(3, 16, 16, dtype=torch.float64)
        mask[1, :8, 8:] = mask[1, 8:, :8] = -100.0
    torch.testing.assert_close(ours(x, mask), plain(x, mask), rtol=1e-9, atol=1e-9)


def test_talking_heads_mask_before_the_softmax() -> None:
    plain = build("cait_xxs24_224").blocks[0].attn.double()
    ours = convert_attention(nn.ModuleDict({"attn": copy.deepcopy(plain)})).attn
    nn.init.uniform_(ours.scale, 0.1, 2.0)
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    q, k, v = plain.qkv(x).reshape(2, 7, 3, 3, 8).permute(2, 0, 3, 1, 4)
    scores = torch.einsum("bhqd,bhkd,h->bhqk", q, k, ours.scale)
    mixed = torch.einsum("bhqk,gh->bgqk", scores, plain.proj_l.weight) + plain.proj_l.bias[:, None, None]
    weights = masked(mixed).softmax(-1)
    weights = torch.einsum("bhqk,gh->bgqk", weights, plain.proj_w.weight) + plain.proj_w.bias[:, None, None]
    expected = plain.proj((weights @ v).transpose(1, 2).reshape(2, 7, 24))
    torch.testing.assert_close(ours(x), expected, rtol=1e-9, atol=1e-9)
    assert ours(x[:, :1]).isfinite().all()


def test_class_attention_gets_the_scale_alone() -> None:
    plain = build("cait_xxs24_224").blocks_token_only[0].attn
    ours = convert_attention(nn.ModuleDict({"attn": copy.deepcopy(plain)})).attn
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), plain(x))
    nn.init.constant_(ours.scale, 2 * 8**-0.5)
    with torch.no_grad():
        plain.q.weight *= 2
        if plain.q.bias is not None:
            plain.q.bias *= 2
    torch.testing.assert_close(ours(x), plain(x))


@pytest.mark.parametrize("backbone", ["vit", "t2t", "swin"])
def test_mmpretrain(backbone: str) -> None:
    pytest.importorskip("mmpretrain")
    from mmpretrain.models import backbones

    torch.manual_seed(0)
    model = {
        "vit": lambda: backbones.VisionTransformer(
            arch={"embed_dims": 24, "num_layers": 2, "num_heads": 3, "feedforward_channels": 48},
            img_size=32,
            patch_size=8,
        ),
        "t2t": lambda: backbones.T2T_ViT(
            img_size=32, embed_dims=24, num_layers=2, t2t_cfg={"token_dims": 8}, layer_cfgs={"num_heads": 3}
        ),
        "swin": lambda: backbones.SwinTransformer(
            arch={"embed_dims": 12, "depths": [2, 2], "num_heads": [2, 3]}, img_size=32, window_size=4, out_indices=(1,)
        ),
    }[backbone]()
    model.eval()
    before = copy.deepcopy(model)
    plan = plan_attention(model)
    convert_attention(model)
    assert set(model.state_dict()) - set(before.state_dict()) == {f"{path}.scale" for path, _ in plan.replaced}
    assert len(plan.replaced) == 4 if backbone != "vit" else 2
    assert not plan.kept
    x = torch.randn(2, 3, 32, 32)
    before_out, out = before(x)[0], model(x)[0]
    assert out.shape == before_out.shape
    assert not torch.allclose(out, before_out)
    path = plan.replaced[-1][0]
    ours, plain = model.get_submodule(path), before.get_submodule(path)
    heads, width = ours.num_heads, ours.proj.in_features
    tokens = torch.randn(2, 16, width)
    q, k, v = plain.qkv(tokens).reshape(2, 16, 3, heads, -1).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-2, -1) * (width // heads) ** -0.5
    if backbone == "swin":
        scores = scores + plain.relative_position_bias_table[plain.relative_position_index].permute(2, 0, 1)
    expected = plain.proj((masked(scores).softmax(-1) @ v).transpose(1, 2).reshape(2, 16, width))
    torch.testing.assert_close(ours(tokens), expected, rtol=1e-5, atol=1e-6)


def test_value_shortcut_of_t2t_stays() -> None:
    pytest.importorskip("mmpretrain")
    from mmpretrain.models.utils.attention import MultiheadAttention

    plain = MultiheadAttention(6, 1, input_dims=10, v_shortcut=True)
    ours = convert_attention(nn.ModuleDict({"attn": copy.deepcopy(plain)})).attn
    x = torch.randn(2, 5, 10)
    q, k, v = plain.qkv(x).chunk(3, dim=2)
    weights = masked(q @ k.transpose(1, 2) * 6**-0.5).softmax(-1)
    torch.testing.assert_close(ours(x), v + plain.proj(weights @ v))


def test_own_backbones_are_what_their_option_makes() -> None:
    registry = pytest.importorskip("mmdet.registry")
    pytest.importorskip("dtn_det.backbones")
    tiny = {
        "embed_dims": 8,
        "depths": (1, 1),
        "num_heads": (1, 2),
        "strides": (4, 2),
        "out_indices": (0, 1),
        "window_size": 4,
    }
    cfg = {"type": "mmdet.DTNSwinTransformer", **tiny, "dtn_stages": (0, 1)}
    plain, option = registry.MODELS.build(cfg), registry.MODELS.build({**cfg, "lsa": True})
    converted = convert_attention(plain)
    assert [type(module) for module in converted.modules()] == [type(module) for module in option.modules()]
    assert set(converted.state_dict()) == set(option.state_dict())


def test_frozen_weights_have_frozen_scales() -> None:
    model = build("vit_tiny_patch16_224")
    model.blocks[0].requires_grad_(False)
    convert_attention(model)
    assert [scale.requires_grad for scale in scales(model).values()] == [False, True]


def test_layers_choose(caplog: pytest.LogCaptureFixture) -> None:
    model = build("vit_tiny_patch16_224")
    with caplog.at_level("INFO"):
        convert_attention(model, layers=r"blocks\.1\.")
    assert list(scales(model)) == ["blocks.1.attn.scale"]
    assert "VisionTransformer: 1 modules become Locality Self-Attention, 1 stay" in caplog.text
    assert "  blocks.1.attn: Attention\n  blocks.0.attn: Attention stays" in caplog.text
    convert_attention(model, layers=lambda name, module: name == "blocks.0.attn")
    assert list(scales(model)) == ["blocks.0.attn.scale", "blocks.1.attn.scale"]


def test_plan_changes_nothing() -> None:
    model = build("vit_tiny_patch16_224")
    plan = plan_attention(model)
    assert [name for name, _ in plan.replaced] == ["blocks.0.attn", "blocks.1.attn"]
    assert not scales(model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: convert_attention(nn.Linear(2, 2)),
            "modules of Linear that can become Locality Self-Attention, got none of the kind: each class",
        ),
        (
            lambda: convert_attention(build("vit_tiny_patch16_224"), layers="head"),
            r"layers to choose some of blocks\.0\.attn, blocks\.1\.attn of VisionTransformer, got 'head', which",
        ),
        (
            lambda: convert_attention(convert_attention(build("vit_tiny_patch16_224"))),
            "without Locality Self-Attention, got one that is converted already",
        ),
        (
            lambda: convert_attention(build("vit_tiny_patch16_224"), "softmax"),
            "expected attention to be 'lsa', got 'softmax'",
        ),
        (lambda: convert_attention("vit"), "expected a built model .* got str: build it first"),
        (lambda: convert_attention(build("vit_tiny_patch16_224"), layers="("), r"expected layers to be .* got '\('"),
    ],
)
def test_errors_name_the_fault(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("beit_base_patch16_224", r"timm\.models\.beit\.Attention"),
        ("pvt_v2_b0", r"timm\.models\.pvt_v2\.Attention"),
        ("swinv2_tiny_window8_256", r"timm\.models\.swin_transformer_v2\.WindowAttention"),
        ("twins_svt_small", r"timm\.models\.twins\.GlobalSubSampleAttn, timm\.models\.twins\.LocallyGroupedAttn"),
    ],
)
def test_attention_of_another_kind_is_named_by_its_file(name: str, found: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    known = "take timm's ViT, DeiT, .*, mmpretrain's ViT, .*, or MMDetection's Swin"
    with pytest.raises(ValueError, match=f"Self-Attention, got {found}, for which it is not written: each .*; {known}"):
        convert_attention(model)
