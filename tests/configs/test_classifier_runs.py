"""Every config of a classifier builds its model and its optimizer, trains one step and predicts, at a small width."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
import torch
from classifier_catalog import CONFIGS, DTN_CONFIGS, SL_CONFIGS, build, classifier, image_size, resolve, shrink
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmpretrain.structures import DataSample
from torch import nn

from dtn_det.layers import DTN, TOKEN_NORMS

OTHER_NORMS = sorted({*TOKEN_NORMS} - {"dtn"})


def groups(model: nn.Module, wrapper: OptimWrapper) -> dict[str, dict[str, Any]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(group["params"][0])]: group for group in wrapper.optimizer.param_groups}
    assert len(found) == len(names)
    return found


def check_decay_and_rates(name: str, model: nn.Module, wrapper: OptimWrapper, cfg: Config) -> None:
    optimizer = cfg.optim_wrapper.optimizer
    tables = ("cls_token", "pos_embed", "relative_position_bias_table")
    for key, group in groups(model, wrapper).items():
        shape = model.get_parameter(key).shape
        if "pos_proj" in key:
            decays = True
        elif name.endswith("in1k"):
            decays = len(shape) > 1 and not any(table in key for table in tables)
        else:
            decays = not re.search(r"(mean|var)_norm_weight", key)
        assert group["weight_decay"] == (optimizer.weight_decay if decays else 0), key
        assert group["lr"] == pytest.approx(optimizer.lr * (0.1 if "pos_proj" in key else 1)), key


@pytest.fixture(scope="module")
def tried() -> set[str]:
    """What the configs of this module say that trained: at the small width, some say the same."""
    return set()


@pytest.mark.parametrize("name", CONFIGS)
def test_config_trains_a_step_and_predicts(name: str, tried: set[str]) -> None:
    cfg = shrink(resolve(name))
    parts = {key: cfg[key].to_dict() for key in ("model", "data_preprocessor", "optim_wrapper")}
    # The colours of a data set shift all of its images, and these are random.
    parts["data_preprocessor"].pop("mean"), parts["data_preprocessor"].pop("std")
    said = json.dumps({**parts, "size": image_size(cfg)}, sort_keys=True, default=str)
    if said not in tried:
        train_and_predict(name, cfg)
        tried.add(said)


def train_and_predict(name: str, cfg: Config) -> None:
    model = build(cfg)
    kinds = {type(module).__name__ for module in model.modules()}
    assert any(isinstance(module, DTN) for module in model.modules()) == (name in DTN_CONFIGS)
    assert any(re.search("ShiftedPatch|ShiftedT2T|^SPT", kind) for kind in kinds) == (name in SL_CONFIGS)
    assert any(re.search("LSA|Locality", kind) for kind in kinds) == (name in SL_CONFIGS)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    check_decay_and_rates(name, model, wrapper, cfg)

    size, classes = image_size(cfg), cfg.data_preprocessor.num_classes
    model.train()
    before = {key: value.detach().clone() for key, value in model.named_parameters() if "pos_proj.weight" in key}
    samples = [DataSample().set_gt_label(label) for label in range(4)]
    batch = {"inputs": torch.randint(256, (4, 3, size, size), dtype=torch.uint8), "data_samples": samples}
    losses = model.train_step(batch, wrapper)
    assert losses["loss"].item() == pytest.approx(math.log(classes), rel=0.2)
    assert bool(before) == (name in DTN_CONFIGS)
    assert all(not torch.equal(model.get_parameter(key), value) for key, value in before.items())

    model.eval()
    with torch.no_grad():
        (prediction,) = model.test_step({"inputs": batch["inputs"][:1], "data_samples": samples[:1]})
    assert prediction.pred_score.shape == (classes,)
    assert prediction.pred_score.sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("norm", OTHER_NORMS)
@pytest.mark.parametrize("name", ["dtn-vit-tiny-p16_8xb128_in1k", "dtn-swin_1xb128_cifar10"])
def test_one_field_takes_another_norm(name: str, norm: str) -> None:
    cfg = shrink(resolve(name))
    cfg.merge_from_dict({"model.norm_cfg.type": norm})
    model = build(cfg)
    replaced = [module for module in model.modules() if type(module) is TOKEN_NORMS[norm]]
    dtn = [module for module in build(shrink(resolve(name))).modules() if isinstance(module, DTN)]
    assert len(replaced) == len(dtn) > 0
    with torch.no_grad():
        scores = model(torch.randn(2, 3, image_size(cfg), image_size(cfg)), mode="tensor")
    assert torch.isfinite(scores if isinstance(scores, torch.Tensor) else scores[0]).all()


@pytest.mark.parametrize(
    ("name", "norms"), [("vit_1xb128_svhn", 4), ("sl-cait_1xb128_cifar10", 2), ("sl-t2t_1xb128_svhn", 2)]
)
def test_the_norm_of_a_plain_config_is_one_field_too(name: str, norms: int) -> None:
    cfg = shrink(resolve(name))
    cfg.merge_from_dict({"model.norm_cfg.type": "dtn", "model.norm_cfg.init": "local"})
    model = build(cfg)
    found = [module for module in model.modules() if isinstance(module, DTN)]
    assert len(found) == norms
    assert all(norm.init == "local" for norm in found)
    with torch.no_grad():
        scores = model(torch.randn(2, 3, image_size(cfg), image_size(cfg)), mode="tensor")
    assert torch.isfinite(scores if isinstance(scores, torch.Tensor) else scores[0]).all()


def test_swin_has_its_position_embedding_with_and_without_spt() -> None:
    for name in ("swin_1xb128_cifar10", "sl-swin_1xb128_tiny-imagenet"):
        cfg = shrink(resolve(name))
        assert build(cfg).backbone.absolute_pos_embed.shape == (1, 256, classifier(cfg).backbone.embed_dims)
