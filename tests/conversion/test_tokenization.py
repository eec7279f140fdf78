"""`convert_tokenization` on timm's, mmpretrain's and MMDetection's models."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dtn_det.conversion import convert_attention, convert_norm, convert_tokenization, plan_tokenization
from dtn_det.layers import ShiftedPatchTokenization, shift_patches

timm = pytest.importorskip("timm")

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
SWIN = {"embed_dim": 12, "depths": (1, 1, 1), "num_heads": (2, 3, 4), "window_size": 4, "num_classes": 5}
PIT = {"base_dims": (8, 8), "depth": (1, 1), "heads": (2, 4), "num_classes": 5, "img_size": 32}
MODELS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": VIT,
    "vit_small_patch14_reg4_dinov2": VIT,
    "deit_tiny_distilled_patch16_224": VIT,
    "deit3_small_patch16_224": VIT,
    "swin_tiny_patch4_window7_224": {"img_size": 32, **SWIN},
    "pit_ti_224": {**PIT, "patch_size": 4, "stride": 4},
    "pit_ti_distilled_224": {**PIT, "patch_size": 4, "stride": 4},
    "cait_xxs24_224": VIT,
}
# The modules that get new weights, and their widths and patches.
NEW = {
    "swin_tiny_patch4_window7_224": {
        "patch_embed": (3, 12, 4),
        "layers.1.downsample": (12, 24, 2),
        "layers.2.downsample": (24, 48, 2),
    },
    "pit_ti_224": {"patch_embed": (3, 16, 4), "transformers.1.pool": (16, 32, 2)},
    "pit_ti_distilled_224": {"patch_embed": (3, 16, 4), "transformers.1.pool": (16, 32, 2)},
}


def build(name: str, **extra: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, **{**MODELS[name], **extra}).eval()


def layer_of(module: nn.Module, widths: tuple[int, int, int]) -> ShiftedPatchTokenization:
    """The layer itself with the weights of a converted module."""
    layer = ShiftedPatchTokenization(*widths)
    layer.load_state_dict({key: value for key, value in module.state_dict().items() if key.startswith("patch_")})
    return layer


@pytest.mark.parametrize("name", MODELS)
def test_new_weights_are_where_the_paper_has_them(name: str) -> None:
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert convert_tokenization(model, "spt") is model
    new = NEW.get(name, {"patch_embed": (3, 24, 8)})
    after = model.state_dict()
    added, gone = set(after) - set(before), set(before) - set(after)
    parts = ("patch_norm.weight", "patch_norm.bias", "patch_linear.weight", "patch_linear.bias")
    assert added == {f"{path}.{part}" for path in new for part in parts}
    assert {key.rsplit(".", 2)[0] for key in gone} == set(new)
    assert all(torch.equal(after[key], before[key]) for key in set(after) & set(before))
    for path, widths in new.items():
        module = model.get_submodule(path)
        assert 0.015 < module.patch_linear.weight.std() < 0.025
        side = 32 if path == "patch_embed" else 6
        x = torch.randn(2, widths[0], side, side)
        expected, hw_shape = layer_of(module, widths)(x)
        expected = expected.unflatten(1, hw_shape)
        if "pool" in path:
            tokens = torch.randn(2, 2, widths[0])
            out, prefix = module(x, tokens)
            torch.testing.assert_close(prefix, module.fc(tokens))
        else:
            out = module(x.permute(0, 2, 3, 1)) if "downsample" in path else module(x)
        if name.startswith("pit"):
            out = out.permute(0, 2, 3, 1)
        torch.testing.assert_close(out.reshape(expected.shape), expected)


@pytest.mark.parametrize("name", MODELS)
def test_trains_with_attention_too_and_copies(name: str) -> None:
    model = convert_attention(convert_tokenization(build(name))).train()
    x = torch.randn(2, 3, 32, 32)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    torch.testing.assert_close(copied.eval()(x), model.eval()(x))
    out = model.train()(x)
    (sum(o.square().sum() for o in out) if isinstance(out, tuple) else out.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert model.patch_embed.patch_linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "pit_ti_224"])
def test_safetensors_and_half_precision(name: str, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    model = convert_attention(convert_tokenization(build(name)))
    safetensors.save_file(model.state_dict(), tmp_path / "a.safetensors")
    other = convert_attention(convert_tokenization(build(name)))
    other.load_state_dict(safetensors.load_file(tmp_path / "a.safetensors"), strict=True)
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(other(x), model(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert nn.functional.cosine_similarity(model(x).float().flatten(), other(x).float().flatten(), dim=0) > 0.99
    assert model.bfloat16()(x.bfloat16()).isfinite().all()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "pit_ti_224"])
def test_norms_find_the_grid_of_the_new_tokens(name: str) -> None:
    extra = {} if name.startswith("pit") else {"dynamic_img_size": True}
    model = convert_attention(convert_tokenization(build(name, **extra)))
    x = torch.randn(1, 3, *((32, 32) if name.startswith("pit") else (37, 61)))
    before = model(x)
    convert_norm(model, "dtn", layers="blocks")
    # DTN starts as LayerNorm, nearly.
    torch.testing.assert_close(model(x), before, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "pit_ti_224", "cait_xxs24_224"]
)
def test_both_conversions_compile_without_a_break(name: str) -> None:
    model = convert_attention(convert_tokenization(build(name)))
    x = torch.randn(1, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(40, 48), (37, 61)])
def test_dynamic_sizes_are_padded(size: tuple[int, int]) -> None:
    model = convert_tokenization(build("vit_tiny_patch16_224", dynamic_img_size=True))
    x = torch.randn(1, 3, *size)
    grid = tuple(-(-side // 8) for side in size)
    assert model.patch_embed(x).shape == (1, *grid, 24)
    assert model(x).shape == (1, 5)
    (features,) = model.forward_intermediates(x, indices=[1], intermediates_only=True)
    assert features.shape == (1, 24, *grid)
    swin = convert_tokenization(build("swin_tiny_patch4_window7_224", dynamic_img_size=True))
    assert swin(x).shape == (1, 5)


def test_size_of_images_is_held_where_the_model_holds_it() -> None:
    model = convert_tokenization(build("vit_tiny_patch16_224", img_size=35))
    x = torch.randn(1, 3, 35, 35)
    assert model(x).shape == (1, 5)
    # As without the layer, what is beyond the last whole patch has no position embedding.
    torch.testing.assert_close(
        model.patch_embed(x), model.patch_embed(nn.functional.pad(x[:, :, :32, :32], (0, 3, 0, 3)))
    )
    with pytest.raises(ValueError, match="expected images of 35 x 35 pixels, got 40 x 32: build the model with"):
        model(torch.randn(1, 3, 40, 32))
    model.set_input_size(img_size=48)
    assert model(torch.randn(1, 3, 48, 48)).shape == (1, 5)
    with pytest.raises(ValueError, match="expected to keep patches of 8 pixels, got patch_size=4"):
        model.set_input_size(patch_size=4)


@pytest.mark.parametrize("output_fmt", ["NHWC", "NCHW", "NLC", "NCL"])
def test_layouts_are_those_of_timm(output_fmt: str) -> None:
    from timm.layers import PatchEmbed

    embed = PatchEmbed(16, 4, 3, 8, output_fmt=output_fmt)
    x = torch.randn(2, 3, 16, 16)
    shape = embed(x).shape
    out = convert_tokenization(nn.ModuleDict({"embed": embed})).embed(x)
    assert out.shape == shape
    tokens, _ = layer_of(embed, (3, 8, 4))(x)
    torch.testing.assert_close(out.flatten(), {"NCHW": tokens.mT, "NCL": tokens.mT}.get(output_fmt, tokens).flatten())


def test_overlapping_patches_of_pit_become_those_of_its_stride() -> None:
    model = build("pit_ti_224", img_size=48, patch_size=8, stride=4)
    old = model.pos_embed.detach().clone()
    assert old.shape[2:] == (11, 11)
    convert_tokenization(model)
    assert model.patch_embed.grid_size == (12, 12)
    assert model.patch_embed.patch_size == (4, 4)
    expected = nn.functional.interpolate(old, size=(12, 12), mode="bicubic", align_corners=False)
    torch.testing.assert_close(model.pos_embed.detach(), expected)
    assert model(torch.randn(1, 3, 48, 48)).shape == (1, 5)


def test_t2t_gets_the_shifted_image_alone() -> None:
    pytest.importorskip("mmpretrain")
    from mmpretrain.models.backbones import T2T_ViT

    torch.manual_seed(0)
    model = T2T_ViT(img_size=32, embed_dims=24, num_layers=1, t2t_cfg={"token_dims": 8}, layer_cfgs={"num_heads": 3})
    wide = T2T_ViT(
        img_size=32,
        embed_dims=24,
        num_layers=1,
        in_channels=15,
        t2t_cfg={"token_dims": 8},
        layer_cfgs={"num_heads": 3},
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    convert_tokenization(model)
    for network in (model, wide):
        network.eval()
    after = model.state_dict()
    assert {key for key in after if after[key].shape != before[key].shape} == {
        "tokens_to_token.attention1.ln1.weight",
        "tokens_to_token.attention1.ln1.bias",
        "tokens_to_token.attention1.attn.qkv.weight",
    }
    wide.load_state_dict(after)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x)[0], wide(shift_patches(x, 1))[0])


def test_t2t_wants_its_tokens_before_its_norms() -> None:
    pytest.importorskip("mmpretrain")
    from mmpretrain.models.backbones import T2T_ViT

    model = T2T_ViT(img_size=32, embed_dims=24, num_layers=1, layer_cfgs={"num_heads": 3})
    model.tokens_to_token.attention1.ln1 = nn.Identity()
    with pytest.raises(ValueError, match="LayerNorm before the first attention of 'tokens_to_token', got Identity"):
        convert_tokenization(model)


@pytest.mark.parametrize("backbone", ["vit", "swin"])
def test_mmpretrain(backbone: str) -> None:
    pytest.importorskip("mmpretrain")
    from mmpretrain.models import backbones

    model = {
        "vit": lambda: backbones.VisionTransformer(
            arch={"embed_dims": 24, "num_layers": 2, "num_heads": 3, "feedforward_channels": 48},
            img_size=32,
            patch_size=8,
        ),
        "swin": lambda: backbones.SwinTransformer(
            arch={"embed_dims": 12, "depths": [1, 1], "num_heads": [2, 3]}, img_size=32, window_size=4, out_indices=(1,)
        ),
    }[backbone]()
    model.eval()
    plan = plan_tokenization(model)
    assert [name for name, _ in plan.replaced] == ["patch_embed"] + ["stages.0.downsample"] * (backbone == "swin")
    convert_tokenization(model)
    model.init_weights()
    assert model(torch.randn(2, 3, 32, 32))[0].isfinite().all()
    assert all(isinstance(model.get_submodule(name), ShiftedPatchTokenization) for name, _ in plan.replaced)


def test_own_backbones_are_what_their_option_makes() -> None:
    registry = pytest.importorskip("mmdet.registry")
    pytest.importorskip("dtn_det.backbones")
    cfg = {
        "type": "mmdet.DTNSwinTransformer",
        "embed_dims": 8,
        "depths": (1, 1),
        "num_heads": (1, 2),
        "strides": (4, 2),
    }
    cfg = {**cfg, "out_indices": (0, 1), "window_size": 4, "dtn_stages": (0, 1)}
    converted, option = convert_tokenization(registry.MODELS.build(cfg)), registry.MODELS.build({**cfg, "spt": True})
    assert [type(module) for module in converted.modules()] == [type(module) for module in option.modules()]


def test_classifier_of_timm_becomes_the_backbone_of_a_detector(tmp_path: Path) -> None:
    registry = pytest.importorskip("mmdet.registry")
    pytest.importorskip("dtn_det.backbones")
    classifier = convert_attention(
        convert_tokenization(build("swin_tiny_patch4_window7_224", img_size=64, window_size=2))
    )
    for parameter in classifier.parameters():
        nn.init.normal_(parameter, std=0.3)
    torch.save(classifier.state_dict(), tmp_path / "a.pth")
    backbone = registry.MODELS.build(
        {
            "type": "mmdet.DTNSwinTransformer",
            "embed_dims": 12,
            "depths": (1, 1, 1),
            "num_heads": (2, 3, 4),
            "strides": (4, 2, 2),
            "out_indices": (2,),
            "window_size": 2,
            "dtn_stages": (),
            "spt": True,
            "lsa": True,
            "init_cfg": {"type": "Pretrained", "checkpoint": str(tmp_path / "a.pth")},
        }
    )
    backbone.init_weights()
    backbone.eval()
    backbone.norm2 = nn.Identity()
    x = torch.randn(1, 3, 64, 64)
    expected = classifier.forward_intermediates(x, indices=[2], intermediates_only=True)[0]
    torch.testing.assert_close(backbone(x)[0], expected, rtol=1e-4, atol=1e-4)


def test_small_vit_is_the_one_of_the_paper() -> None:
    """SL-ViT for 32 x 32 pixels: 8 x 8 tokens, 9 blocks of width 192 with 12 heads."""
    small = {
        "img_size": 32,
        "patch_size": 4,
        "embed_dim": 192,
        "depth": 9,
        "num_heads": 12,
        "mlp_ratio": 2,
        "num_classes": 100,
    }
    plain = timm.create_model("vit_tiny_patch16_224", **small)
    model = convert_attention(convert_tokenization(copy.deepcopy(plain)))
    counts = [sum(p.numel() for p in network.parameters()) for network in (plain, model)]
    # LayerNorm and linear layer of 5 * 3 * 4 * 4 features against 3 * 4 * 4, and 12 scales a block.
    assert counts[1] - counts[0] == 2 * 240 + 192 * (240 - 48) + 9 * 12
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 100)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: convert_tokenization(nn.Linear(2, 2)),
            "modules of Linear that can become Shifted Patch Tokenization, got none of the kind: each class",
        ),
        (
            lambda: convert_tokenization(convert_tokenization(build("vit_tiny_patch16_224"))),
            "without Shifted Patch Tokenization, got one that is converted already",
        ),
        (
            lambda: convert_tokenization(build("vit_tiny_patch16_224"), "cnn"),
            "expected tokenization to be 'spt', got 'cnn'",
        ),
        (
            lambda: convert_tokenization(build("vit_tiny_patch16_224", patch_size=(8, 4))),
            "expected square patches for Shifted Patch Tokenization at 'patch_embed', got 8 x 4",
        ),
        (
            lambda: convert_tokenization(timm.create_model("pvt_v2_b0")),
            r"got timm\.models\.pvt_v2\.OverlapPatchEmbed, for which it is not written: .*; take timm's ViT, DeiT",
        ),
        (
            lambda: convert_tokenization(build("vit_tiny_patch16_224"), layers="zzz"),
            "expected layers to choose some of patch_embed of VisionTransformer, got 'zzz', which chooses none of them",
        ),
        (lambda: convert_tokenization("vit"), "expected a built model .* got str: build it first"),
    ],
)
def test_errors_name_the_fault(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_post_norm_merging_is_refused() -> None:
    pytest.importorskip("mmpretrain")
    from mmpretrain.models.utils.embed import PatchMerging

    model = nn.ModuleDict({"merging": PatchMerging(4, 8, use_post_norm=True)})
    with pytest.raises(ValueError, match="got one with use_post_norm=True, as in Swin v2"):
        convert_tokenization(model)
