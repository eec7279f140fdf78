"""What each config says: a pair differs in the norm alone, and its LayerNorm half is MMDetection's own recipe."""

from __future__ import annotations

from typing import Any

import pytest
from config_catalog import CONFIGS, DTN_CONFIGS, resolve
from mmengine.hub import get_config

from dtn_det.training.launch import enable_amp


@pytest.mark.parametrize("name", DTN_CONFIGS)
def test_pair_differs_in_the_norm_alone(name: str) -> None:
    dtn = resolve(name).to_dict()
    layer_norm = resolve(name.replace("_dtn-", "_")).to_dict()
    stages = (0, 1, 2, 3) if "swin" in name else (0, 1, 2)
    assert dtn["model"]["backbone"].pop("dtn_stages") == stages
    assert dtn["model"]["backbone"].pop("dtn_cfg") == {"init": "layernorm"}
    assert layer_norm["model"]["backbone"].pop("dtn_stages") == ()
    assert "dtn_cfg" not in layer_norm["model"]["backbone"]
    assert dtn == layer_norm


def test_every_config_is_half_of_a_pair() -> None:
    twins = {name.replace("_dtn-", "_") for name in DTN_CONFIGS}
    assert twins == set(CONFIGS) - set(DTN_CONFIGS)


@pytest.mark.parametrize("name", [name for name in CONFIGS if "sl-" in name or "lsa-" in name])
def test_locality_variant_differs_in_its_options_alone(name: str) -> None:
    ours = resolve(name).to_dict()
    plain = resolve(name.replace("lsa-", "").replace("sl-", "")).to_dict()
    assert ours["model"]["backbone"].pop("lsa") is True
    assert ours["model"]["backbone"].pop("spt", False) is ("lsa-" not in name)
    assert ours == plain


# The configs that MMDetection has as well; `--amp` makes of ours what `amp-` is in its names.
IN_MMDETECTION = {
    "swin": [
        "retinanet_swin-t-p4-w7_fpn_1x_coco",
        "mask-rcnn_swin-t-p4-w7_fpn_1x_coco",
        "mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco",
        "mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco",
        "mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco",
    ],
    "pvt": [
        "retinanet_pvt-t_fpn_1x_coco",
        "retinanet_pvt-s_fpn_1x_coco",
        "retinanet_pvtv2-b0_fpn_1x_coco",
        "retinanet_pvtv2-b2_fpn_1x_coco",
    ],
}


@pytest.mark.parametrize(
    ("folder", "name"), [(folder, name) for folder in IN_MMDETECTION for name in IN_MMDETECTION[folder]]
)
def test_layer_norm_twin_is_mmdetections_recipe(folder: str, name: str) -> None:
    theirs = get_config(f"mmdet::{folder}/{name}.py").to_dict()
    config = resolve(name.replace("amp-", ""))
    if "amp-" in name:
        enable_amp(config)
        # Dynamic, which is the default.
        assert config.optim_wrapper.pop("loss_scale") == "dynamic"
    ours = config.to_dict()
    assert ours["model"]["backbone"].pop("type") == "DTN" + theirs["model"]["backbone"].pop("type")
    assert ours["model"]["backbone"].pop("dtn_stages") == ()
    assert ours.pop("custom_imports") == {"imports": ["dtn_det"], "allow_failed_imports": False}
    for key in ("swin_paramwise_cfg", "pvt_paramwise_cfg", "deit_paramwise_cfg"):
        ours.pop(key)
    their_keys = theirs["optim_wrapper"].pop("paramwise_cfg", {}).get("custom_keys", {})
    our_keys = ours["optim_wrapper"].pop("paramwise_cfg")["custom_keys"]
    assert {key: value for key, value in our_keys.items() if key in their_keys} == their_keys
    assert without_scopes(ours) == without_scopes(theirs)


def without_scopes(node: Any) -> Any:
    """Where a config lies decides whether its parts carry the name of their registry; both find the same class."""
    if isinstance(node, dict):
        return {key: without_scopes(value) for key, value in node.items() if key != "_scope_"}
    if isinstance(node, list | tuple):
        return [without_scopes(value) for value in node]
    return node


@pytest.mark.parametrize("name", CONFIGS)
def test_schedule_and_weights_are_those_of_the_name(name: str) -> None:
    cfg = resolve(name)
    assert cfg.train_cfg.max_epochs == (36 if "3x" in name else 12)
    assert cfg.param_scheduler[-1].milestones == ([27, 33] if "3x" in name else [8, 11])
    # Learning rates are chosen for 8 GPUs with 2 images each.
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert not cfg.auto_scale_lr.enable
    assert cfg.train_dataloader.batch_size == 2
    assert (cfg.val_evaluator.metric == "bbox") == name.startswith("retinanet")
    weights = {
        "swin-t": "swin_tiny_patch4_window7_224",
        "swin-s": "swin_small_patch4_window7_224",
        "pvt-t": "pvt_tiny",
        "pvt-s": "pvt_small",
        "pvtv2-b0": "pvt_v2_b0",
        "pvtv2-b2": "pvt_v2_b2",
    }
    (expected,) = [file for size, file in weights.items() if f"{size}_" in name or f"{size}-" in name]
    assert cfg.model.backbone.init_cfg.checkpoint.endswith(f"/{expected}.pth")
    assert "convnext" not in str(cfg.to_dict()).lower()
