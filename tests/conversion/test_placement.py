"""Hosts whose code is of no known library: the first image tells whether tokens lie where the norms are told."""

from __future__ import annotations

import copy
import pickle
import types
from typing import Any

import pytest
import torch
from conversion_models import norm_calls, small_vit
from torch import Tensor, nn

from dtn_det import convert_norm
from dtn_det.conversion.placement import code_from_outside
from dtn_det.layers import DTN

timm = pytest.importorskip("timm")
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

_SMALL = {"img_size": 64, "patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}


class MiddleToken(VisionTransformer):  # type: ignore[misc]
    """The class token in the middle, as in Vision Mamba."""

    def _pos_embed(self, x: Tensor) -> Tensor:
        x = super()._pos_embed(x)
        half = (x.shape[1] - 1) // 2
        return torch.cat([x[:, 1 : 1 + half], x[:, :1], x[:, 1 + half :]], 1)


class LastToken(VisionTransformer):  # type: ignore[misc]
    def _pos_embed(self, x: Tensor) -> Tensor:
        return super()._pos_embed(x).roll(-1, 1)


class ByColumns(VisionTransformer):  # type: ignore[misc]
    def _pos_embed(self, x: Tensor) -> Tensor:
        x = super()._pos_embed(x)
        side = int((x.shape[1] - 1) ** 0.5)
        return torch.cat([x[:, :1], x[:, 1:].unflatten(1, (side, side)).transpose(1, 2).flatten(1, 2)], 1)


class InPlace(VisionTransformer):  # type: ignore[misc]
    """Code from outside that leaves tokens where they are."""

    def _pos_embed(self, x: Tensor) -> Tensor:
        return super()._pos_embed(x) * 2

    def forward_features(self, x: Tensor, **kwargs: Any) -> Tensor:
        features: Tensor = super().forward_features(x, **kwargs)
        return features


@pytest.mark.parametrize("options", [{}, {"grid": (4, 4)}, {"layers": r"blocks\.1\."}])
@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (
            MiddleToken,
            r"patch \(0, 0\) of MiddleToken among the tokens before the grid: see what MiddleToken._pos_embed",
        ),
        (LastToken, r"patch \(0, 0\) of LastToken among the tokens before the grid: see what LastToken._pos_embed"),
        (ByColumns, r"patch \(2, 0\) of ByColumns at \(0, 2\): see what ByColumns._pos_embed does to the order"),
    ],
)
def test_tokens_in_another_order_are_refused(kind: Any, found: str, options: dict[str, Any]) -> None:
    model = convert_norm(kind(**_SMALL).eval(), **{"layers": "blocks", **options})
    for _ in range(2):
        with pytest.raises(ValueError, match=f"row by row in a grid of 4 x 4 at 'blocks.*, got the {found}"):
            model(torch.randn(2, 3, 64, 64))
    assert convert_norm(kind(**_SMALL), "sn", layers="blocks")(torch.randn(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (160, 48)])
def test_code_from_outside_that_keeps_the_order_runs(size: tuple[int, int]) -> None:
    model = convert_norm(InPlace(**_SMALL, dynamic_img_size=True), layers="blocks")
    with norm_calls(model) as calls:
        model(torch.randn(2, 3, *size)).sum().backward()
    assert {told for _, _, told in calls} == {(size[0] // 16, size[1] // 16)}


def test_a_method_that_was_put_into_an_instance_is_followed_too() -> None:
    model = small_vit()
    own = model._pos_embed

    def last(self: Any, x: Tensor) -> Tensor:
        return own(x).roll(-1, 1)  # type: ignore[operator, no-any-return]

    model._pos_embed = types.MethodType(last, model)  # type: ignore[assignment]
    convert_norm(model, layers="blocks")
    with pytest.raises(ValueError, match=r"see what VisionTransformer._pos_embed does to the order of tokens"):
        model(torch.randn(1, 3, 32, 32))


def test_a_host_of_its_own_is_followed_too() -> None:
    class Own(nn.Module):
        def __init__(self, middle: bool) -> None:
            super().__init__()
            self.vit, self.middle = small_vit(), middle
            self.embed = nn.Conv2d(3, 24, 4, 4)
            self.cls_token = nn.Parameter(torch.zeros(1, 1, 24))
            self.blocks, self.vit = self.vit.blocks, None

        def forward(self, pixels: Tensor) -> Tensor:
            x = self.embed(pixels).flatten(2).transpose(1, 2)
            half = x.shape[1] // 2 * self.middle
            x = torch.cat([x[:, :half], self.cls_token.expand(len(x), -1, -1), x[:, half:]], 1)
            for block in self.blocks:
                x = block(x)
            return x

    convert_norm(Own(middle=False), layers="blocks")(torch.randn(2, 3, 16, 32))
    with pytest.raises(
        ValueError, match=r"the patch \(0, 0\) of Own among the tokens before the grid: see what Own.forw"
    ):
        convert_norm(Own(middle=True), layers="blocks")(pixels=torch.randn(2, 3, 16, 32))


def test_following_patches_leaves_no_trace() -> None:
    class Noisy(InPlace):
        def __init__(self) -> None:
            super().__init__(**_SMALL, drop_rate=0.5, pos_drop_rate=0.5, drop_path_rate=0.5)
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
            out: Tensor = super().forward(self.bn(x), **kwargs)
            return out

    model = convert_norm(Noisy(), layers="blocks")
    followed = copy.deepcopy(model)
    images = torch.randn(2, 3, 64, 64)
    next(iter(model._forward_pre_hooks.values())).done = True  # type: ignore[attr-defined]
    outs = []
    for one in (model, followed):
        torch.manual_seed(0)
        outs.append(one(images))
        assert all(module.training for module in one.modules())
    torch.testing.assert_close(outs[1], outs[0], rtol=0, atol=0)
    assert [
        key for key, value in model.state_dict().items() if not torch.equal(followed.state_dict()[key], value)
    ] == []
    model(images.byte().float())


def test_copies_and_compiled_models_are_followed() -> None:
    model = convert_norm(MiddleToken(**_SMALL).eval(), layers="blocks")
    images = torch.randn(1, 3, 64, 64)
    for one in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.compile(model, backend="eager")):
        with pytest.raises(ValueError, match=r"see what MiddleToken._pos_embed does to the order"):
            one(images)
    good = convert_norm(InPlace(**_SMALL).eval(), layers="blocks")
    torch.testing.assert_close(torch.compile(good, backend="eager")(images), good(images))


def test_libraries_are_known() -> None:
    transformers = pytest.importorskip("transformers")
    for name in (
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
        "pvt_v2_b0",
        "levit_128",
        "eva02_tiny_patch14_224",
    ):
        with torch.device("meta"):
            assert code_from_outside(timm.create_model(name).modules()) == ()
    with torch.device("meta"):
        assert code_from_outside(transformers.ViTModel(transformers.ViTConfig()).modules()) == ()
    assert code_from_outside(MiddleToken(**_SMALL).modules()) == ("MiddleToken._pos_embed",)
    model = convert_norm(small_vit(), layers="blocks")
    assert not any(type(hook).__name__ == "VerifyPlaces" for hook in model._forward_pre_hooks.values())
    assert any(isinstance(module, DTN) for module in model.modules())
