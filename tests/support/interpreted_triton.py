"""The Triton kernels on CPU tensors: run by test_triton_kernels.py in a process where TRITON_INTERPRET is 1.

The name keeps this file from being collected on its own: Triton decides when it is imported.
"""

import numpy as np
import pytest
import torch

from dtn_det.layers.kernels import gpu
from dtn_det.layers.plain import DTNOptions, DTNParameters, dynamic_token_norm

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, for values that a mask takes out

slow = pytest.mark.slow

NARROW_TILES = 64


def problem(shape, coefficients=None, only_var=False, dtype=torch.float32, mean=0.0):
    """Input, parameters in float32 and the output's gradient."""
    batch, height, width, channels, groups = shape
    x = (torch.randn(batch, height, width, channels) + mean).to(dtype)
    if coefficients is None:
        coefficients = 0.7 * torch.randn(groups, 3)
        coefficients[:, 2] = -coefficients[:, 2].abs() - 0.1
    else:
        coefficients = torch.tensor(coefficients, dtype=torch.float32).expand(groups, 3)
    gates = None if only_var else torch.randn(groups)
    parameters = [coefficients, gates, torch.randn(groups), torch.randn(channels), torch.randn(channels)]
    return [x, *parameters], torch.randn(batch, height, width, channels)


def kernels(inputs, grad_y, head_rms=True, unbiased=True, out_dtype=torch.float32):
    layer = inputs[0], DTNParameters(*inputs[1:]), DTNOptions(1e-5, head_rms, unbiased)
    return [gpu.forward(*layer, out_dtype), *gpu.backward(grad_y.to(out_dtype), *layer)]


def plain_form(inputs, grad_y, head_rms=True, unbiased=True):
    """The plain form in float64."""
    leaves = [None if tensor is None else tensor.double().requires_grad_() for tensor in inputs]
    y = dynamic_token_norm(leaves[0], DTNParameters(*leaves[1:]), DTNOptions(1e-5, head_rms, unbiased))
    wanted = [leaf for leaf in leaves if leaf is not None]
    gradients = iter(torch.autograd.grad(y, wanted, grad_y.double()))
    return [y.detach(), *(torch.zeros(0) if leaf is None else next(gradients) for leaf in leaves)]


def check(got, want, tolerance=2e-6, **tolerances):
    """Each tensor relative to its largest value; ``tolerances``: for single ones, by name."""
    names = ("y", "x", "coefficients", "mean_gate", "var_gate", "weight", "bias")
    for name, actual, expected in zip(names, got, want, strict=True):
        assert actual.shape == expected.shape, name
        allowed = tolerances.get(name, tolerance)
        largest = expected.abs().max() if expected.numel() else 1.0
        torch.testing.assert_close(
            actual.double(), expected.double(), rtol=0, atol=allowed * float(largest), msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    ("head_rms", "only_var"),
    [(True, False), (False, True), pytest.param(True, True, marks=slow), pytest.param(False, False, marks=slow)],
)
def test_options(head_rms, only_var):
    inputs, grad_y = problem((1, 3, 5, 10, 2), only_var=only_var)
    unbiased = head_rms
    check(kernels(inputs, grad_y, head_rms, unbiased), plain_form(inputs, grad_y, head_rms, unbiased))


@pytest.mark.parametrize(
    "shape",  # batch, height, width, channels, groups
    [
        (2, 3, 6, 5, 1),
        (1, 1, 13, 6, 2),
        (2, 1, 1, 4, 2),
        pytest.param((2, 3, 7, 12, 3), marks=slow),
        pytest.param((1, 13, 1, 6, 2), marks=slow),
    ],
)
def test_tiles_that_span_rows_and_images(shape, monkeypatch):
    monkeypatch.setattr(gpu, "TILE", NARROW_TILES)
    monkeypatch.setattr(gpu, "TOKEN_TILE", NARROW_TILES)
    inputs, grad_y = problem(shape)
    check(kernels(inputs, grad_y), plain_form(inputs, grad_y))


@pytest.mark.parametrize(
    "coefficients",
    [
        (0.0, 0.0, 0.0),  # flat
        (0.2, -0.1, 0.3),  # growing towards both ends
        (30.0, -11.0, -3.0),  # far away and narrow
        pytest.param((0.5, -0.3, 0.0), marks=slow),  # exponential
        pytest.param((0.01, 0.02, -0.002), marks=slow),  # wide
    ],
)
def test_kernels_of_any_form(coefficients):
    inputs, grad_y = problem((1, 4, 9, 4, 1), coefficients)
    check(kernels(inputs, grad_y), plain_form(inputs, grad_y))


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=slow)])
def test_low_precision_input_is_computed_in_float32(dtype):
    inputs, grad_y = problem((1, 4, 5, 12, 2), dtype=dtype, mean=3.0)
    got = kernels(inputs, grad_y)
    assert [tensor.dtype for tensor in got] == [torch.float32, dtype, *5 * [torch.float32]]
    check(got, plain_form(inputs, grad_y), x=torch.finfo(dtype).eps)


def test_low_precision_output():
    inputs, grad_y = problem((1, 4, 5, 12, 2), dtype=torch.float16)
    grad_y = grad_y.half().float()
    got = kernels(inputs, grad_y, out_dtype=torch.float16)
    assert got[0].dtype == torch.float16
    eps = torch.finfo(torch.float16).eps
    check(got, plain_form(inputs, grad_y), x=eps, y=eps)


def test_large_means_cost_no_accuracy():
    # The input itself resolves 1e-4 of its spread; the statistics must not add to that.
    inputs, grad_y = problem((1, 5, 6, 16, 1), mean=1000.0)
    check(kernels(inputs, grad_y, head_rms=False), plain_form(inputs, grad_y, head_rms=False), 1e-3)


def test_steep_ramp():
    # The local mean changes by 10 spreads from token to token.
    inputs, grad_y = problem((1, 12, 12, 4, 1), (0.0, 0.0, -1.0))
    inputs[0] += 10 * torch.arange(144.0).reshape(1, 12, 12, 1)
    check(kernels(inputs, grad_y, head_rms=False), plain_form(inputs, grad_y, head_rms=False), 1e-4)


def test_a_constant_map_has_no_variance_over_its_neighbours():
    inputs, grad_y = problem((1, 4, 4, 8, 2))
    inputs[0] = 7.3 * torch.ones(1, 4, 4, 1) + torch.randn(8)
    inputs[3] = torch.full((2,), -50.0)  # the variance over the neighbours alone
    y = kernels(inputs, grad_y, head_rms=False)[0]
    own = inputs[0].mean(-1, keepdim=True)
    share = inputs[2].sigmoid().repeat_interleave(4)
    expected = share * (inputs[0] - own) / 1e-5**0.5 * inputs[4] + inputs[5]
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, pytest.param(np.inf, marks=slow)])
def test_non_finite_coefficients_reach_the_output(value):
    inputs, grad_y = problem((1, 2, 3, 8, 2), (value, value, value))
    y, grad_x, *_ = kernels(inputs, grad_y)
    assert not torch.isfinite(y).any()
    assert not torch.isfinite(grad_x).any()


def test_views_are_read_in_the_right_order():
    inputs, grad_y = problem((2, 2, 3, 4, 2))
    views = [None if t is None else t.transpose(0, -1).contiguous().transpose(0, -1) for t in inputs]
    got = kernels(views, grad_y.transpose(1, 2).contiguous().transpose(1, 2))
    for actual, expected in zip(got, kernels(inputs, grad_y), strict=True):
        assert torch.equal(actual, expected)
