"""Other norms in the place of DTN in the backbones, by one field of the config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("mmdet")

from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor

from dtn_det.layers import TOKEN_NORMS, TokenNorm

Build = Callable[..., nn.Module]
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SWIN = "DTNSwinTransformer"


def block_norms(backbone: nn.Module) -> dict[str, TokenNorm]:
    return {name: module for name, module in backbone.named_modules() if isinstance(module, TokenNorm)}


@pytest.mark.parametrize("name", TOKEN_NORMS)
def test_one_field_changes_the_norm(build: Build, backbone_name: str, name: str) -> None:
    dtn = build(backbone_name, dtn_cfg={"init": "layernorm", "head_rms": False})
    backbone = build(backbone_name, dtn_cfg={"init": "layernorm", "head_rms": False, "type": name.upper()})
    norms = block_norms(backbone)
    assert set(norms) == set(block_norms(dtn))
    assert {type(norm) for norm in norms.values()} == {TOKEN_NORMS[name]}
    backbone.init_weights()
    outs = backbone.train()(torch.randn(2, 3, 64, 96))
    sum(out.square().mean() for out in outs).backward()
    for key, norm in norms.items():
        for parameter in norm.parameters():
            assert parameter.grad is not None, key
            assert bool(parameter.grad.isfinite().all()), key
    assert backbone.eval()(torch.randn(1, 3, 70, 33))[-1].isfinite().all()


def test_layer_norm_by_name_is_the_twin(build: Build, backbone_name: str) -> None:
    twin, by_name = (build(backbone_name, **kwargs) for kwargs in ({"dtn_stages": ()}, {"dtn_cfg": {"type": "LN"}}))
    # The norm by name keeps its options beside the weights.
    assert set(twin.state_dict()) == {key for key in by_name.state_dict() if not key.endswith("._extra_state")}
    by_name.load_state_dict(twin.state_dict())
    x = torch.randn(1, 3, 64, 96)
    for ours, theirs in zip(by_name(x), twin(x), strict=True):
        assert torch.equal(ours, theirs)


def test_options_and_groups(build: Build) -> None:
    cfg = {"type": "GN", "over": "image", "eps": 1e-3, "num_groups": [1, 2, 4, 8]}
    backbone = build(SWIN, dtn_cfg=cfg)
    found = [{(n.num_groups, n.over, n.eps) for n in block_norms(stage).values()} for stage in backbone.stages]
    assert found == [{(groups, "image", 1e-3)} for groups in (1, 2, 4, 8)]
    # Norms without groups look at no number of groups.
    assert block_norms(build(SWIN, dtn_cfg={"type": "SN", "num_groups": 3, "momentum": 0.2}))


@pytest.mark.parametrize(
    ("dtn_cfg", "message"),
    [
        ({"type": "swichnorm"}, r"got 'swichnorm': did you mean 'switchnorm'"),
        ({"type": "BN", "momentun": 1}, r"expected dtn_cfg to have keys out of \[.*'momentum'.*\], got momentun"),
        ({"momentum": 1}, r"expected dtn_cfg to have keys out of \['eps', 'head_rms'.*\], got momentum"),
        ({"type": "GN", "num_groups": 3}, r"got 3 groups for stage 0 of width 8"),
        ({"type": "BN", "momentum": 3}, r"momentum from 0 to 1, got 3"),
    ],
)
def test_errors(build: Build, dtn_cfg: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(SWIN, dtn_cfg=dtn_cfg)


def test_other_norm_cfg_names_the_norm(build: Build) -> None:
    with pytest.raises(ValueError, match=r"a LayerNorm where SN replaces it, got (_?)BatchNorm"):
        build(SWIN, dtn_cfg={"type": "SN"}, norm_cfg={"type": "BN1d"})


@pytest.mark.parametrize("rules", ["swin_paramwise_cfg", "pvt_paramwise_cfg"])
@pytest.mark.parametrize("name", TOKEN_NORMS)
def test_no_weight_decay(build: Build, name: str, rules: str) -> None:
    """By the rules of the configs, with their names of norms and with their types."""
    backbone = build(SWIN, dtn_cfg={"type": name})
    norms = block_norms(backbone)
    paramwise = Config.fromfile(str(CONFIGS / "_base_" / "dtn_paramwise.py"))[rules]
    constructor = DefaultOptimWrapperConstructor(
        {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.05}}, paramwise
    )
    decay = {id(p): group["weight_decay"] for group in constructor(backbone).param_groups for p in group["params"]}
    own = [parameter for norm in norms.values() for parameter in norm.parameters(recurse=False)]
    assert own
    assert {decay[id(parameter)] for parameter in own} == {0.0}
    assert 0.05 in decay.values()


@pytest.mark.parametrize("name", ["BN", "SN", "ScaleNorm", "PowerNorm", "RMSNorm", "DyT", "GN"])
def test_checkpoints(build: Build, tmp_path: Path, warnings_and_infos: dict[str, list[str]], name: str) -> None:
    """Of LayerNorm, whose weight and bias go where they fit, and of the norm itself, whole."""
    twin = build(SWIN, dtn_stages=(), seed=1)
    nn.init.normal_(twin.stages[0].blocks[0].norm1.weight)
    torch.save(twin.state_dict(), tmp_path / "ln.pth")
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "ln.pth")}
    backbone = build(SWIN, dtn_cfg={"type": name}, init_cfg=init_cfg)
    backbone.init_weights()
    norm = backbone.stages[0].blocks[0].norm1
    if norm.weight is not None:
        assert torch.equal(norm.weight, twin.stages[0].blocks[0].norm1.weight)
    assert torch.equal(backbone.norm0.weight, twin.norm0.weight)
    # GroupNorm has the parameters of LayerNorm, so nothing tells them apart.
    warnings = "".join(warnings_and_infos.get("warning", []))
    assert ("which give other features from the first step on" in warnings) == (name != "GN")
    infos = "".join(warnings_and_infos["info"])
    assert ("got what they have of LayerNorm's weight and bias and keep their start" in infos) == (name != "GN")

    backbone.train()(torch.randn(2, 3, 64, 64))
    torch.save(backbone.state_dict(), tmp_path / "own.pth")
    again = build(SWIN, dtn_cfg={"type": name}, seed=5, init_cfg={**init_cfg, "checkpoint": str(tmp_path / "own.pth")})
    again.init_weights()
    for key, value in backbone.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_frozen_stages_keep_their_running_statistics(build: Build) -> None:
    backbone = build(SWIN, dtn_cfg={"type": "BN"}, frozen_stages=2).train()
    backbone(torch.randn(2, 3, 64, 64))
    means = [backbone.stages[i].blocks[0].norm1.running_mean for i in range(4)]
    assert [bool(mean.any()) for mean in means] == [False, False, True, True]
