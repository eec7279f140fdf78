"""Loaded weights give the features of the models that they come from, stage by stage."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("mmdet")

from mmdet.models.backbones import pvt as mmdet_pvt
from mmdet.models.backbones import swin as mmdet_swin
from mmdet.registry import MODELS

from dtn_det.checkpoints.backbone_keys import pvt_timm_to_official, swin_timm_to_official, to_mmdet

Randomise = Callable[..., nn.Module]
State = dict[str, Tensor]
FULL_SWIN = {"type": "DTNSwinTransformer"}
SMALL_SWIN = {"type": "DTNSwinTransformer", "embed_dims": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
PVT_WIDTHS = [8, 16, 40, 64]
SIDES = [56, 28, 14, 7]
SMALL_PVT = {"type": "DTNPyramidVisionTransformer", "embed_dims": 8, "num_layers": [1, 2, 1, 1], "mlp_ratios": [2] * 4}


def relative_errors(outs: list[Tensor], references: list[Tensor]) -> list[float]:
    assert [out.shape for out in outs] == [reference.shape for reference in references]
    pairs = zip(outs, references, strict=True)
    return [float((out - reference).abs().max() / reference.abs().max()) for out, reference in pairs]


def load(config: dict, checkpoint: object, path: Path) -> nn.Module:
    """Write a checkpoint, and build and load a backbone as a detector would."""
    torch.save(checkpoint, path)
    backbone = MODELS.build({**config, "init_cfg": {"type": "Pretrained", "checkpoint": str(path)}})
    with torch.no_grad():
        for name, p in backbone.named_parameters():
            if not re.match(r"norm\d", name) and not re.search(r"norm_weight|pos_proj", name):
                p.fill_(float("nan"))  # what is not loaded shows
    backbone.init_weights()
    return backbone.eval()


@torch.no_grad()
def features(backbone: nn.Module, x: Tensor) -> list[Tensor]:
    """Before Swin's output norms, which classifiers do not have."""
    for name, module in list(backbone.named_children()):
        if re.fullmatch(r"norm\d", name):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            setattr(backbone, name, nn.Identity())
    outs: list[Tensor] = backbone(x)
    return outs


@torch.no_grad()
def timm_features(model: nn.Module, x: Tensor) -> list[Tensor]:
    outs: list[Tensor] = model.forward_intermediates(x, norm=False, intermediates_only=True)
    return outs


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 224, 224)


@pytest.fixture
def timm_swin(randomise: Randomise) -> nn.Module:
    timm = pytest.importorskip("timm")
    small = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
    return randomise(timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, **small)).eval()


@pytest.fixture
def timm_pvtv2(randomise: Randomise) -> nn.Module:
    timm = pytest.importorskip("timm")
    return randomise(timm.create_model("pvt_v2_b0", pretrained=False)).eval()


PVTV2_B0 = {"type": "DTNPyramidVisionTransformerV2", "embed_dims": 32, "num_layers": [2, 2, 2, 2]}
PVTV2_B2 = {"type": "DTNPyramidVisionTransformerV2", "embed_dims": 64, "num_layers": [3, 4, 6, 3]}


def test_swin_t_of_timm(randomise: Randomise, images: Tensor, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = randomise(timm.create_model("swin_tiny_patch4_window7_224", pretrained=False)).eval()
    references = timm_features(model, images)
    ln = {**FULL_SWIN, "dtn_stages": ()}
    path = tmp_path / "swin.pth"

    unshifted = load({**ln, "shift_small_maps": False}, model.state_dict(), path)
    assert max(relative_errors(features(unshifted, images), references)) < 1e-5

    # MMDetection shifts the windows of the last stage at 224 pixels, where timm does not.
    *first, last = relative_errors(features(load(ln, model.state_dict(), path), images), references)
    assert max(first) < 1e-5
    assert last > 1e-4


def test_layernorm_weights_survive_in_dtn(
    timm_swin: nn.Module, timm_pvtv2: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    """With init='layernorm' the features move by less than a hundredth; with 'local' they are others."""
    swin = {**SMALL_SWIN, "shift_small_maps": False}
    for config, model in ((swin, timm_swin), (PVTV2_B0, timm_pvtv2)):
        references = timm_features(model, images)
        errors = {}
        for init in ("layernorm", "local"):
            backbone = load({**config, "dtn_cfg": {"init": init}}, model.state_dict(), tmp_path / "model.pth")
            errors[init] = max(relative_errors(features(backbone, images), references))
        assert errors["layernorm"] < 5e-3
        assert errors["local"] > 10 * errors["layernorm"]


@pytest.mark.parametrize("wrap", ["model", "state_dict", None])
def test_official_swin(timm_swin: nn.Module, images: Tensor, tmp_path: Path, wrap: str | None) -> None:
    official = official_swin(timm_swin)
    backbone = load({**SMALL_SWIN, "dtn_stages": (), "shift_small_maps": False}, in_key(official, wrap), tmp_path / "a")
    assert max(relative_errors(features(backbone, images), timm_features(timm_swin, images))) < 1e-5


def official_swin(model: nn.Module) -> State:
    """In the authors' names, with the buffers that their files hold and timm's do not."""
    state = {}
    for key, value in swin_timm_to_official(model.state_dict()).items():
        state[key.replace("head.fc.", "head.")] = value
        if key.endswith("relative_position_bias_table"):
            state[key.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.long)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return state


def in_key(state: State, key: str | None) -> dict:
    return state if key is None else {key: state, "epoch": 300, "max_accuracy": 81.2}


def test_official_swin_names_are_those_that_timm_and_mmdetection_know(timm_swin: nn.Module) -> None:
    from timm.models.swin_transformer import checkpoint_filter_fn

    official = official_swin(timm_swin)
    for key, value in checkpoint_filter_fn(dict(official), timm_swin).items():
        torch.testing.assert_close(value, timm_swin.state_dict()[key], rtol=0, atol=0)
    theirs = mmdet_swin.swin_converter(official)
    ours = to_mmdet(official, "swin")
    assert ours
    for key, value in ours.items():
        assert torch.equal(value, theirs[f"backbone.{key}"]), key


@pytest.mark.parametrize(
    ("name", "config", "suffix"),
    [("pvt_v2_b0", PVTV2_B0, "pth"), ("pvt_v2_b0", PVTV2_B0, "safetensors"), ("pvt_v2_b2", PVTV2_B2, "pth")],
)
def test_pvtv2_of_timm(
    randomise: Randomise, images: Tensor, tmp_path: Path, name: str, config: dict, suffix: str
) -> None:
    timm = pytest.importorskip("timm")
    model = randomise(timm.create_model(name, pretrained=False)).eval()
    path = tmp_path / f"model.{suffix}"
    if suffix == "safetensors":
        pytest.importorskip("safetensors.torch").save_file(model.state_dict(), path)
        init_cfg = {"type": "Pretrained", "checkpoint": str(path)}
        backbone = MODELS.build({**config, "dtn_stages": (), "init_cfg": init_cfg})
        backbone.init_weights()
        backbone.eval()
    else:
        backbone = load({**config, "dtn_stages": ()}, model.state_dict(), path)
    assert max(relative_errors(features(backbone, images), timm_features(model, images))) < 1e-5


def test_official_pvtv2(timm_pvtv2: nn.Module, images: Tensor, tmp_path: Path) -> None:
    from timm.models.pvt_v2 import checkpoint_filter_fn

    official = pvt_timm_to_official(timm_pvtv2.state_dict())
    renamed = checkpoint_filter_fn(dict(official), timm_pvtv2)
    assert set(renamed) == set(timm_pvtv2.state_dict())
    theirs = mmdet_pvt.pvt_convert(official)
    ours = to_mmdet(official, "pvt")
    assert set(ours) == set(theirs)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    backbone = load({**PVTV2_B0, "dtn_stages": ()}, official, tmp_path / "pvt_v2_b0.pth")
    assert max(relative_errors(features(backbone, images), timm_features(timm_pvtv2, images))) < 1e-5


def test_official_pvt(randomise: Randomise, images: Tensor, tmp_path: Path) -> None:
    """Against the PVT of transformers, whose names are turned into the authors'."""
    transformers = pytest.importorskip("transformers")
    config = transformers.PvtConfig(
        hidden_sizes=PVT_WIDTHS, depths=[1, 2, 1, 1], mlp_ratios=[2] * 4, num_attention_heads=[1, 2, 5, 8]
    )
    model = randomise(transformers.PvtModel(config)).eval()
    official = official_pvt(model.state_dict())
    theirs = mmdet_pvt.pvt_convert(official)
    ours = to_mmdet(official, "pvt")
    assert set(ours) == set(theirs)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())

    # Detectors have no class token in the last stage, so the reference goes without it, too.
    last = model.encoder.patch_embeddings[3]
    last.cls_token = None
    last.position_embeddings = nn.Parameter(last.position_embeddings[:, 1:])
    with torch.no_grad():
        hidden = model(images, output_hidden_states=True).hidden_states
    last_of_stage = [hidden[index] for index in (0, 2, 3, 4)]
    maps = [
        tokens.transpose(1, 2).unflatten(2, (side, side)) for tokens, side in zip(last_of_stage, SIDES, strict=True)
    ]
    # transformers has one eps for all norms.
    backbone = load({**SMALL_PVT, "dtn_stages": (), "embed_norm_eps": None}, official, tmp_path / "pvt.pth")
    assert max(relative_errors(features(backbone, images), maps)) < 1e-5


def official_pvt(state: State) -> State:
    parts = {
        "layer_norm_1": "norm1",
        "layer_norm_2": "norm2",
        "attention.self.query": "attn.q",
        "attention.self.sequence_reduction": "attn.sr",
        "attention.self.layer_norm": "attn.norm",
        "attention.output.dense": "attn.proj",
        "mlp.dense1": "mlp.fc1",
        "mlp.dense2": "mlp.fc2",
        "projection": "proj",
        "layer_norm": "norm",
    }
    official = {}
    for key, value in state.items():
        key = key.removeprefix("encoder.")
        if ".value." in key:
            continue
        if ".key." in key:
            value = torch.cat([value, state["encoder." + key.replace(".key.", ".value.")]])
            key = key.replace("attention.self.key", "attn.kv")
        for theirs, authors in parts.items():
            key = key.replace(f"{theirs}.", f"{authors}.")
        key = re.sub(r"^block\.(\d)\.", lambda m: f"block{int(m[1]) + 1}.", key)
        key = re.sub(r"^patch_embeddings\.(\d)\.position_embeddings$", lambda m: f"pos_embed{int(m[1]) + 1}", key)
        key = re.sub(r"^patch_embeddings\.(\d)\.(?!cls)", lambda m: f"patch_embed{int(m[1]) + 1}.", key)
        official["cls_token" if key.endswith("cls_token") else key] = value
    return {**official, "head.weight": torch.zeros(1000, PVT_WIDTHS[-1]), "head.bias": torch.zeros(1000)}


def test_swin_of_mmpretrain(randomise: Randomise, images: Tensor, tmp_path: Path) -> None:
    models = pytest.importorskip("mmpretrain.models")
    arch = {"embed_dims": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]}
    model = randomise(models.SwinTransformer(arch, out_indices=(0, 1, 2, 3), drop_path_rate=0.0))
    model.eval()
    classifier = {f"backbone.{key}": value for key, value in model.state_dict().items()}
    classifier["head.fc.weight"] = torch.zeros(1000, 128)
    with torch.no_grad():
        references = model(images)
    unshifted = {**SMALL_SWIN, "dtn_stages": (), "shift_small_maps": False}
    backbone = load(unshifted, {"state_dict": classifier, "meta": {}}, tmp_path / "swin.pth")
    with torch.no_grad():
        assert max(relative_errors(backbone(images), references)) < 1e-5


@pytest.mark.parametrize("config", [SMALL_SWIN, SMALL_PVT, PVTV2_B0])
def test_detectors_of_mmdetection(randomise: Randomise, images: Tensor, tmp_path: Path, config: dict) -> None:
    parent = randomise(MODELS.build({**config, "type": config["type"].removeprefix("DTN")}))
    parent.eval()
    detector = {f"backbone.{key}": value for key, value in parent.state_dict().items()}
    detector["neck.lateral_convs.0.conv.weight"] = torch.zeros(8, 8, 1, 1)
    extra = {} if "Swin" in config["type"] else {"embed_norm_eps": None}
    backbone = load({**config, **extra, "dtn_stages": ()}, {"state_dict": detector}, tmp_path / "detector.pth")
    with torch.no_grad():
        assert max(relative_errors(backbone(images), parent(images))) == 0
