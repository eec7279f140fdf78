"""Loading through `init_cfg`: what may be missing, what may not, and checkpoints of this package's own training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("mmdet")

from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.runner import Runner

from dtn_det.checkpoints.read import read_checkpoint

Build = Callable[..., nn.Module]
Randomise = Callable[..., nn.Module]
SWIN, PVT = "DTNSwinTransformer", "DTNPyramidVisionTransformer"


def pretrained(path: Path, **extra: Any) -> dict[str, Any]:
    return {"type": "Pretrained", "checkpoint": str(path), **extra}


def assert_same(backbone: nn.Module, state: dict[str, Tensor]) -> None:
    own = backbone.state_dict()
    assert set(own) == set(state)
    for key, value in state.items():
        assert torch.equal(own[key], value), key


@pytest.mark.parametrize("as_config", [dict, ConfigDict])
def test_own_checkpoint_loads_back_exactly(
    build: Build, randomise: Randomise, backbone_name: str, tmp_path: Path, as_config: type
) -> None:
    trained = randomise(build(backbone_name)).state_dict()
    torch.save({"state_dict": {f"backbone.{key}": value for key, value in trained.items()}}, tmp_path / "a.pth")
    backbone = build(backbone_name, seed=1, init_cfg=as_config(pretrained(tmp_path / "a.pth")))
    backbone.init_weights()
    assert_same(backbone, trained)


class Detector(BaseModel):
    """A backbone with a loss, small enough to train in a test."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs: Tensor, mode: str = "tensor") -> Any:
        outs = self.backbone(inputs)
        return {"loss": torch.stack([out.mean() for out in outs]).sum()} if mode == "loss" else outs


class Images(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"inputs": torch.randn(3, 40, 56)}


def test_checkpoint_of_the_runner_loads_back_exactly(build: Build, tmp_path: Path) -> None:
    """It holds log buffers and optimizer state beside the weights, which plain `weights_only` refuses."""
    model = Detector(build(SWIN, dtn_cfg={"only_var": True}))
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader={
            "batch_size": 1,
            "dataset": Images(),
            "sampler": {"type": "DefaultSampler"},
            "collate_fn": {"type": "default_collate"},
        },
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.01}},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}},
        custom_hooks=[{"type": "EMAHook"}],
        experiment_name="pretrained",
        default_scope="mmdet",
    )
    runner.train()
    path = tmp_path / "epoch_1.pth"
    checkpoint = read_checkpoint(path)
    assert checkpoint["message_hub"]["log_scalars"]
    backbone = build(SWIN, seed=1, dtn_cfg={"only_var": True}, init_cfg=pretrained(path))
    backbone.init_weights()
    prefix = "backbone."
    trained = {key.removeprefix(prefix): v for key, v in checkpoint["state_dict"].items() if key.startswith(prefix)}
    assert_same(backbone, trained)


def test_detector_loads_its_backbone(build: Build, randomise: Randomise, tmp_path: Path) -> None:
    trained = randomise(build(PVT)).state_dict()
    torch.save(trained, tmp_path / "a.pth")
    detector = Detector(build(PVT, seed=1, init_cfg=pretrained(tmp_path / "a.pth")))
    detector.init_weights()
    assert_same(detector.backbone, trained)


def test_deprecated_pretrained_is_heeded(
    build: Build, randomise: Randomise, backbone_name: str, tmp_path: Path
) -> None:
    trained = randomise(build(backbone_name)).state_dict()
    torch.save(trained, tmp_path / "a.pth")
    backbone = build(backbone_name, seed=1, pretrained=str(tmp_path / "a.pth"), convert_weights=True)
    backbone.init_weights()
    assert_same(backbone, trained)
    with pytest.raises(ValueError, match="expected one of init_cfg and pretrained, got both"):
        build(backbone_name, pretrained="a.pth", init_cfg=pretrained(tmp_path / "a.pth"))


def test_checkpoint_alone_is_enough(build: Build, randomise: Randomise, tmp_path: Path) -> None:
    """As in MMDetection's own PVT configs."""
    trained = randomise(build(PVT)).state_dict()
    torch.save(trained, tmp_path / "a.pth")
    backbone = build(PVT, seed=1, init_cfg={"checkpoint": str(tmp_path / "a.pth")})
    backbone.init_weights()
    assert_same(backbone, trained)


@pytest.mark.parametrize("prefix", ["student.", "student"])
def test_prefix(prefix: str, build: Build, randomise: Randomise, backbone_name: str, tmp_path: Path) -> None:
    """As in MMEngine, with or without the dot."""
    teacher, student = (randomise(build(backbone_name), seed).state_dict() for seed in (1, 2))
    state = {f"teacher.{key}": value for key, value in teacher.items()}
    state |= {f"students.{key}": value for key, value in teacher.items()}
    torch.save({**state, **{f"student.{key}": value for key, value in student.items()}}, tmp_path / "a.pth")
    backbone = build(backbone_name, init_cfg=pretrained(tmp_path / "a.pth", prefix=prefix))
    backbone.init_weights()
    assert_same(backbone, student)


def test_half_precision_weights_become_single(build: Build, backbone_name: str, tmp_path: Path) -> None:
    trained = build(backbone_name).state_dict()
    half = {key: value.half() if value.is_floating_point() else value for key, value in trained.items()}
    torch.save(half, tmp_path / "a.pth")
    backbone = build(backbone_name, seed=1, init_cfg=pretrained(tmp_path / "a.pth"))
    backbone.init_weights()
    assert_same(backbone, {key: value.to(trained[key].dtype) for key, value in half.items()})


@pytest.mark.parametrize(
    ("old", "new"), [({"window_size": 4}, {"window_size": 7}), ({"window_size": 7}, {"window_size": 4})]
)
def test_relative_position_tables_are_resized(
    build: Build, randomise: Randomise, tmp_path: Path, old: dict, new: dict
) -> None:
    trained = randomise(build(SWIN, **old)).state_dict()
    torch.save(trained, tmp_path / "a.pth")
    backbone = build(SWIN, **new, init_cfg=pretrained(tmp_path / "a.pth"))
    backbone.init_weights()
    for key, value in backbone.state_dict().items():
        if key.endswith("relative_position_bias_table"):
            side, target = 2 * old["window_size"] - 1, 2 * new["window_size"] - 1
            grid = trained[key].T.reshape(1, -1, side, side)
            expected = nn.functional.interpolate(grid, size=(target, target), mode="bicubic").flatten(2)[0].T
            torch.testing.assert_close(value, expected)
        elif not key.endswith("relative_position_index"):
            assert torch.equal(value, trained[key]), key
    assert all(out.isfinite().all() for out in backbone(torch.randn(1, 3, 40, 56)))


@pytest.mark.parametrize("name", [SWIN, PVT])
def test_position_embeddings_are_resized(build: Build, randomise: Randomise, tmp_path: Path, name: str) -> None:
    extra = {"use_abs_pos_embed": True}
    trained = randomise(build(name, pretrain_img_size=128, **extra)).state_dict()
    torch.save(trained, tmp_path / "a.pth")
    backbone = build(name, pretrain_img_size=(64, 192), init_cfg=pretrained(tmp_path / "a.pth"), **extra)
    backbone.init_weights()
    resized = [key for key, value in backbone.state_dict().items() if value.shape != trained[key].shape]
    assert len(resized) == (1 if name == SWIN else 4)
    for key in resized:
        side = round(trained[key].shape[1] ** 0.5)
        grid = trained[key].transpose(1, 2).reshape(1, -1, side, side)
        expected = nn.functional.interpolate(grid, size=(side // 2, side * 3 // 2), mode="bicubic").flatten(2)
        torch.testing.assert_close(backbone.state_dict()[key], expected.transpose(1, 2))


def test_layernorm_weights_leave_dtn_at_its_start(
    build: Build, randomise: Randomise, backbone_name: str, tmp_path: Path, warnings_and_infos: dict
) -> None:
    trained = randomise(build(backbone_name, dtn_stages=())).state_dict()
    torch.save(trained, tmp_path / "a.pth")
    backbone = build(backbone_name, seed=1, init_cfg=pretrained(tmp_path / "a.pth"), dtn_cfg={"init": "layernorm"})
    start = backbone.state_dict()
    added = {key: start[key].clone() for key in set(start) - set(trained)}
    assert {key.split(".norm")[-1][2:] for key in added} == {
        "mean_norm_weight",
        "var_norm_weight",
        "pos_proj.weight",
        "pos_proj.bias",
        "_extra_state",
    }
    backbone.init_weights()
    assert_same(backbone, {**trained, **added})
    assert "got LayerNorm's weight and bias and keep their initial gates" in warnings_and_infos["info"][0]
    assert "warning" not in warnings_and_infos


def test_layernorm_weights_in_local_dtn_are_warned_about(
    build: Build, backbone_name: str, tmp_path: Path, warnings_and_infos: dict
) -> None:
    torch.save(build(backbone_name, dtn_stages=()).state_dict(), tmp_path / "a.pth")
    build(backbone_name, init_cfg=pretrained(tmp_path / "a.pth")).init_weights()
    assert "set dtn_cfg=dict(init='layernorm')" in warnings_and_infos["warning"][0]


def test_dtn_in_fewer_stages_loads_what_it_has(
    build: Build, randomise: Randomise, backbone_name: str, tmp_path: Path
) -> None:
    trained = randomise(build(backbone_name, dtn_stages=(0,))).state_dict()
    torch.save(trained, tmp_path / "a.pth")
    backbone = build(backbone_name, init_cfg=pretrained(tmp_path / "a.pth"))
    start = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.init_weights()
    assert len(start) > len(trained)
    assert_same(backbone, {**start, **trained})


def test_output_norms_of_swin_may_be_missing_or_left_over(
    build: Build, randomise: Randomise, tmp_path: Path, warnings_and_infos: dict
) -> None:
    trained = randomise(build(SWIN, out_indices=(0, 3))).state_dict()
    torch.save(trained, tmp_path / "a.pth")
    backbone = build(SWIN, out_indices=(1, 3), init_cfg=pretrained(tmp_path / "a.pth"))
    backbone.init_weights()
    assert torch.equal(backbone.norm3.weight, trained["norm3.weight"])
    assert torch.equal(backbone.norm1.weight, torch.ones(16))
    assert "no output norms norm1," in warnings_and_infos["info"][0]


def test_the_mask_token_of_a_pretraining_is_left_out(
    build: Build, randomise: Randomise, tmp_path: Path, warnings_and_infos: dict
) -> None:
    trained = randomise(build(SWIN)).state_dict()
    torch.save({**trained, "mask_token": torch.ones(1, 1, 16)}, tmp_path / "a.pth")
    backbone = build(SWIN, init_cfg=pretrained(tmp_path / "a.pth"))
    backbone.init_weights()
    assert_same(backbone, trained)
    assert any("as it serves its pretraining alone: mask_token" in line for line in warnings_and_infos["info"])


NORM1 = {SWIN: "stages.0.blocks.0.norm1", PVT: "layers.0.1.1.norm1", f"{PVT}V2": "layers.0.1.0.norm1"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state, norm: state.pop(f"{norm}.weight"), r"1 missing \({norm}.weight\)"),
        (lambda state, norm: state.pop(f"{norm}.pos_proj.bias"), r"1 missing \({norm}.pos_proj.bias\)"),
        (lambda state, norm: state.update({"extra": torch.ones(1)}), r"1 unexpected \(extra\)"),
        (
            lambda state, norm: state.update({f"{norm}.bias": torch.ones(9)}),
            r"1 of another shape \({norm}.bias \(9,\) instead of \(8,\)\)",
        ),
        (
            lambda state, norm: state.update({f"{norm}.mean_norm_weight": torch.ones(8)}),
            r"1 of another shape \({norm}.mean_norm_weight \(8,\) instead of \(\d,\)\)",
        ),
    ],
)
def test_keys_that_do_not_fit(
    build: Build, backbone_name: str, tmp_path: Path, spoil: Callable[[dict, str], object], message: str
) -> None:
    state = dict(build(backbone_name).state_dict())
    norm = NORM1[backbone_name]
    spoil(state, norm)
    torch.save(state, tmp_path / "a.pth")
    backbone = build(backbone_name, init_cfg=pretrained(tmp_path / "a.pth"))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=rf"a\.pth does not fit {backbone_name}: (?s:.*){message.format(norm=norm)}"):
        backbone.init_weights()
    assert_same(backbone, before)


def test_dtn_weights_do_not_fit_layernorm(build: Build, backbone_name: str, tmp_path: Path) -> None:
    torch.save(build(backbone_name).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"\d+ unexpected \(.*The file is of DTN, the model has LayerNorm there"):
        build(backbone_name, dtn_stages=(), init_cfg=pretrained(tmp_path / "a.pth")).init_weights()


@pytest.mark.parametrize(
    "init_cfg",
    [{"type": "TruncNormal", "layer": "Linear"}, {"type": "Pretrained"}, {"checkpoint": None}, [{"type": "Xavier"}]],
)
def test_init_cfg_that_is_not_understood(build: Build, backbone_name: str, init_cfg: object) -> None:
    with pytest.raises(ValueError, match=r"expected init_cfg=dict\(type='Pretrained', checkpoint=PATH_OR_URL\), got"):
        build(backbone_name, init_cfg=init_cfg)


def test_no_type_means_no_weights(build: Build, backbone_name: str) -> None:
    """MMDetection's test_robustness.py sets it, because the checkpoint of the detector follows."""
    backbone = build(backbone_name, init_cfg={"type": None, "checkpoint": "https://nowhere.invalid/a.pth"})
    assert backbone.init_cfg is None
    backbone.init_weights()


@pytest.mark.parametrize("value", [False, 1, ["a.pth"]])
def test_pretrained_must_be_text(build: Build, backbone_name: str, value: object) -> None:
    """MMDetection's backbones raise a TypeError too."""
    with pytest.raises(TypeError, match=r"expected pretrained to be a path, a URL or None, got .*: use init_cfg"):
        build(backbone_name, pretrained=value)


def test_weights_of_the_other_family(build: Build, tmp_path: Path) -> None:
    torch.save(build(PVT).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth does not fit .*: expected a swin checkpoint .*, got mmdet pvt"):
        build(SWIN, init_cfg=pretrained(tmp_path / "a.pth")).init_weights()
