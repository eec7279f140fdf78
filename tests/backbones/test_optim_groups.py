"""Which parameters decay and how fast they learn by the configs' rules, read off the optimizer that MMEngine builds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

pytest.importorskip("mmdet")

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from dtn_det.layers.positions import PositionProjection

Build = Callable[..., nn.Module]
LR, DECAY = 1e-3, 0.05
RULES = Config.fromfile(str(Path(__file__).resolve().parents[2] / "configs" / "_base_" / "dtn_paramwise.py"))


def rules(backbone_name: str) -> dict[str, Any]:
    """The `paramwise_cfg` of the configs with this backbone."""
    return RULES.swin_paramwise_cfg if "Swin" in backbone_name else RULES.pvt_paramwise_cfg


def groups(model: nn.Module, paramwise_cfg: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter, by name."""
    optimizer = {"type": "AdamW", "lr": LR, "weight_decay": DECAY}
    wrapper = build_optim_wrapper(
        model, {"type": "OptimWrapper", "optimizer": optimizer, "paramwise_cfg": paramwise_cfg}
    )
    by_id = {id(p): name for name, p in model.named_parameters()}
    return {by_id[id(p)]: (g["lr"], g["weight_decay"]) for g in wrapper.optimizer.param_groups for p in g["params"]}


def expected(model: nn.Module) -> dict[str, tuple[float, float]]:
    """By module, so that it does not share the rules' way of telling parameters apart."""
    out = {}
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(prefix=prefix, recurse=False):
            if isinstance(module, PositionProjection):
                out[name] = (0.1 * LR, DECAY)
            elif isinstance(module, nn.LayerNorm):
                out[name] = (LR, 0.0)
            else:
                is_table = name.endswith(("relative_position_bias_table", "absolute_pos_embed", ".pos_embed"))
                out[name] = (LR, 0.0 if is_table else DECAY)
    return out


class Detector(nn.Module):
    """The rules see the names of a detector, whose backbone is one level down."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Conv2d(8, 8, 1)


@pytest.mark.parametrize("swin_extra", [{}, {"use_abs_pos_embed": True}])
def test_paramwise_cfg_decays_what_the_authors_meant(build: Build, backbone_name: str, swin_extra: dict) -> None:
    model = Detector(build(backbone_name, **(swin_extra if "Swin" in backbone_name else {})))
    found = groups(model, rules(backbone_name))
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert found == expected(model)
    gates = [name for name in found if name.endswith(("mean_norm_weight", "var_norm_weight"))]
    assert gates
    assert {found[name] for name in gates} == {(LR, 0.0)}


def test_layernorm_twin_has_the_same_rules(build: Build, backbone_name: str) -> None:
    ln, dtn = (Detector(build(backbone_name, **kwargs)) for kwargs in ({"dtn_stages": ()}, {}))
    found = groups(dtn, rules(backbone_name))
    assert groups(ln, rules(backbone_name)) == {name: found[name] for name, _ in ln.named_parameters()}
