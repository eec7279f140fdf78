"""DTN against the authors' vectors, the dense definition, LayerNorm and instance norm."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dense_dtn import dense_dtn, dense_matrix, randomize, relative_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtn_det.layers import DTN
from dtn_det.layers.positions import axis_attention, local_coefficients

fixture_ok = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", ["square4_g3", "square7_g4", "square14_g6", "square8_g2_only_var"])
def test_agrees_with_the_authors_module(shared_dir, name):
    data = np.load(shared_dir / "parity" / f"{name}.npz")
    meta = json.loads(str(data["meta"]))
    x = torch.tensor(data["x"], requires_grad=True)
    layer = DTN(x.shape[-1], meta["groups"], meta["eps"], only_var=meta["only_var"], dtype=torch.float64)
    state = {k.removeprefix("param."): torch.tensor(data[k]) for k in data if k.startswith("param.")}
    layer.load_state_dict(state, strict=True)
    y = layer(x, tuple(meta["grid"]))
    y.backward(torch.tensor(data["grad_y"]))
    assert relative_error(y.detach(), torch.tensor(data["y"])) < 1e-9
    assert relative_error(x.grad, torch.tensor(data["grad_x"])) < 1e-9
    for parameter_name, parameter in layer.named_parameters():
        expected = torch.tensor(data[f"grad.{parameter_name}"])
        if parameter_name == "pos_proj.bias":  # cancels: rounding noise in the vectors, exactly 0 here
            assert expected.abs().max() < 1e-12
            assert torch.count_nonzero(parameter.grad) == 0
        else:
            assert relative_error(parameter.grad, expected) < 1e-9, parameter_name


@fixture_ok
@given(
    batch=st.integers(1, 2),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    groups=st.integers(1, 4),
    depth=st.integers(1, 19),
    kernel_scale=st.sampled_from([0.0, 0.01, 0.3, 1.0, 10.0, 100.0]),
    head_rms=st.booleans(),
    unbiased=st.booleans(),
    only_var=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_dense_definition(
    backend, batch, height, width, groups, depth, kernel_scale, head_rms, unbiased, only_var, seed
):
    channels = groups * depth
    unbiased = unbiased and channels > 1
    layer = DTN(channels, groups, head_rms=head_rms, unbiased=unbiased, only_var=only_var, dtype=torch.float64)
    randomize(layer, seed, kernel_scale)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, height * width, channels, generator=generator, dtype=torch.float64)
    x = 10 * x + torch.randn(channels, generator=generator, dtype=torch.float64)
    grad_y = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    results = []
    for function in (lambda t: layer(t, (height, width)), lambda t: dense_dtn(layer, t, height, width)):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        inputs = [leaf, *(p for n, p in layer.named_parameters() if n != "pos_proj.bias")]
        results.append([y.detach(), *torch.autograd.grad(y, inputs, grad_y)])
    scale = max(1.0, *(g.abs().max().item() for g in results[1][2:]))
    # A single channel can have no variance at all, and the slope of 1 / sqrt(var + eps) there, eps^-1.5 = 3e7,
    # magnifies the rounding of any summation order.
    tolerance = 1e-10 if depth > 1 else 1e-7
    (y, *gradients), (dense_y, *dense_gradients) = results
    assert relative_error(y, dense_y) < (1e-10 if depth > 1 else 1e-8)
    for ours, dense in zip(gradients, dense_gradients, strict=True):
        # Gradients that vanish (a one-token axis has no kernel) are compared on the scale of the others.
        assert (ours - dense).abs().max() <= tolerance * max(dense.abs().max().item(), scale)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    "coefficients", [(0, 0, -1e-3), (0, 0, 0), (0.02, -0.01, 0.01), (3, -2, 0), (0, 4, 0.5), (500, -80, -30)]
)
def test_equals_the_dense_definition_on_a_larger_map(coefficients):
    height, width = 23, 37
    layer = DTN(8, 2, dtype=torch.float64)
    randomize(layer, 1)
    with torch.no_grad():
        layer.pos_proj.weight[0] = torch.tensor(coefficients, dtype=torch.float64)
        layer.pos_proj.weight[1] = local_coefficients(1)[0]
    x = torch.randn(1, height * width, 8, dtype=torch.float64, requires_grad=True)
    ours, dense = layer(x, (height, width)), dense_dtn(layer, x, height, width)
    assert relative_error(ours.detach(), dense.detach()) < 1e-10
    grad_y = torch.randn_like(ours)
    inputs = [x, layer.pos_proj.weight]
    for a, b in zip(torch.autograd.grad(ours, inputs, grad_y), torch.autograd.grad(dense, inputs, grad_y), strict=True):
        assert relative_error(a, b) < 1e-10


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("only_var", [False, True])
def test_gradcheck(only_var):
    layer = DTN(6, 2, only_var=only_var, dtype=torch.float64)
    randomize(layer, 3, 0.3)
    x = torch.randn(2, 12, 6, dtype=torch.float64, requires_grad=True)
    names = [n for n, _ in layer.named_parameters()]

    def function(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, (3, 4)))

    assert torch.autograd.gradcheck(function, (x, *layer.parameters()))


@pytest.mark.usefixtures("backend")
def test_gradients_of_gradients():
    layer = DTN(4, 2, dtype=torch.float64)
    randomize(layer, 3, 0.3)
    x = torch.randn(1, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: layer(t, (2, 3)), (x,))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("shape", [(2, 35, 24), (2, 5, 7, 24)])
def test_gates_at_one_give_layer_norm(shape):
    layer = DTN(24, 3, head_rms=False, unbiased=False, dtype=torch.float64)
    randomize(layer, 0)
    with torch.no_grad():
        layer.mean_norm_weight.fill_(50)
        layer.var_norm_weight.fill_(50)
    x = torch.randn(shape, dtype=torch.float64)
    expected = F.layer_norm(x, (24,), layer.weight, layer.bias, layer.eps)
    torch.testing.assert_close(layer(x, (5, 7)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("backend")
def test_gates_at_zero_and_a_flat_kernel_give_instance_norm():
    layer = DTN(12, 3, head_rms=False, dtype=torch.float64)
    with torch.no_grad():
        layer.pos_proj.weight.zero_()
        layer.mean_norm_weight.fill_(-800)
        layer.var_norm_weight.fill_(-800)
    x = torch.randn(2, 6, 5, 12, dtype=torch.float64)
    expected = F.instance_norm(x.permute(0, 3, 1, 2), eps=layer.eps).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-10)


def test_axis_matrices_multiply_to_the_dense_one():
    coefficients = torch.randn(3, 3, dtype=torch.float64)
    a_x, a_y, a_d = coefficients.unbind(1)
    rows, cols = axis_attention(a_y, a_d, 4), axis_attention(a_x, a_d, 6)
    product = torch.einsum("gij,gkl->gikjl", rows, cols).reshape(3, 24, 24)
    torch.testing.assert_close(product, dense_matrix(coefficients, 4, 6)[0], rtol=1e-12, atol=1e-15)


def test_local_coefficients_define_every_group():
    coefficients = local_coefficients(6)  # a 2 x 2 lattice and two groups past it
    assert coefficients[:, 2].tolist() == [-1.0] * 6
    assert coefficients[:, 0].tolist() == [-1, 1, -1, 1, 0, 0]
    assert coefficients[:, 1].tolist() == [-1, -1, 1, 1, 0, 0]
    assert torch.equal(local_coefficients(9, 0.5), local_coefficients(9) / 2)
    # Each kernel peaks at its offset: column 0 of a 3 x 3 lattice looks one token to the right of the source.
    peak = axis_attention(local_coefficients(9)[:, 0], local_coefficients(9)[:, 2], 9)[:, 4].argmax(-1)
    assert peak.tolist() == [5, 4, 3] * 3


@pytest.mark.usefixtures("backend")
def test_prefix_tokens_get_layer_norm_statistics_and_disturb_nobody():
    layer = DTN(12, 3, dtype=torch.float64)
    randomize(layer, 2)
    grid = torch.randn(2, 20, 12, dtype=torch.float64)
    prefix = torch.randn(2, 2, 12, dtype=torch.float64)
    y = layer(torch.cat([prefix, grid], dim=1), (4, 5))
    torch.testing.assert_close(y[:, 2:], layer(grid, (4, 5)))
    grouped = prefix.unflatten(-1, (3, 4))
    scaled = (grouped * (grouped.square().mean(-1, keepdim=True) + layer.eps).rsqrt()).flatten(-2)
    var, mean = torch.var_mean(scaled, -1, keepdim=True)
    expected = (scaled - mean) * (var + layer.eps).rsqrt() * layer.weight + layer.bias
    torch.testing.assert_close(y[:, :2], expected)


@fixture_ok
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 7),
    kernel_scale=st.sampled_from([0.0, 0.3, 2.0]),
    seed=st.integers(0, 999),
)
def test_mask_equals_the_dense_definition(height, width, kernel_scale, seed):
    layer = DTN(6, 2, dtype=torch.float64)
    randomize(layer, seed, kernel_scale)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, height * width, 6, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, height * width, generator=generator) < 0.6
    mask[:, 0] = True
    ours = layer(x, (height, width), mask)
    dense = dense_dtn(layer, x, height, width, mask)
    assert relative_error(ours.detach(), dense.detach()) < 1e-8


@pytest.mark.parametrize("kernel_scale", [0.3, 30.0])
def test_padding_a_sequence_changes_nothing(kernel_scale):
    layer = DTN(8, 2, dtype=torch.float64)
    randomize(layer, 5, kernel_scale)
    x = torch.randn(2, 11, 8, dtype=torch.float64)
    padded = torch.cat([x, 1e6 * torch.randn(2, 9, 8, dtype=torch.float64)], dim=1)
    mask = torch.arange(20).expand(2, 20) < 11
    padded.requires_grad_()
    y = layer(padded, (1, 20), mask)
    torch.testing.assert_close(y[:, :11], layer(x, (1, 11)), rtol=1e-9, atol=1e-9)
    y[:, :11].sum().backward()
    assert torch.count_nonzero(padded.grad[:, 11:]) == 0
    assert torch.isfinite(padded.grad).all()


@pytest.mark.parametrize("padding", [float("nan"), float("inf"), 1e30])
def test_padding_of_any_value_stays_out_of_the_valid_tokens(padding):
    layer = DTN(6, 2, dtype=torch.float64)
    randomize(layer, 0)
    x = torch.randn(2, 20, 6, dtype=torch.float64)
    mask = torch.arange(20).expand(2, 20) < 11
    padded = torch.where(mask[..., None], x, padding).requires_grad_()
    y = layer(padded, (4, 5), mask)
    torch.testing.assert_close(y[mask], layer(x, (4, 5), mask)[mask])
    (gradient,) = torch.autograd.grad(y[mask].sum(), padded)
    assert gradient[mask].isfinite().all()


def test_mask_shapes_are_equivalent():
    layer = DTN(6, 2, dtype=torch.float64)
    x = torch.randn(2, 13, 6, dtype=torch.float64)  # one prefix token
    mask = torch.rand(2, 3, 4) < 0.7
    mask[:, 0, 0] = True
    with_prefix = torch.cat([torch.ones(2, 1, dtype=torch.bool), mask.flatten(1)], dim=1)
    y = layer(x, (3, 4), mask)
    torch.testing.assert_close(layer(x, (3, 4), mask.flatten(1)), y)
    torch.testing.assert_close(layer(x, (3, 4), with_prefix), y)


def test_layernorm_start_keeps_the_outputs_of_layer_norm():
    norm = torch.nn.LayerNorm(96)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    layer = DTN(96, 3, init="layernorm")
    missing, unexpected = layer.load_state_dict(norm.state_dict(), strict=False)
    assert unexpected == []
    assert set(missing) == {"mean_norm_weight", "var_norm_weight", "pos_proj.weight", "pos_proj.bias"}
    x = torch.randn(2, 8, 12, 96) * 3 + torch.randn(96)
    assert not layer.head_rms
    assert not layer.unbiased
    assert relative_error(layer(x), norm(x)) < 0.01


def test_subclass_of_layer_norm_with_the_specified_names():
    layer = DTN(12, 3)
    assert isinstance(layer, torch.nn.LayerNorm)
    assert set(layer.state_dict()) == {
        "weight", "bias", "mean_norm_weight", "var_norm_weight", "pos_proj.weight", "pos_proj.bias", "_extra_state",
    }  # fmt: skip
    assert set(DTN(12, 3, only_var=True).state_dict()) == set(layer.state_dict()) - {"mean_norm_weight"}
    assert not any(isinstance(m, torch.nn.Linear) for m in layer.modules())
