"""T2T-ViT for small images and the pooling behind PVT, both by the names that configs use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("mmpretrain.models", reason="the classifiers need mmpretrain")

from mmengine.hooks import EMAHook
from mmengine.registry import MODELS
from mmpretrain.models.backbones.t2t_vit import T2TModule

import dtn_det  # noqa: F401  registers the parts
from dtn_det.training.averages import outer_names, save_averages_by_outer_names


def t2t(**changed: Any) -> nn.Module:
    settings = {"type": "SmallT2TViT", "token_dims": 6, "embed_dims": 8, "num_layers": 2}
    layers = {"num_heads": 2, "feedforward_channels": 16}
    model = MODELS.build({**settings, "layer_cfgs": layers, **changed})
    model.init_weights()
    model.eval()
    return model


def split(x: Tensor) -> Tensor:
    return F.unfold(x, 3, stride=2, padding=1).transpose(1, 2)


@pytest.mark.parametrize(("img_size", "num_splits"), [(32, 2), (64, 3)])
def test_splits_leave_eight_by_eight_tokens(img_size: int, num_splits: int) -> None:
    model = t2t(img_size=img_size, num_splits=num_splits)
    images = torch.randn(2, 3, img_size, img_size)
    tokens, grid = model.tokens_to_token(images)
    assert tuple(grid) == (8, 8)
    assert model.pos_embed.shape == (1, 65, 8)
    assert "pos_embed" in dict(model.named_buffers())
    module = model.tokens_to_token
    x = module.attention1(split(images))
    for attention in [module.attention2] * (num_splits - 2):
        side = round(x.shape[1] ** 0.5)
        x = attention(split(x.transpose(1, 2).unflatten(2, (side, side))))
    side = round(x.shape[1] ** 0.5)
    torch.testing.assert_close(tokens, module.project(split(x.transpose(1, 2).unflatten(2, (side, side)))))
    assert [out.shape for out in model(images)] == [(2, 8)]


def test_other_sizes_resize_the_position_embedding() -> None:
    model = t2t()
    assert [out.shape for out in model(torch.randn(1, 3, 40, 24))] == [(1, 8)]
    assert all(torch.isfinite(out).all() for out in model(torch.randn(1, 3, 33, 31)))


def test_the_module_is_one_that_conversions_know() -> None:
    assert type(t2t().tokens_to_token) is T2TModule
    converted = MODELS.build(
        {
            "type": "ConvertedModel",
            "model": {"type": "SmallT2TViT", "embed_dims": 12, "layer_cfgs": {"num_heads": 2}},
            "norm_cfg": {"type": "dtn"},
            "spt": True,
            "lsa": True,
        }
    )
    assert converted.tokens_to_token.attention1.ln1.normalized_shape == (5 * 27,)
    assert all(torch.isfinite(out).all() for out in converted(torch.randn(2, 3, 32, 32)))


def test_state_dict_of_another_size_is_resized() -> None:
    large = t2t(img_size=48)
    small = t2t(img_size=32)
    assert large.pos_embed.shape == (1, 145, 8)
    small.load_state_dict(large.state_dict())


@pytest.mark.parametrize("num_splits", [1, 4])
def test_number_of_splits(num_splits: int) -> None:
    with pytest.raises(ValueError, match=f"expected num_splits to be 2 or 3, got {num_splits}: take 2 for"):
        t2t(num_splits=num_splits)


def test_pooling_normalises_every_token_of_the_last_map() -> None:
    pooling = MODELS.build({"type": "NormPooling", "in_channels": 6})
    maps = (torch.randn(2, 3, 8, 8), torch.randn(2, 6, 4, 5) * 7 + 3)
    (out,) = pooling(maps)
    expected = F.layer_norm(maps[1].permute(0, 2, 3, 1), (6,), eps=1e-6).mean(dim=(1, 2))
    torch.testing.assert_close(out, expected)


def test_averages_get_the_names_of_their_model() -> None:
    timm = {"steps": 1, "module.model.head.weight": 2, "module.model.model.x": 3}
    assert outer_names(timm, ["head.weight", "model.x"]) == {"steps": 1, "module.head.weight": 2, "module.model.x": 3}
    plain = {"steps": 1, "module.model.weight": 2, "module.weight": 3}
    assert outer_names(plain, ["model.weight", "weight"]) == plain


def test_the_plain_hook_saves_the_average_of_a_model_of_timm() -> None:
    hook = EMAHook()
    save_averages_by_outer_names(SimpleNamespace(hooks=[hook]))
    checkpoint = {"state_dict": {"head.weight": 1}, "ema_state_dict": {"steps": 5, "module.model.head.weight": 2}}
    hook._swap_ema_state_dict(checkpoint)
    assert checkpoint == {
        "state_dict": {"head.weight": 2},
        "ema_state_dict": {"steps": 5, "module.head.weight": 1},
    }
