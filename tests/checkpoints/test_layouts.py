"""Whole detectors whose backbone has the names and the order of channels of another library."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dtn_det.checkpoints.load import load_weights
from dtn_det.errors import CheckpointError
from dtn_det.training.run import read_by_package

pytest.importorskip("mmdet.registry")

SWIN: dict[str, Any] = {
    "embed_dims": 8,
    "depths": (1, 2, 1),
    "num_heads": (1, 2, 2),
    "strides": (4, 2, 2),
    "out_indices": (0, 1, 2),
    "window_size": 4,
}
PVT: dict[str, Any] = {
    "embed_dims": 8,
    "num_stages": 2,
    "num_layers": [1, 2],
    "num_heads": [1, 2],
    "patch_sizes": [4, 2],
    "strides": [4, 2],
    "paddings": [0, 0],
    "sr_ratios": [2, 1],
    "out_indices": (0, 1),
    "mlp_ratios": [2, 2],
    "pretrain_img_size": 32,
}


class Detector(nn.Module):
    def __init__(self, classes: int = 5, **backbone: Any) -> None:
        super().__init__()
        from mmdet.registry import MODELS

        import dtn_det.backbones  # noqa: F401  registers them

        torch.manual_seed(2)
        self.backbone = MODELS.build(backbone)
        self.neck = nn.Linear(8, 8)
        self.bbox_head = nn.Linear(8, classes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_()


def as_the_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of MMDetection's own converter, which `test_the_inverse` holds it against."""
    found = {}
    for name, value in state.items():
        if name.startswith("backbone."):
            if ".downsample.reduction.weight" in name:
                value = value.unflatten(1, (-1, 4))[..., [0, 2, 1, 3]].transpose(1, 2).flatten(1)
            elif ".downsample.norm." in name and value.shape == state[name[: name.rindex(".")] + ".weight"].shape:
                value = value.unflatten(0, (-1, 4))[:, [0, 2, 1, 3]].T.flatten()
            for here, there in {
                "patch_embed.projection": "patch_embed.proj",
                "stages.": "layers.",
                ".attn.w_msa.": ".attn.",
                ".ffn.layers.0.0.": ".mlp.fc1.",
                ".ffn.layers.1.": ".mlp.fc2.",
            }.items():
                name = name.replace(here, there)
        found[name] = value.clone()
    return found


def saved(state: dict[str, Tensor], folder: Path) -> str:
    torch.save({"state_dict": state, "meta": {"mmdet_version": "2.11.0"}}, folder / "authors.pth")
    return str(folder / "authors.pth")


def test_the_inverse() -> None:
    from mmdet.models.backbones.swin import swin_converter

    state = Detector(type="SwinTransformer", **SWIN).state_dict()
    of_authors = {
        name.removeprefix("backbone."): value
        for name, value in as_the_authors(state).items()
        if name.startswith("backbone.")
    }
    found = swin_converter(of_authors)
    assert {name.rpartition("backbone.")[2] for name in found} <= {name.removeprefix("backbone.") for name in state}
    for name, value in found.items():
        assert torch.equal(value, state["backbone." + name.removeprefix("backbone.")])


def emptied(detector: Detector) -> Detector:
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.zero_()
    return detector


DTN_SWIN = {"type": "DTNSwinTransformer", "dtn_stages": (0, 1, 2), **SWIN}


@pytest.mark.parametrize("settings", [{"type": "SwinTransformer", **SWIN}, DTN_SWIN], ids=["Swin", "DTN-Swin"])
def test_a_detector_of_swins_authors(settings: dict[str, Any], tmp_path: Path) -> None:
    there, here = Detector(**settings), emptied(Detector(**settings))
    loaded = load_weights(here, saved(as_the_authors(there.state_dict()), tmp_path))
    assert [name for name, value in there.state_dict().items() if not torch.equal(value, here.state_dict()[name])] == []
    (remark,) = loaded.remarks
    assert remark.kind == "renamed_backbone"
    assert remark.what == (
        "weights of the backbone have the names of its authors' Swin and were renamed and ordered as MMDetection's"
    )
    assert all(name.startswith("backbone.") for name in remark.examples)
    x = torch.randn(1, 3, 64, 64)
    for one, other in zip(there.eval().backbone(x), here.eval().backbone(x), strict=True):
        assert torch.equal(one, other)


def as_pvts_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names and shapes of PVT's authors; `test_a_detector_of_pvts_authors` holds it against MMDetection's map."""
    found = {}
    for name, value in state.items():
        if not name.startswith("backbone."):
            found[name] = value.clone()
            continue
        name = re.sub(r"layers\.(\d+)\.0\.", lambda m: f"patch_embed{int(m[1]) + 1}.", name)
        name = re.sub(r"layers\.(\d+)\.1\.0\.pos_embed", lambda m: f"pos_embed{int(m[1]) + 1}", name)
        name = re.sub(r"layers\.(\d+)\.1\.(\d+)\.", lambda m: f"block{int(m[1]) + 1}.{int(m[2]) - 1}.", name)
        name = re.sub(r"layers\.(\d+)\.2\.", lambda m: f"norm{int(m[1]) + 1}.", name)
        name = name.replace(".projection.", ".proj.").replace(".attn.attn.out_proj.", ".attn.proj.")
        name = name.replace(".ffn.layers.0.", ".mlp.fc1.").replace(".ffn.layers.3.", ".mlp.fc2.")
        if ".attn.attn.in_proj_" in name:
            width = len(value) // 3
            found[name.replace("attn.in_proj_", "q.")] = value[:width].clone()
            found[name.replace("attn.in_proj_", "kv.")] = value[width:].clone()
        else:
            found[name] = value.flatten(1).clone() if ".mlp." in name and value.ndim == 4 else value.clone()
    return found


@pytest.mark.parametrize("dtn", [False, True], ids=["PVT", "DTN-PVT"])
def test_a_detector_of_pvts_authors(dtn: bool, tmp_path: Path) -> None:
    from mmdet.models.backbones.pvt import pvt_convert

    kind = "DTNPyramidVisionTransformer" if dtn else "PyramidVisionTransformer"
    of_dtn = {"dtn_stages": (0, 1), "dtn_cfg": {"num_groups": "heads"}} if dtn else {}
    there, here = (Detector(type=kind, **PVT, **of_dtn) for _ in range(2))
    emptied(here)
    state = as_pvts_authors(there.state_dict())
    if not dtn:
        of_backbone = {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")}
        for name, value in pvt_convert(of_backbone).items():
            assert torch.equal(value, there.state_dict()["backbone." + name])
    loaded = load_weights(here, saved(state, tmp_path))
    assert [name for name, value in there.state_dict().items() if not torch.equal(value, here.state_dict()[name])] == []
    assert "its authors' PVT" in loaded.remarks[0].what


def test_a_training_starts_from_a_detector_of_the_authors(tmp_path: Path) -> None:
    """As with `load_from`: another number of classes is no reason to leave the backbone out."""
    there, here, said = Detector(**DTN_SWIN), emptied(Detector(classes=3, **DTN_SWIN)), []
    runner: Any = SimpleNamespace(
        model=here, rank=0, logger=logging.getLogger("test"), call_hook=lambda *_, **__: None, load_checkpoint=None
    )
    read_by_package(runner, "start", "take another", said.append)
    runner.load_checkpoint(saved(as_the_authors(there.state_dict()), tmp_path))
    assert torch.equal(
        here.backbone.stages[0].downsample.reduction.weight, there.backbone.stages[0].downsample.reduction.weight
    )
    assert torch.equal(here.neck.weight, there.neck.weight)
    assert not here.bbox_head.weight.any()
    assert len(said) == 1
    assert "have the names of its authors' Swin and were renamed" in said[0]


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"type": "SwinTransformer", **SWIN}, "LayerNorm or another norm, which has less than the norm of this one"),
        ({**DTN_SWIN, "depths": (1, 3, 1)}, "It is of a model of another size: one has more blocks than the other"),
    ],
)
def test_what_does_not_fit_is_told_in_the_names_of_the_model(
    settings: dict[str, Any], cause: str, tmp_path: Path
) -> None:
    path = saved(as_the_authors(Detector(**settings).state_dict()), tmp_path)
    with pytest.raises(CheckpointError, match=cause) as error:
        load_weights(Detector(**DTN_SWIN), path)
    assert "backbone.stages." in str(error.value)
    assert "backbone.layers." not in str(error.value)


def test_a_norm_of_merging_with_groups_is_refused_with_its_name(tmp_path: Path) -> None:
    state = as_the_authors(Detector(**DTN_SWIN).state_dict())
    state["backbone.layers.0.downsample.norm.var_norm_weight"] = torch.ones(2)
    with pytest.raises(CheckpointError, match=r"authors\.pth: expected norms of patch merging with one group, got 2"):
        load_weights(Detector(**DTN_SWIN), saved(state, tmp_path))


def test_the_names_of_another_library_are_called_so(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    settings = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 2, 1), "num_heads": (1, 2, 2)}
    model = timm.create_model("swin_tiny_patch4_window7_224", **settings)
    state = Detector(type="SwinTransformer", **SWIN).backbone.state_dict()
    reason = r"The file has names as MMDetection's Swin has them\. Name the model"
    with pytest.raises(CheckpointError, match=reason) as error:
        load_weights(model, saved(state, tmp_path))
    assert "more blocks" not in str(error.value)
