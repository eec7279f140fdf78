"""Every config builds its detector and its optimizer, trains one step and predicts, at a small width."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from config_catalog import CONFIGS, FOLDERS, resolve, shrink
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from torch import nn

from dtn_det.layers import DTN
from dtn_det.training.launch import enable_amp


def build(cfg: Config) -> BaseModel:
    register_all_modules()
    model = MODELS.build(cfg.model)
    assert model.backbone.init_cfg == {"type": "Pretrained", "checkpoint": cfg.model.backbone.init_cfg.checkpoint}
    model.backbone.init_cfg = None
    model.init_weights()
    # As the Runner does when it trains in one process.
    return revert_sync_batchnorm(model)


@pytest.mark.parametrize("folder", FOLDERS)
def test_builds_without_weights_as_in_test_robustness(folder: str) -> None:
    """MMDetection's script sets the type to None, because the checkpoint of the detector follows."""
    cfg = shrink(resolve(next(name for name, path in CONFIGS.items() if path.parent.name == folder)))
    cfg.model.backbone.init_cfg.type = None
    register_all_modules()
    assert MODELS.build(cfg.model).backbone.init_cfg is None


def check_decay_and_rates(model: nn.Module, optim_wrapper: OptimWrapper, cfg: Config) -> None:
    """No norm's weight, bias or gate decays; the positional coefficients do, at a tenth of the learning rate."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    settings = {names[id(group["params"][0])]: group for group in optim_wrapper.optimizer.param_groups}
    assert len(settings) == len(names)
    base = cfg.optim_wrapper.optimizer
    for prefix, module in model.backbone.named_modules(prefix="backbone"):
        if isinstance(module, nn.LayerNorm):
            for name, _ in module.named_parameters(recurse=False):
                assert settings[f"{prefix}.{name}"]["weight_decay"] == 0, f"{prefix}.{name}"
                assert settings[f"{prefix}.{name}"]["lr"] == base.lr
        if isinstance(module, DTN):
            assert settings[f"{prefix}.pos_proj.weight"]["weight_decay"] == base.weight_decay > 0
            assert settings[f"{prefix}.pos_proj.weight"]["lr"] == pytest.approx(0.1 * base.lr)
        if isinstance(getattr(module, "scale", None), nn.Parameter):
            assert settings[f"{prefix}.scale"]["weight_decay"] == 0
        if isinstance(module, nn.Linear):
            assert settings[f"{prefix}.weight"]["weight_decay"] == base.weight_decay
            assert settings[f"{prefix}.weight"]["lr"] == base.lr


def train_and_predict(cfg: Config, device: str) -> None:
    model = build(cfg).to(device)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    check_decay_and_rates(model, optim_wrapper, cfg)
    norms = [norm for norm in model.backbone.modules() if isinstance(norm, DTN)]
    assert bool(norms) == bool(cfg.model.backbone.dtn_stages)
    before = [norm.pos_proj.weight.detach().clone() for norm in norms]

    model.train()
    images = demo_mm_inputs(2, [[3, 64, 96], [3, 50, 70]], num_items=[3, 2], with_mask=True)
    losses = model.train_step(images, optim_wrapper)
    assert losses
    assert all(math.isfinite(value.item()) for value in losses.values())
    assert all(not torch.equal(norm.pos_proj.weight, old) for norm, old in zip(norms, before, strict=True))

    model.eval()
    with torch.no_grad():
        predictions = model.test_step(demo_mm_inputs(1, [[3, 64, 96]], with_mask=True))
    assert len(predictions) == 1
    assert isinstance(predictions[0], DetDataSample)
    found = predictions[0].pred_instances
    assert found.bboxes.shape == (len(found.scores), 4)
    assert found.bboxes.isfinite().all()
    assert ("masks" in found) == (not cfg.filename.split("/")[-1].startswith("retinanet"))


@pytest.fixture(scope="module")
def tried() -> set[str]:
    """What the configs of this module say that trained: at the small width, many say the same."""
    return set()


@pytest.mark.parametrize("name", CONFIGS)
def test_config_trains_a_step_and_predicts(name: str, tried: set[str]) -> None:
    cfg = shrink(resolve(name))
    parts = {"model": cfg.model.to_dict(), "optimizer": cfg.optim_wrapper.to_dict()}
    parts["model"]["backbone"].pop("init_cfg")
    said = json.dumps(parts, sort_keys=True)
    if said not in tried:
        train_and_predict(cfg, "cpu")
        tried.add(said)


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in CONFIGS if "_ms-crop-" in name])
def test_config_trains_on_gpu_in_mixed_precision(name: str) -> None:
    cfg = shrink(resolve(name))
    enable_amp(cfg)
    # A first loss scale of 2**16 overflows half precision and skips the step, as it should.
    cfg.optim_wrapper.loss_scale = 128.0
    train_and_predict(cfg, "cuda")
    assert isinstance(
        build_optim_wrapper(nn.Linear(1, 1), {**cfg.optim_wrapper, "paramwise_cfg": None}), AmpOptimWrapper
    )


@pytest.mark.parametrize("name", ["mask-rcnn_dtn-swin-t-p4-w7_fpn_1x_coco", "mask-rcnn_dtn-pvtv2-b0_fpn_1x_coco"])
def test_readme_options_start_from_dtn_weights(name: str, tmp_path: Path) -> None:
    """Weights of a backbone trained with the authors' DTN go into the config that the READMEs' options make of it."""
    options = {"model.backbone.dtn_cfg.init": "local", "model.backbone.init_cfg.checkpoint": str(tmp_path / "dtn.pth")}
    cfg = resolve(name)
    cfg.merge_from_dict(options)
    register_all_modules()
    trained = MODELS.build({**shrink(cfg).model.backbone, "init_cfg": None})
    for parameter in trained.parameters():
        nn.init.normal_(parameter)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "dtn.pth")
    model = MODELS.build(cfg.model)
    model.init_weights()
    norms = [module for module in model.backbone.modules() if isinstance(module, DTN)]
    assert norms
    assert all(norm.head_rms and norm.unbiased for norm in norms)
    loaded = model.backbone.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in trained.state_dict().items())
