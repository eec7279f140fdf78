"""Converted models in configs of mmpretrain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import dtn_det  # noqa: F401  registers ConvertedModel
from dtn_det.layers import DTN, TokenBatchNorm

pytest.importorskip("mmpretrain.models")
pytest.importorskip("timm")

from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample

_TIMM = {
    "type": "TimmClassifier",
    "model_name": "vit_tiny_patch16_224",
    "img_size": 32,
    "patch_size": 4,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "num_classes": 5,
}
_T2T = {
    "type": "T2T_ViT",
    "img_size": 32,
    "embed_dims": 24,
    "num_layers": 2,
    "t2t_cfg": {"token_dims": 16, "use_performer": False},
    "layer_cfgs": {"num_heads": 3, "feedforward_channels": 48},
}


def build(**config: Any) -> Any:
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return MODELS.build({"type": "ConvertedModel", **config})


def _train_step(model: Any) -> None:
    model.init_weights()
    out = model.loss(torch.randn(2, 3, 32, 32), [DataSample().set_gt_label(i) for i in (0, 1)])["loss"]
    out.backward()
    assert out.isfinite()


def test_a_classifier_of_timm() -> None:
    model = build(model=_TIMM, norm_cfg={"type": "dtn", "init": "local", "layers": "blocks"})
    assert sum(isinstance(module, DTN) for module in model.modules()) == 4
    _train_step(model)


def test_the_norm_is_one_field() -> None:
    model = build(model=_TIMM, norm_cfg={"type": "bn", "layers": "blocks", "init": "local", "num_groups": 3})
    assert sum(isinstance(module, TokenBatchNorm) for module in model.modules()) == 4
    same = build(model=_TIMM, norm_cfg={"type": "LN"})
    assert all(type(module) is not DTN for module in same.modules())


def test_tokens_and_attention() -> None:
    model = build(model=_TIMM, spt=True, lsa=True, norm_cfg={"type": "dtn", "layers": "blocks"})
    names = {type(module).__name__ for module in model.modules()}
    assert {"SPTPatchEmbed", "LSAAttention", "DTN"} <= names
    _train_step(model)


def test_the_backbone_of_a_classifier() -> None:
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(
            {
                "type": "ImageClassifier",
                "backbone": {"type": "ConvertedModel", "model": _T2T, "norm_cfg": {"type": "dtn"}, "spt": True},
                "head": {"type": "VisionTransformerClsHead", "num_classes": 5, "in_channels": 24},
            }
        )
    assert any(isinstance(module, DTN) for module in model.backbone.modules())
    _train_step(model)


def test_weights_of_models_of_timm_are_not_drawn_again() -> None:
    model = build(model=_TIMM, norm_cfg={"type": "dtn"})
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.init_weights()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": {"model_name": "vit"}}, "expected model to be a config with a type"),
        ({"model": _TIMM, "norm_cfg": {"init": "local"}}, "expected norm_cfg with a type"),
        ({"model": {**_TIMM, "model_name": "vit_tny_patch16_224"}}, "did you mean vit_tiny_patch16_224"),
        ({"model": _TIMM, "norm_cfg": {"type": "dnt"}}, "did you mean .* 'dtn'"),
        (
            {"model": _TIMM, "norm_cfg": {"type": "dtn", "num_groups": 5}},
            "divide the width 24 of 'model.blocks.0.norm1'",
        ),
    ],
)
def test_what_does_not_fit(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**config)


def test_nothing_else_is_touched() -> None:
    model = build(model=_TIMM)
    assert [type(module) for module in model.modules() if isinstance(module, DTN)] == []
    assert isinstance(model, nn.Module)
