"""Norms that do not compute LayerNorm's function, or that carry more than its weights, stay and are told."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conversion_models import small_vit
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from dtn_det import convert_norm, plan_norms
from dtn_det.conversion import same_function
from dtn_det.conversion.same_function import KNOWN, LikeLayerNorm
from dtn_det.errors import NoNormToConvertError
from dtn_det.layers import DTN

WIDTH = 16


class Gelu(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(super().forward(x))


class Scaled(nn.LayerNorm):
    factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * super().forward(x)


class OneMore(nn.LayerNorm):
    """Equal to LayerNorm as long as the weight is 0, with which such norms begin."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, 1 + self.weight, self.bias, self.eps)


class Squared(nn.LayerNorm):
    """Equal to LayerNorm as long as the weight is 1."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight**2, self.bias, self.eps)


class NoBias(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, None, self.eps)


class OwnEps(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, 1e-7)


class InTraining(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5, self.training)


class WithArgument(nn.LayerNorm):
    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        return super().forward(x) + shift


class Pair(nn.LayerNorm):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class Called(nn.LayerNorm):
    def __call__(self, x: Tensor) -> Tensor:
        return -super().__call__(x)


class Fp32(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (None if one is None else one.float() for one in (self.weight, self.bias))
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class Named(nn.LayerNorm):
    """A class that only has another name."""


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        *((kind, "which computes another function than LayerNorm") for kind in (Gelu, OneMore, Squared, NoBias)),
        *((kind, "which computes another function than LayerNorm") for kind in (OwnEps, InTraining, Called)),
        (WithArgument, "which cannot be compared with LayerNorm (TypeError: "),
        (Pair, "which gives other outputs than a tensor of its input's shape"),
    ],
)
def test_another_function_stays(kind: type[nn.LayerNorm], reason: str, training: bool) -> None:
    norm = kind(WIDTH).train(training)
    found = LikeLayerNorm().reason_to_stay(norm)
    assert found is not None
    assert found.startswith(f"is a {kind.__name__}, {reason}")
    assert norm.training is training


@pytest.mark.parametrize("kind", [nn.LayerNorm, Fp32, Named, Scaled])
@pytest.mark.parametrize("options", [{}, {"eps": 1e-6}, {"bias": False}, {"elementwise_affine": False}])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_same_function_does_not_stay(kind: type[nn.LayerNorm], options: dict, device: str) -> None:
    norm = kind(WIDTH, device=device, **options)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    assert LikeLayerNorm().reason_to_stay(norm) is None


def test_settings_of_one_norm_count_and_a_class_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[nn.Module] = []
    run = same_function._difference
    monkeypatch.setattr(same_function, "_difference", lambda norm: runs.append(norm) or run(norm))
    norms = [Scaled(WIDTH) for _ in range(4)]
    norms[2].factor = 2.0
    found = LikeLayerNorm()
    reasons = [found.reason_to_stay(norm) for norm in norms]
    assert [reason is None for reason in reasons] == [True, True, False, True]
    assert runs == [norms[0], norms[2]]


def test_classes_that_are_not_run_compute_the_same() -> None:
    layers = pytest.importorskip("timm.layers.norm")
    for module, name in KNOWN:
        assert module == layers.__name__
        assert same_function._difference(getattr(layers, name)(WIDTH)) is None


def test_nothing_changes_by_the_trial() -> None:
    norm = InTraining(WIDTH)
    before, state = copy.deepcopy(norm.state_dict()), torch.get_rng_state()
    assert LikeLayerNorm().reason_to_stay(norm)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in norm.parameters())


def with_forward(norm: nn.LayerNorm) -> None:
    norm.forward = lambda x: x  # type: ignore[method-assign]


def doubled(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


ATTACHED: dict[str, tuple[Callable[[nn.LayerNorm], object], str]] = {
    "forward hook": (lambda norm: norm.register_forward_hook(doubled), "has hooks (forward_hooks)"),
    "pre-hook": (lambda norm: norm.register_forward_pre_hook(lambda m, x: None), "has hooks (forward_pre_hooks)"),
    "gradients": (lambda norm: norm.register_full_backward_hook(lambda m, i, o: None), "has hooks (backward_hooks)"),
    "weight norm": (lambda norm: parametrizations.weight_norm(norm, dim=None), "has parametrized weights"),
    "pruning": (lambda norm: prune.l1_unstructured(norm, "weight", 0.5), "has hooks (forward_pre_hooks)"),
    "part": (lambda norm: norm.add_module("act", nn.GELU()), "has the parts act (GELU)"),
    "parameter": (
        lambda norm: norm.register_parameter("gamma", nn.Parameter(torch.ones(1))),
        "has the tensors gamma beyond weight and bias",
    ),
    "buffer": (lambda norm: norm.register_buffer("mean", torch.ones(1)), "has the tensors mean beyond weight and bias"),
    "own forward": (with_forward, "has a forward of its own, set on the module"),
}


@pytest.mark.parametrize("attached", ATTACHED)
def test_what_hangs_on_a_norm_is_not_dropped(attached: str, caplog: pytest.LogCaptureFixture) -> None:
    attach, reason = ATTACHED[attached]
    model = small_vit()
    norm = model.get_submodule("blocks.0.norm1")
    assert isinstance(norm, nn.LayerNorm)
    attach(norm)
    plan = plan_norms(model)
    assert plan.unlike == ("blocks.0.norm1",)
    assert dict(plan.kept)["blocks.0.norm1"].startswith(reason)
    with caplog.at_level(logging.WARNING):
        convert_norm(model)
    assert model.get_submodule("blocks.0.norm1") is norm
    assert isinstance(model.get_submodule("blocks.0.norm2"), DTN)
    (record,) = caplog.records
    assert f"keeps 1 more norms than usual, blocks.0.norm1, of which the first {reason}" in record.getMessage()


def test_an_empty_part_is_no_part() -> None:
    norm = nn.LayerNorm(WIDTH)
    norm.add_module("drop", nn.Identity())
    assert LikeLayerNorm().reason_to_stay(norm) is None


def test_timms_norms_with_an_activation_stay() -> None:
    timm = pytest.importorskip("timm")
    layers = pytest.importorskip("timm.layers")
    model = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=WIDTH, num_heads=2)
    model.blocks[0].norm1 = layers.LayerNormAct(WIDTH, act_layer=nn.GELU)
    model.blocks[0].norm2 = layers.LayerNormAct(WIDTH, apply_act=False)
    model.blocks[1].norm2 = Gelu(WIDTH)
    plan = plan_norms(model, layers="blocks")
    assert {site.name for site in plan.replaced} == {"blocks.0.norm2", "blocks.1.norm1"}
    assert plan.unlike == ("blocks.0.norm1", "blocks.1.norm2")


def test_a_model_of_such_norms_alone_is_refused_with_the_reason() -> None:
    model = small_vit()
    for name in plan_norms(model).replaced:
        parent, _, last = name.name.rpartition(".")
        setattr(model.get_submodule(parent), last, Gelu(name.width))
    with pytest.raises(NoNormToConvertError, match="is a Gelu, which computes another function than LayerNorm"):
        convert_norm(model)


def test_batch_norms_of_levit_with_more_than_their_weights_stay() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("levit_128s")
    names = [site.name for site in plan_norms(model).replaced]
    model.get_submodule(names[0]).register_forward_hook(doubled)
    model.get_submodule(names[1]).bn.register_forward_hook(doubled)
    model.get_submodule(names[2]).linear.register_forward_hook(doubled)
    plan = plan_norms(model)
    assert plan.unlike == (names[0], names[1])
    assert [site.name for site in plan.replaced] == names[2:]
