"""Conversions of Hugging Face's vision models, of those that read text too, and loading into converted classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conversion_models import move_off_start, norm_calls, wrong_cells
from torch import Tensor, nn

from dtn_det import convert_norm, plan_norms
from dtn_det.errors import InputError
from dtn_det.layers import DTN, TOKEN_NORMS, TokenNorm

transformers = pytest.importorskip("transformers")

_VIT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
_ANY_SIZE = {"interpolate_pos_encoding": True}


def build(name: str, config: str, **kwargs: Any) -> nn.Module:
    model: nn.Module = getattr(transformers, name)(getattr(transformers, config)(**kwargs))
    return model.eval()


# Model, config, its arguments, arguments of the forward pass, and the grids by width at 64 x 96 pixels. BEiT,
# Data2Vec and PVT take images of their own size alone, and that of PVT is square.
_IMAGES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], dict[int, tuple[int, int]]]] = {
    "vit": ("ViTModel", "ViTConfig", {**_VIT, "image_size": 32, "patch_size": 8}, _ANY_SIZE, {24: (8, 12)}),
    "deit": ("DeiTModel", "DeiTConfig", {**_VIT, "image_size": 32, "patch_size": 8}, _ANY_SIZE, {24: (8, 12)}),
    "beit": ("BeitModel", "BeitConfig", {**_VIT, "image_size": [64, 96], "patch_size": 8}, {}, {24: (8, 12)}),
    "data2vec": (
        "Data2VecVisionModel", "Data2VecVisionConfig", {**_VIT, "image_size": [64, 96], "patch_size": 8}, {},
        {24: (8, 12)},
    ),
    "dinov2": (
        "Dinov2Model", "Dinov2Config", {**_VIT, "mlp_ratio": 2, "image_size": 32, "patch_size": 8}, {}, {24: (8, 12)},
    ),
    "dinov2-registers": (
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig",
        {**_VIT, "mlp_ratio": 2, "image_size": 32, "patch_size": 8, "num_register_tokens": 3}, {}, {24: (8, 12)},
    ),
    "clip": (
        "CLIPVisionModel", "CLIPVisionConfig", {**_VIT, "image_size": 32, "patch_size": 8}, _ANY_SIZE, {24: (8, 12)},
    ),
    "siglip": (
        "SiglipVisionModel", "SiglipVisionConfig", {**_VIT, "image_size": 32, "patch_size": 8}, _ANY_SIZE,
        {24: (8, 12)},
    ),
    "yolos": (
        "YolosModel", "YolosConfig", {**_VIT, "image_size": [32, 32], "patch_size": 8, "num_detection_tokens": 5}, {},
        {24: (8, 12)},
    ),
    "vit-msn": ("ViTMSNModel", "ViTMSNConfig", {**_VIT, "image_size": 32, "patch_size": 8}, _ANY_SIZE, {24: (8, 12)}),
    "ijepa": ("IJepaModel", "IJepaConfig", {**_VIT, "image_size": 32, "patch_size": 8}, _ANY_SIZE, {24: (8, 12)}),
    "blip": (
        "BlipVisionModel", "BlipVisionConfig", {**_VIT, "image_size": 32, "patch_size": 8}, _ANY_SIZE, {24: (8, 12)},
    ),
    "vitdet": (
        "VitDetModel", "VitDetConfig",
        {**_VIT, "image_size": 64, "pretrain_image_size": 64, "patch_size": 8, "window_block_indices": [0],
         "window_size": 3, "use_relative_position_embeddings": False}, {}, {24: (8, 12)},
    ),
    "swin": (
        "SwinModel", "SwinConfig",
        {"embed_dim": 16, "depths": [2, 1], "num_heads": [1, 2], "window_size": 4, "image_size": 64}, {},
        {16: (16, 24), 32: (8, 12)},
    ),
    "pvt": (
        "PvtModel", "PvtConfig",
        {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4],
         "image_size": 64}, {}, {8: (16, 16), 16: (8, 8), 24: (4, 4)},
    ),
    "pvt-v2": (
        "PvtV2Model", "PvtV2Config",
        {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}, {},
        {8: (16, 24), 16: (8, 12), 24: (4, 6)},
    ),
    "segformer": (
        "SegformerModel", "SegformerConfig",
        {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 20, 32], "num_attention_heads": [1, 2, 5, 8]}, {},
        {8: (16, 24), 16: (8, 12), 20: (4, 6)},
    ),
    "glpn": (
        "GLPNModel", "GLPNConfig",
        {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 20, 32], "num_attention_heads": [1, 2, 5, 8]}, {},
        {8: (16, 24), 16: (8, 12), 20: (4, 6)},
    ),
}  # fmt: skip


_OVERLAPPING = ("pvt-v2", "segformer", "glpn")
_OF_ONE_SIZE = ("beit", "data2vec", "pvt")


@pytest.mark.parametrize("name", _IMAGES)
def test_norms_see_the_grid_of_images_of_two_shapes(name: str) -> None:
    kind, config, settings, arguments, grids = _IMAGES[name]
    model = convert_norm(build(kind, config, **settings))
    for turned in (False,) if name in _OF_ONE_SIZE else (False, True):
        height, width = (96, 64) if turned else (64, 64 if name == "pvt" else 96)
        images = torch.randn(1, 3, height, width)
        with norm_calls(model) as calls, torch.no_grad():
            model(images, **arguments)
        told = {shape[-1]: told or tuple(shape[1:3]) for _, shape, told in calls}
        assert told == {channels: grid[::-1] if turned else grid for channels, grid in grids.items()}
        assert wrong_cells(model, images, slack=name in _OVERLAPPING, **arguments) == []


_CLIP = {"image_size": 64, "patch_size": 8}
_TEXT = {**_VIT, "vocab_size": 50, "max_position_embeddings": 65}


def _pair(name: str, config: str, vision: dict[str, Any], text: dict[str, Any], **kwargs: Any) -> nn.Module:
    return build(name, config, vision_config={**_VIT, **_CLIP, **vision}, text_config={**_TEXT, **text}, **kwargs)


_PAIRS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], str]] = {
    "siglip": ("SiglipModel", "SiglipConfig", {}, {"max_position_embeddings": 64}, "vision_model."),
    "clip": ("CLIPModel", "CLIPConfig", {}, {"eos_token_id": 2}, "vision_model."),
    "chinese-clip": ("ChineseCLIPModel", "ChineseCLIPConfig", {}, {}, "vision_model."),
    "altclip": (
        "AltCLIPModel",
        "AltCLIPConfig",
        {},
        {"project_dim": 24, "max_position_embeddings": 70},
        "vision_model.",
    ),
    "owl-vit": ("OwlViTModel", "OwlViTConfig", {}, {}, "vision_model."),
    "blip": ("BlipModel", "BlipConfig", {}, {"encoder_hidden_size": 24}, "vision_model."),
}  # fmt: skip


@pytest.mark.parametrize("layers", ["blocks", "authors"])
@pytest.mark.parametrize("name", _PAIRS)
def test_text_is_no_picture(name: str, layers: str) -> None:
    kind, config, vision, text, tower = _PAIRS[name]
    model = _pair(kind, config, vision, text)
    plan = plan_norms(model, layers=layers)
    assert {site.name.split(".")[0] + "." for site in plan.replaced} == {tower}
    stays = {reason for path, reason in plan.kept if path.startswith("text_model.") and "layer" in path}
    assert "normalises text, which has no grid" in stays
    convert_norm(model, layers=layers)
    words = torch.randint(3, 50, (1, 64 + (name != "siglip")))
    words[0, -1] = 2
    with norm_calls(model) as calls, torch.no_grad():
        model(input_ids=words, pixel_values=torch.randn(1, 3, 64, 64))
    assert calls
    assert all(path.startswith(tower) and told == (8, 8) for path, _, told in calls)


@pytest.mark.parametrize(
    ("kind", "config", "settings", "reason"),
    [
        ("BertModel", "BertConfig", {**_VIT, "vocab_size": 50}, r"normalises text, .*: pass grid='sequence'"),
        ("ViltModel", "ViltConfig", {**_VIT, **_CLIP, "vocab_size": 50}, r"normalises text and image together, which"),
        (
            "MobileViTModel", "MobileViTConfig", {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8] * 7},
            r"got MobileViTLayer of MobileViTModel, which unfolds its maps into patches: DTN has no grid there",
        ),
        (
            "MobileViTV2Model", "MobileViTV2Config", {},
            r"got MobileViTV2Layer of MobileViTV2Model, which unfolds its maps",
        ),
        (
            "ViTMAEModel", "ViTMAEConfig", {**_VIT, **_CLIP},
            r"got ViTMAEEmbeddings of ViTMAEModel, which drops and shuffles its tokens",
        ),
        (
            "HieraModel", "HieraConfig", {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
            r"got HieraModel, which sorts its tokens by windows",
        ),
        (
            "VideoMAEModel", "VideoMAEConfig", {**_VIT, "image_size": 32, "num_frames": 4},
            r"expected a model of single images, got VideoMAEModel, which reads videos",
        ),
        (
            "TimesformerModel", "TimesformerConfig", {**_VIT, "image_size": 32, "num_frames": 4},
            r"expected a model of single images, got TimesformerModel, which reads videos",
        ),
        (
            "XCLIPVisionModel", "XCLIPVisionConfig", {**_VIT, "image_size": 32, "patch_size": 8},
            r"expected a model of single images, got XCLIPVisionModel, which reads videos",
        ),
    ],
)  # fmt: skip
def test_models_without_a_grid_are_refused(kind: str, config: str, settings: dict[str, Any], reason: str) -> None:
    model = build(kind, config, **settings)
    for refused in (convert_norm, plan_norms):
        with pytest.raises(InputError, match=reason):
            refused(model)
    assert not any(isinstance(module, DTN) for module in model.modules())


def packing(version: str = "2") -> torch.nn.Module:
    """A vision tower that takes the patches of several images in one row, four neighbours after four neighbours."""
    module = pytest.importorskip(f"transformers.models.qwen{version}_vl.modeling_qwen{version}_vl")
    if version == "2":
        settings = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
        config = transformers.Qwen2VLConfig(vision_config=settings).vision_config
        return module.Qwen2VisionTransformerPretrainedModel(config).eval()
    settings = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    config = transformers.Qwen2_5_VLConfig(vision_config=settings).vision_config
    return module.Qwen2_5_VisionTransformerPretrainedModel(config)


@pytest.mark.parametrize(
    ("norm", "grid", "told"),
    [
        ("dtn", None, "DTN has no grid there"),
        ("dtn", (4, 8), "DTN has no grid there"),
        ("dtn", "sequence", "dtn takes statistics over the tokens of an image"),
        *((norm, None, f"{norm} takes statistics over the tokens of an image") for norm in ("bn", "in", "sn", "pn")),
    ],
)
def test_packed_patches_of_several_images_are_no_grid_and_no_image(norm: str, grid: Any, told: str) -> None:
    model = packing()
    reason = (
        f"which puts the patches of several images into one row, block by block: {told}; choose another model or a "
        r"norm within tokens \(ln, gn, rmsnorm, scalenorm, dyt\)$"
    )
    for refused in (convert_norm, plan_norms):
        with pytest.raises(InputError, match=reason):
            refused(model, norm, layers="blocks", grid=grid)


@pytest.mark.parametrize("norm", ["ln", "gn", "rmsnorm", "scalenorm", "dyt"])
def test_packed_patches_take_norms_within_tokens(norm: str) -> None:
    model, patches = packing(), torch.randn(24, 3 * 2 * 8 * 8)
    grids = torch.tensor([[1, 4, 4], [1, 2, 4]])

    def run() -> Tensor:
        out = model(patches, grid_thw=grids)
        return out if isinstance(out, Tensor) else out[0]

    with torch.no_grad():
        before = run()
        convert_norm(model, norm, layers="blocks", num_groups=1)
        after = run()
    assert after.shape == before.shape
    assert torch.isfinite(after).all()
    # GroupNorm of one group is LayerNorm.
    assert torch.allclose(after, before, atol=1e-5) == (norm in ("ln", "gn"))


def test_group_norm_over_images_is_none_within_tokens() -> None:
    model = packing()
    with pytest.raises(InputError, match="gn takes statistics over the tokens of an image"):
        convert_norm(model, "gn", layers="blocks", num_groups=1, over="image")
    assert not any(isinstance(module, TokenNorm) for module in model.modules())
    text = build("GPT2Model", "GPT2Config", n_embd=16, n_layer=1, n_head=2)
    with pytest.raises(InputError, match="must not see later tokens, at which gn looks"):
        convert_norm(text, "gn", layers="blocks", num_groups=1, over="image", grid="sequence")


def test_a_model_without_layer_norm_is_not_advised_to_take_another_norm() -> None:
    with pytest.raises(InputError, match=r"DTN has no grid there; choose another model$"):
        convert_norm(packing("2_5"))


def test_the_queries_of_a_detector_have_no_grid() -> None:
    model = build(
        "ConditionalDetrModel", "ConditionalDetrConfig", use_timm_backbone=False, use_pretrained_backbone=False,
        backbone=None, backbone_config=transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], out_features=["stage2"]
        ), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=16,
    )  # fmt: skip
    plan = plan_norms(model, layers="blocks")
    assert {site.name.split(".")[0] for site in plan.replaced} == {"encoder"}
    assert "is in a decoder, whose tokens have no grid" in dict(plan.kept).values()
    convert_norm(model, layers="blocks")
    with norm_calls(model) as calls, torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert {told for _, _, told in calls} == {(4, 4)}


def test_detection_tokens_stand_behind_the_grid() -> None:
    kind, config, settings, _, _ = _IMAGES["yolos"]
    model = build(kind, config, **settings)
    images = torch.randn(1, 3, 64, 96)
    plain: dict[str, torch.Tensor] = {}

    def keep(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        plain["x"], plain["y"] = args[0], output

    path = "encoder.layer.0.layernorm_before"
    handle = model.get_submodule(path).register_forward_hook(keep)
    with torch.no_grad():
        model(images)
    handle.remove()
    convert_norm(model, layers=path.replace(".", r"\."), init="local", head_rms=False)
    norm = model.get_submodule(path)
    move_off_start(norm)
    model.get_submodule(path).register_forward_hook(keep)
    with torch.no_grad():
        model(images)
        x, y = plain["x"], plain["y"]
        bare = DTN(24, 3, init="local", head_rms=False, eps=norm.eps)  # type: ignore[arg-type]
        bare.load_state_dict(norm.state_dict())
        # x is in the order of the layer: 5 detection tokens, the class token, the grid; y in that of the model.
        torch.testing.assert_close(y[:, 1:97], bare(x[:, 6:], (8, 12)))
        without_neighbours = bare(torch.cat([x[:, :6], x[:, 6:7]], 1), (1, 1))
        torch.testing.assert_close(y[:, 97:], without_neighbours[:, :5])
        torch.testing.assert_close(y[:, :1], without_neighbours[:, 5:6])


def _converting_class(norm: str, **options: Any) -> Any:
    class Plain(transformers.ViTModel):  # type: ignore[misc, name-defined]
        pass

    class Converted(transformers.ViTModel):  # type: ignore[misc, name-defined]
        def __init__(self, config: Any, **kwargs: Any) -> None:
            super().__init__(config, **kwargs)
            convert_norm(self, norm, layers="blocks", **options)

    return Plain, Converted


def _vit_with_other_weights(kind: Any) -> nn.Module:
    model: nn.Module = kind(transformers.ViTConfig(**_VIT, image_size=32, patch_size=8)).eval()
    move_off_start(model)
    return model


def _fill_memory() -> None:
    """Leave numbers behind in memory, from which loading takes what it does not initialise."""
    blocks = [torch.full((number,), 1e9) for number in (3, 3, 9, 1, 24) for _ in range(200)]
    del blocks


@pytest.mark.parametrize("settings", [{}, {"low_cpu_mem_usage": True}, {"torch_dtype": torch.float64}])
def test_a_checkpoint_of_layer_norm_leaves_dtn_at_its_start(settings: dict[str, Any], tmp_path: Path) -> None:
    plain, converted = _converting_class("dtn")
    trained = _vit_with_other_weights(plain)
    trained.save_pretrained(tmp_path)  # type: ignore[operator]
    _fill_memory()
    model = converted.from_pretrained(tmp_path, **settings).eval()
    norms = [module for module in model.modules() if isinstance(module, DTN)]
    assert len(norms) == 4
    for norm in norms:
        assert norm.mean_norm_weight is not None
        assert norm.mean_norm_weight.tolist() == norm.var_norm_weight.tolist() == [6.0] * 3
        assert norm.pos_proj.weight.tolist() == [[0.0, 0.0, -1.0]] * 3
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = trained(images).last_hidden_state
        found = model(images.to(model.dtype)).last_hidden_state.to(torch.float32)
    assert (found - expected).abs().max() < 0.01 * expected.abs().max()


@pytest.mark.parametrize("norm", sorted(TOKEN_NORMS))
def test_loading_fills_every_norm_as_converting_does(norm: str, tmp_path: Path) -> None:
    plain, converted = _converting_class(norm)
    _vit_with_other_weights(plain).save_pretrained(tmp_path / "plain")  # type: ignore[operator]
    expected = convert_norm(plain.from_pretrained(tmp_path / "plain"), norm, layers="blocks").state_dict()
    _fill_memory()
    model = converted.from_pretrained(tmp_path / "plain")
    state = model.state_dict()
    assert state.keys() == expected.keys()
    assert [key for key in state if not torch.equal(state[key], expected[key])] == []
    # And its own checkpoints come back as they were.
    move_off_start(model)
    model.save_pretrained(tmp_path / "own")
    again = converted.from_pretrained(tmp_path / "own").state_dict()
    assert [key for key, value in model.state_dict().items() if not torch.equal(again[key], value)] == []


def test_a_part_of_a_model_that_converts_itself(tmp_path: Path) -> None:
    class Converted(transformers.ViTModel):  # type: ignore[misc, name-defined]
        def __init__(self, config: Any, **kwargs: Any) -> None:
            super().__init__(config, **kwargs)
            convert_norm(self.encoder, layers="blocks", grid=(4, 4))

    _vit_with_other_weights(transformers.ViTModel).save_pretrained(tmp_path)  # type: ignore[operator]
    _fill_memory()
    model = Converted.from_pretrained(tmp_path)
    gates = [module.var_norm_weight.tolist() for module in model.modules() if isinstance(module, DTN)]
    assert gates == [[6.0] * 3] * 4


@pytest.mark.parametrize("norm", sorted(TOKEN_NORMS))
def test_norms_made_on_the_meta_device_can_be_filled(norm: str) -> None:
    config = transformers.ViTConfig(**_VIT, image_size=32, patch_size=8)
    with torch.device("meta"):
        model = convert_norm(transformers.ViTModel(config), norm, layers="blocks")
    _fill_memory()
    model.to_empty(device="cpu")
    for module in model.modules():
        if type(module) in TOKEN_NORMS.values():
            module.reset_parameters()  # type: ignore[operator]
    expected = convert_norm(transformers.ViTModel(config), norm, layers="blocks").state_dict()
    state = model.state_dict()
    assert [key for key in expected if "layernorm_" in key and not torch.equal(state[key], expected[key])] == []
