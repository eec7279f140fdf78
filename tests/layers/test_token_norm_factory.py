"""Norms of tokens by name, in the place of LayerNorms, and what is said of wrong arguments."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from dtn_det.layers import (
    DTN,
    TOKEN_NORMS,
    DyT,
    PowerNorm,
    RMSNorm,
    ScaleNorm,
    SwitchNorm,
    TokenBatchNorm,
    TokenGroupNorm,
    TokenInstanceNorm,
    TokenLayerNorm,
    TokenNorm,
    build_token_norm,
    from_layer_norm,
)
from dtn_det.layers.token_norms.base import AcrossTokensNorm, WithinTokenNorm
from dtn_det.layers.token_norms.factory import ALIASES, option_names


@pytest.mark.parametrize(
    ("name", "norm_class"),
    [
        ("DTN", DTN),
        ("LayerNorm", TokenLayerNorm),
        ("ln", TokenLayerNorm),
        ("Batch_Norm", TokenBatchNorm),
        ("IN", TokenInstanceNorm),
        ("group-norm", TokenGroupNorm),
        ("SwitchableNorm", SwitchNorm),
        ("SN", SwitchNorm),
        ("ScaleNorm", ScaleNorm),
        ("PN", PowerNorm),
        ("RMSNorm", RMSNorm),
        ("DyT", DyT),
    ],
)
def test_names(name: str, norm_class: type) -> None:
    assert type(build_token_norm(name, 8)) is norm_class


def test_every_name_and_alias_builds_a_norm_of_one_kind() -> None:
    for name in [*TOKEN_NORMS, *ALIASES]:
        norm = build_token_norm(name, 8, 2, eps=1e-3)
        assert isinstance(norm, TokenNorm)
        assert isinstance(norm, nn.LayerNorm)
        assert norm.normalized_shape == (8,)
        assert norm.eps == 1e-3
        assert getattr(norm, "num_groups", 2) == 2
        assert "8" in repr(norm)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("switchnrm", 8), {}, r"out of dtn, ln, .*dyt, got 'switchnrm': did you mean 'switchnorm'"),
        (("zzz", 8), {}, r"out of dtn, ln, .*dyt, got 'zzz'$"),
        (("bn", 8), {"momentun": 1}, r"options of TokenBatchNorm, got 'momentun': did you mean 'momentum'\?"),
        (("ln", 8), {"zzz": 1}, r"options of TokenLayerNorm, got 'zzz': it has device, dtype, eps"),
        (("ln", 0), {}, r"num_features to be a positive integer, got 0"),
        (("bn", 8.0), {}, r"num_features to be a positive integer, got 8.0"),
        (("gn", 10, 3), {}, r"num_features=10 and num_groups=3: choose a divisor of 10"),
        (("gn", 8), {"over": "batch"}, r"over to be one of \('token', 'image'\), got 'batch'"),
        (("bn", 8), {"momentum": 1.5}, r"momentum from 0 to 1, got 1.5"),
        (("sn", 8), {"momentum": -0.1}, r"momentum from 0 to 1, got -0.1"),
        (("powernorm", 8), {"alpha_forward": 2}, r"alpha_forward from 0 to 1, got 2"),
        (("powernorm", 8), {"alpha_backward": -1}, r"alpha_backward from 0 to 1, got -1"),
        (("bn", 8), {"momentum": None}, r"momentum from 0 to 1, got None: choose a number in this range"),
        (("sn", 8), {"momentum": float("nan")}, r"momentum from 0 to 1, got nan"),
        (("powernorm", 8), {"warmup_steps": -1}, r"warmup_steps to be an integer of at least 0, got -1: take 0"),
        (("powernorm", 8), {"warmup_steps": 1.5}, r"warmup_steps to be an integer of at least 0, got 1.5"),
        (("dyt", 8), {"alpha": float("inf")}, r"alpha to be a finite number, got inf: the paper starts at 0.5"),
        (("dyt", 8), {"alpha": "0.5"}, r"alpha to be a finite number, got '0.5'"),
        (("gn", 8, 0), {}, r"positive divisor of num_features, got num_features=8 and num_groups=0"),
    ],
)
def test_wrong_arguments(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_token_norm(*arguments, **options)


@pytest.mark.parametrize("eps", [-1, -1e-5, float("nan"), float("inf"), "1e-5"])
@pytest.mark.parametrize("name", TOKEN_NORMS)
def test_eps_that_is_no_number_from_0(name: str, eps: Any) -> None:
    with pytest.raises(ValueError, match=rf"expected eps to be a number from 0, got {eps!r}: take a small one"):
        build_token_norm(name, 8, eps=eps)
    with pytest.raises(ValueError, match=rf"expected eps to be a number from 0, got {eps!r}"):
        from_layer_norm(nn.LayerNorm(8, eps=eps), name)
    assert from_layer_norm(nn.LayerNorm(8, eps=0), name).eps == 0


@pytest.mark.parametrize("name", TOKEN_NORMS)
@pytest.mark.parametrize(
    ("shape", "hw_shape", "mask", "message"),
    [
        ((2, 12, 9), (3, 4), None, r"\(B, N, 8\) or \(B, H, W, 8\), got \(2, 12, 9\)"),
        ((12, 8), (3, 4), None, r"got \(12, 8\)"),
        ((2, 12, 8), (4, 4), None, r"H \* W of at most 12.*got \(4, 4\) with H \* W = 16"),
        ((2, 12, 8), (3.0, 4), None, r"two positive integers \(H, W\), got \(3.0, 4\)"),
        ((2, 3, 4, 8), (4, 3), None, r"hw_shape to be \(3, 4\).*got \(4, 3\)"),
        ((2, 12, 8), (3, 4), torch.ones(2, 11) > 0, r"mask of shape \(2, 12\) or \(2, 3, 4\), got \(2, 11\)"),
        ((2, 13, 8), (3, 4), torch.ones(2, 11) > 0, r"shape \(2, 13\), \(2, 12\) or \(2, 3, 4\), got \(2, 11\)"),
        ((2, 12, 8), (3, 4), torch.ones(2, 12), r"dtype torch.bool, True for valid tokens, got torch.float32"),
    ],
)
def test_wrong_tokens(name: str, shape: Any, hw_shape: Any, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_token_norm(name, 8)(torch.zeros(shape), hw_shape, mask)


@pytest.mark.parametrize("name", TOKEN_NORMS)
def test_integer_tokens(name: str) -> None:
    with pytest.raises(ValueError, match=r"floating-point dtype, got torch.int64"):
        build_token_norm(name, 8)(torch.zeros(1, 4, 8, dtype=torch.int64))


@pytest.mark.parametrize("name", ["bn", "in", "sn", "powernorm"])
def test_mask_without_a_valid_token(name: str) -> None:
    mask = torch.arange(24).reshape(2, 12) < 12
    with pytest.raises(ValueError, match=r"at least one valid token in each row of mask, got none in rows \[1\]"):
        build_token_norm(name, 8)(torch.zeros(2, 12, 8), (3, 4), mask)


@pytest.fixture
def compiler() -> Iterator[None]:
    """Graphs of this test alone: PyTorch compiles a function for so many classes only."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", TOKEN_NORMS)
def test_a_compiled_graph_gives_an_image_without_a_valid_token_finite_values(name: str, training: bool) -> None:
    torch.manual_seed(0)
    norm = build_token_norm(name, 8, 2).train(training)
    x = torch.randn(2, 12, 8, requires_grad=True)
    mask = torch.arange(24).reshape(2, 12) < 12
    expected = copy.deepcopy(norm)(x[:1], (3, 4), mask[:1])
    y = torch.compile(norm, backend="eager")(x, (3, 4), mask)
    y.square().sum().backward()
    torch.testing.assert_close(y[:1], expected)
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in norm.parameters() if parameter.grad is not None)


def test_a_mask_without_a_grid_has_one_shape() -> None:
    with pytest.raises(ValueError, match=r"mask of shape \(2, 12\), got \(2, 11\)"):
        build_token_norm("ln", 8)(torch.zeros(2, 12, 8), mask=torch.ones(2, 11) > 0)


def test_batch_norm_of_one_token() -> None:
    norm = build_token_norm("bn", 8)
    with pytest.raises(ValueError, match=r"more than one token in a batch for BatchNorm in training, got one: use ev"):
        norm(torch.zeros(1, 1, 8))
    assert norm.eval()(torch.zeros(1, 1, 8)).shape == (1, 1, 8)


def test_a_base_class_says_what_is_missing() -> None:
    x = torch.zeros(1, 4, 8)
    with pytest.raises(NotImplementedError, match="TokenNorm has no forward: override it"):
        TokenNorm(8)(x)
    with pytest.raises(NotImplementedError, match="WithinTokenNorm has no normalize: define it"):
        WithinTokenNorm(8)(x)
    with pytest.raises(NotImplementedError, match="AcrossTokensNorm has no normalize_tokens: define it"):
        AcrossTokensNorm(8)(x)


@pytest.mark.parametrize("name", TOKEN_NORMS)
def test_in_the_place_of_a_layer_norm(name: str) -> None:
    old = nn.LayerNorm(8, eps=1e-3, dtype=torch.float64).eval()
    nn.init.normal_(old.weight)
    nn.init.normal_(old.bias)
    old.weight.requires_grad_(False)
    new = from_layer_norm(old, name, 2)
    assert type(new) is TOKEN_NORMS[name]
    assert new.eps == 1e-3
    assert not new.training
    for key, parameter in new.named_parameters():
        assert parameter.dtype == torch.float64
        assert parameter.requires_grad == (key == "bias"), key
        if key in ("weight", "bias"):
            assert torch.equal(parameter, getattr(old, key))
            assert parameter is not getattr(old, key)
    assert from_layer_norm(old, name, 2, eps=0.5).eps == 0.5
    if name == "ln":
        x = torch.randn(2, 3, 8, dtype=torch.float64)
        assert torch.equal(new(x), old(x))


def test_in_the_place_of_a_layer_norm_without_parameters() -> None:
    for old in (nn.LayerNorm(8, elementwise_affine=False), nn.LayerNorm(8, bias=False, device="meta")):
        new = from_layer_norm(old, "sn", momentum=0.5)
        assert new.momentum == 0.5
        assert all(parameter.requires_grad for parameter in new.parameters())
        assert new.bias.is_meta == (old.weight is not None)


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (nn.BatchNorm1d(8), r"expected an nn.LayerNorm to replace, got BatchNorm1d"),
        (nn.LayerNorm((4, 8)), r"over the last dimension, got one over \(4, 8\): leave it"),
    ],
)
def test_what_is_no_layer_norm(norm: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_layer_norm(norm, "bn")


def test_sync_batch_norm_leaves_them_alone() -> None:
    model = nn.Sequential(build_token_norm("bn", 8))
    assert type(nn.SyncBatchNorm.convert_sync_batchnorm(model)[0]) is TokenBatchNorm


def test_options_by_name() -> None:
    assert option_names("BN") == {"eps", "momentum", "include_prefix"}
    assert option_names("gn") == {"eps", "over", "include_prefix"}
    assert option_names("dtn") == {"eps", "head_rms", "unbiased", "only_var", "init"}
