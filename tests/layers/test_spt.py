"""Shifted Patch Tokenization against the authors' vectors and its definition pixel by pixel."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.layers import ShiftedPatchTokenization, shift_patches

AUTHORS_NAMES = {"merging.1": "patch_norm", "merging.2": "patch_linear"}


def by_pixels(layer, x):
    """The definition, one pixel at a time; pixels outside the map are zero."""
    batch, channels, height, width = x.shape
    p, s = layer.patch_size, layer.shift
    rows, columns = -(-height // p), -(-width // p)
    # Output (i, j) of the first copy is input (i - s, j - s), and so on.
    moves = ((0, 0), (-s, -s), (-s, s), (s, -s), (s, s))
    zero = x.new_zeros(batch, channels)

    def pixel(i, j):
        return x[:, :, i, j] if 0 <= i < height and 0 <= j < width else zero

    tokens = []
    for row in range(rows):
        for column in range(columns):
            features = [
                pixel(i + di, j + dj)
                for i in range(row * p, row * p + p)
                for j in range(column * p, column * p + p)
                for di, dj in moves
            ]
            tokens.append(torch.cat(features, dim=1))
    patches = torch.stack(tokens, dim=1)
    norm, linear = layer.patch_norm, layer.patch_linear
    patches = F.layer_norm(patches, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return F.linear(patches, linear.weight, linear.bias), (rows, columns)


def randomized(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return layer


@pytest.mark.parametrize("name", ["image_p4", "tokens_p2"])
def test_agrees_with_the_authors_module(shared_dir, name):
    data = np.load(shared_dir / "parity" / f"spt_{name}.npz")
    meta = json.loads(str(data["meta"]))
    x, y = torch.tensor(data["x"]), torch.tensor(data["y"])
    in_channels = x.shape[1] if meta["image"] else x.shape[2]
    layer = ShiftedPatchTokenization(in_channels, y.shape[2], meta["patch"], dtype=torch.float64)
    state = {k.removeprefix("param."): torch.tensor(data[k]) for k in data if k.startswith("param.")}
    for theirs, ours in AUTHORS_NAMES.items():
        state = {key.replace(theirs, ours): value for key, value in state.items()}
    layer.load_state_dict(state)
    tokens, hw_shape = layer(x) if meta["image"] else layer(x, tuple(meta["grid"]))
    assert hw_shape == tuple(side // meta["patch"] for side in meta["grid"])
    torch.testing.assert_close(tokens, y, rtol=1e-9, atol=1e-9)


@given(
    batch=st.integers(1, 2),
    channels=st.integers(1, 3),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    patch=st.integers(2, 5),
    seed=st.integers(0, 2**31),
)
def test_equals_the_definition_with_all_gradients(batch, channels, height, width, patch, seed):
    layer = randomized(ShiftedPatchTokenization(channels, 4, patch, dtype=torch.float64), seed)
    x = torch.randn(batch, channels, height, width, dtype=torch.float64, requires_grad=True)
    ours, hw_shape = layer(x)
    expected, expected_shape = by_pixels(layer, x)
    assert hw_shape == expected_shape == (-(-height // patch), -(-width // patch))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    grad = torch.randn_like(expected)
    inputs = [x, *layer.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@given(height=st.integers(1, 7), width=st.integers(1, 7), num_prefix=st.integers(0, 2))
def test_tokens_of_a_grid_are_a_map_and_prefix_tokens_go_their_own_way(height, width, num_prefix):
    layer = randomized(ShiftedPatchTokenization(3, 5, 2, prefix=True))
    x = torch.randn(2, 3, height, width)
    prefix = torch.randn(2, num_prefix, 3)
    tokens, hw_shape = layer(torch.cat([prefix, x.flatten(2).transpose(1, 2)], dim=1), (height, width))
    expected, expected_shape = layer(x)
    assert hw_shape == expected_shape
    torch.testing.assert_close(tokens[:, num_prefix:], expected)
    torch.testing.assert_close(tokens[:, :num_prefix], layer.prefix_linear(prefix))


def test_shifted_copies_of_a_map():
    x = torch.randn(2, 3, 7, 5)
    copies = shift_patches(x, 2).unflatten(1, (5, 3)).unbind(1)
    assert torch.equal(copies[0], x)
    for copy, rows, columns in zip(copies[1:], (2, 2, -2, -2), (2, -2, 2, -2), strict=True):
        rolled = torch.roll(x, (rows, columns), (2, 3))
        inside = torch.ones(7, 5, dtype=torch.bool)
        inside[slice(None, 2) if rows > 0 else slice(-2, None)] = False
        inside[:, slice(None, 2) if columns > 0 else slice(-2, None)] = False
        assert torch.equal(copy, rolled * inside)


def test_shift_may_exceed_the_map():
    copies = shift_patches(torch.ones(1, 1, 2, 3), 4)
    assert torch.count_nonzero(copies[:, 1:]) == 0


def test_gradients_are_right():
    layer = ShiftedPatchTokenization(2, 3, 3, prefix=True, dtype=torch.float64)
    x = torch.randn(1, 1 + 4 * 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: layer(t, (4, 5))[0], x)
    assert torch.autograd.gradgradcheck(lambda t: layer(t, (4, 5))[0], x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_runs_under_autocast(dtype):
    layer = ShiftedPatchTokenization(3, 8, 4)
    x = torch.randn(2, 3, 10, 14)
    with torch.autocast("cpu", dtype):
        tokens, _ = layer(x)
        tokens.float().sum().backward()
    assert tokens.dtype == dtype
    torch.testing.assert_close(tokens.float(), layer(x)[0], rtol=0.05, atol=0.05)
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_compiles_without_a_break():
    layer = ShiftedPatchTokenization(3, 8, 4, prefix=True)
    x = torch.randn(2, 1 + 6 * 5, 3)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, (6, 5))[0], layer(x, (6, 5))[0])


def test_start_of_the_weights():
    layer = randomized(ShiftedPatchTokenization(8, 64, 4, prefix=True))
    layer.init_weights()
    assert torch.equal(layer.patch_norm.weight, torch.ones(640))
    for linear in (layer.patch_linear, layer.prefix_linear):
        assert 0.018 < linear.weight.std() < 0.022
        assert torch.count_nonzero(linear.bias) == 0


def test_repr_names_what_it_does():
    assert "3, 8, patch_size=5, shift=2" in repr(ShiftedPatchTokenization(3, 8, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ShiftedPatchTokenization(3, 8, 1), "expected a shift of at least 1 pixel, got 0: use patches of 2"),
        (lambda: ShiftedPatchTokenization(3, 0, 4), "expected dim to be a positive integer, got 0"),
        (lambda: ShiftedPatchTokenization(3, 8, (4, 4)), r"expected patch_size to be a positive integer, got \(4, 4\)"),
        (
            lambda: ShiftedPatchTokenization(3, 8, 4, eps=-1),
            "expected eps to be a number from 0, got -1: take a small",
        ),
        (lambda: shift_patches(torch.ones(1, 1, 2, 2), 0), "expected a shift of at least 1 pixel, got 0"),
        (lambda: shift_patches(torch.ones(1, 2, 2), 1), r"expected x of shape \(B, C, H, W\), got \(1, 2, 2\)"),
        (
            lambda: ShiftedPatchTokenization(3, 8, 4)(torch.ones(1, 4, 8, 8)),
            r"expected 3 channels, got x of shape \(1, 4, 8, 8\)",
        ),
        (
            lambda: ShiftedPatchTokenization(3, 8, 4)(torch.ones(1, 65, 3), (8, 8)),
            r"exactly 64 tokens for hw_shape=\(8, 8\), got x of shape \(1, 65, 3\): .* prefix=True",
        ),
        (
            lambda: ShiftedPatchTokenization(3, 8, 4, prefix=True)(torch.ones(1, 63, 3), (8, 8)),
            r"at least 64 tokens for hw_shape=\(8, 8\), got x of shape \(1, 63, 3\)",
        ),
    ],
)
def test_errors_name_the_fault(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_empty_batch_passes():
    assert ShiftedPatchTokenization(3, 8, 4)(torch.empty(0, 20, 3), (4, 5))[0].shape == (0, 2, 8)
