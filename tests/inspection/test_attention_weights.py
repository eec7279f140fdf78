"""The recomputed attention weights give the outputs of the modules that hide them, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("mmdet", reason="Swin and PVT are MMDetection's")

from dense_attention import dense, heads_of, joined
from hypothesis import given
from hypothesis import strategies as st
from mmdet.models.backbones.pvt import SpatialReductionAttention
from mmdet.models.backbones.swin import ShiftWindowMSA, WindowMSA

from dtn_det.conversion import convert_attention
from dtn_det.inspection import attention
from dtn_det.inspection.attention import (
    reduced_pieces,
    vit_pieces,
    window_pieces,
    window_tokens,
    window_weights,
)


def random_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module.double().eval()


def tokens(count: int, channels: int, seed: int = 1) -> Tensor:
    return torch.randn(1, count, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("masked", [False, True])
def test_weights_of_a_window(masked: bool) -> None:
    module = random_weights(WindowMSA(8, 2, (3, 3), qk_scale=0.7))
    windows = torch.randn(4, 9, 8, dtype=torch.float64)
    mask = -100.0 * torch.randint(0, 2, (4, 9, 9)).double() if masked else None
    value = module.qkv(windows).reshape(4, 9, 3, 2, 4)[:, :, 2].transpose(1, 2)
    out = (window_weights(module, windows, mask) @ value).transpose(1, 2).reshape(4, 9, 8)
    torch.testing.assert_close(module.proj(out), module(windows, mask), rtol=1e-12, atol=1e-12)


def called_with(module: nn.Module, run: nn.Module, *args: object) -> tuple[Tensor, Tensor, Tensor | None]:
    """The output of a module, and what an inner one is called with."""
    seen: list[tuple[Tensor, Tensor | None]] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args[0], kwargs["mask"])), with_kwargs=True
    )
    out = run(*args)
    handle.remove()
    return out, *seen[0]


@given(st.integers(1, 11), st.integers(1, 11), st.booleans(), st.integers(0, 1000))
def test_shifted_windows_lie_where_they_were(height: int, width: int, shifted: bool, seed: int) -> None:
    module = random_weights(ShiftWindowMSA(8, 2, window_size=4, shift_size=2 if shifted else 0), seed)
    x = tokens(height * width, 8, seed)
    with torch.no_grad():
        expected, windows, mask = called_with(module.w_msa, module, x, (height, width))
        weights = dense(window_pieces(module, windows, mask, (height, width)), height * width, height * width)
        value = heads_of(module.w_msa.qkv(x)[..., 16:], 2)
        # The share of each query that goes to padding, whose value is the bias of the projection.
        padding = (1 - weights.sum(-1, keepdim=True)) * module.w_msa.qkv.bias[16:].reshape(2, 1, 4)
        out = module.w_msa.proj(joined(weights @ value + padding))
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)


def test_windows_cover_the_map_once() -> None:
    places = window_tokens((5, 7), 4, 2, torch.device("cpu")).place
    assert places.shape == (4, 16)
    assert sorted(places[places >= 0].tolist()) == list(range(35))


@pytest.mark.parametrize("ratio", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_spatial_reduction(ratio: int, bias: bool) -> None:
    height, width = 8, 11
    module = random_weights(SpatialReductionAttention(8, 2, sr_ratio=ratio, qkv_bias=bias))
    x = tokens(height * width, 8)
    reduced = (height // ratio) * (width // ratio)
    with torch.no_grad():
        weights = dense(reduced_pieces(module, x, (height, width)), height * width, reduced)
        source = x
        if ratio > 1:
            source = module.norm(module.sr(x.transpose(1, 2).reshape(1, 8, height, width)).flatten(2).transpose(1, 2))
        inner = module.attn
        value_bias = inner.in_proj_bias[16:] if bias else 0
        out = joined(weights @ heads_of(source @ inner.in_proj_weight[16:].T + value_bias, 2))
        expected = module(x, (height, width), identity=torch.zeros_like(x))
    torch.testing.assert_close(inner.out_proj(out), expected, rtol=1e-12, atol=1e-12)


def test_local_attention_of_windows_and_of_pvt() -> None:
    """With a scale per head of its own, and no weight on the diagonal."""
    localize = pytest.importorskip("dtn_det.conversion.hosts.mmdet").localize
    window = ShiftWindowMSA(8, 2, window_size=4, shift_size=2)
    localize(window.w_msa)
    random_weights(window)
    x = tokens(7 * 9, 8)
    with torch.no_grad():
        expected, windows, mask = called_with(window.w_msa, window, x, (7, 9))
        found = list(window_pieces(window, windows, mask, (7, 9)))
        weights = dense(found, 63, 63)
        padding = (1 - weights.sum(-1, keepdim=True)) * window.w_msa.qkv.bias[16:].reshape(2, 1, 4)
        out = window.w_msa.proj(joined(weights @ heads_of(window.w_msa.qkv(x)[..., 16:], 2) + padding))
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    assert torch.count_nonzero(weights.diagonal(dim1=1, dim2=2)) == 0
    assert not any(piece.allowed.diagonal(dim1=1, dim2=2).any() for piece in found)
    for ratio in (1, 2):
        reduction = SpatialReductionAttention(8, 2, sr_ratio=ratio, qkv_bias=False)
        localize(reduction)
        random_weights(reduction)
        x = tokens(64, 8)
        with torch.no_grad():
            weights = dense(reduced_pieces(reduction, x, (8, 8)), 64, 64 // ratio**2)
            source = x
            if ratio > 1:
                source = reduction.norm(reduction.sr(x.transpose(1, 2).reshape(1, 8, 8, 8)).flatten(2).transpose(1, 2))
            out = joined(weights @ heads_of(source @ reduction.attn.in_proj_weight[16:].T, 2))
            expected = reduction(x, (8, 8), identity=torch.zeros_like(x))
        torch.testing.assert_close(reduction.attn.out_proj(out), expected, rtol=1e-12, atol=1e-12)
        assert bool(weights.diagonal(dim1=1, dim2=2).any()) == (ratio > 1)


def test_a_reduced_key_lies_at_the_centre_of_its_tokens() -> None:
    module = random_weights(SpatialReductionAttention(8, 2, sr_ratio=2))
    piece = next(reduced_pieces(module, tokens(16, 8), (4, 4)))
    assert piece.keys.position[0].tolist() == [[0.5, 0.5], [0.5, 2.5], [2.5, 0.5], [2.5, 2.5]]


def timm_attention(qk_norm: bool) -> nn.Module:
    attention = pytest.importorskip("timm.layers.attention").Attention
    return attention(8, 2, qkv_bias=True, qk_norm=qk_norm, norm_layer=nn.LayerNorm)


def mmpretrain_attention() -> nn.Module:
    return pytest.importorskip("mmpretrain.models.utils").MultiheadAttention(8, 2)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("make", [lambda: timm_attention(False), lambda: timm_attention(True), mmpretrain_attention])
def test_attention_of_vit(make, local: bool) -> None:
    module = make()
    if local:
        convert_attention(nn.ModuleDict({"attn": module}))
    random_weights(module)
    x = tokens(2 + 12, 8)
    with torch.no_grad():
        (piece,) = vit_pieces(module, x, (3, 4), num_prefix=2, class_first=True)
        _, _, value = module.qkv(x).reshape(1, 14, 3, 2, 4).permute(2, 0, 3, 1, 4)
        out = module.proj((piece.weights @ value).transpose(1, 2).reshape(1, 14, 8))
        torch.testing.assert_close(out, module(x), rtol=1e-12, atol=1e-12)
    assert bool(piece.weights.diagonal(dim1=2, dim2=3).any()) != local
    assert bool(piece.allowed.expand(1, 14, 14).diagonal(dim1=1, dim2=2).any()) != local
    assert piece.class_first
    assert piece.keys.place[0].tolist() == [-1, -1, *range(12)]
    assert piece.keys.position[0, 2:].tolist() == [[row, column] for row in range(3) for column in range(4)]


def test_pieces_are_as_small_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    window = random_weights(ShiftWindowMSA(8, 2, window_size=4))
    windows = torch.randn(6, 16, 8, dtype=torch.float64)
    reduction = random_weights(SpatialReductionAttention(8, 2, sr_ratio=2))
    x = tokens(64, 8)
    with torch.no_grad():
        whole = [dense(window_pieces(window, windows, None, (8, 12)), 96, 96)]
        whole.append(dense(reduced_pieces(reduction, x, (8, 8)), 64, 16))
        monkeypatch.setattr(attention, "PIECE_SIZE", 1100)
        parts = [list(window_pieces(window, windows, None, (8, 12))), list(reduced_pieces(reduction, x, (8, 8)))]
    assert [len(found) for found in parts] == [3, 2]
    assert all(piece.weights.numel() <= 1100 for found in parts for piece in found)
    torch.testing.assert_close(dense(parts[0], 96, 96), whole[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(dense(parts[1], 64, 16), whole[1], rtol=1e-12, atol=0)
