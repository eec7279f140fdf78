"""The operator around the kernels: what PyTorch asks of it, dtypes, and gradients of gradients."""

import pytest
import torch

from dtn_det.layers import DTN, plain
from dtn_det.layers.kernels import cpu, operator

pytestmark = pytest.mark.skipif(not cpu.status().available, reason=f"compiled kernels: {cpu.status().detail}")


def problem(dtype=torch.float64, low=None, only_var=False):
    """Leaves: the input, in ``low`` if given, and the parameters."""
    groups, channels = 2, 6
    x = torch.randn(2, 3, 4, channels, dtype=low or dtype)
    shapes = ((groups, 3), None if only_var else (groups,), (groups,), (channels,), (channels,))
    parameters = [None if shape is None else torch.randn(shape, dtype=dtype) for shape in shapes]
    return [None if tensor is None else tensor.requires_grad_() for tensor in (x, *parameters)]


def run(tensors, out_dtype):
    return operator.dynamic_token_norm(
        *tensors, eps=1e-5, head_rms=True, unbiased=True, out_dtype=out_dtype, hw_shape=(3, 4)
    )


@pytest.mark.parametrize("only_var", [False, True])
def test_what_pytorch_asks_of_an_operator(only_var):
    torch.library.opcheck(
        operator._forward, (*problem(torch.float32, only_var=only_var), 1e-5, True, True, torch.float32, 3, 4)
    )
    x, *parameters = problem(torch.float32, torch.bfloat16, only_var=only_var)
    torch.library.opcheck(operator._forward, (x, *parameters, 1e-5, True, True, torch.float32, 3, 4))


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("keep", [False, True])
def test_low_precision_input_is_computed_in_float32(low, keep):
    tensors = problem(torch.float32, low)
    out_dtype = low if keep else torch.float32
    y = run(tensors, out_dtype)
    grad_y = torch.randn(y.shape).to(out_dtype)
    gradients = torch.autograd.grad(y, tensors, grad_y)
    assert y.dtype == out_dtype
    assert [g.dtype for g in gradients] == [low, *5 * [torch.float32]]

    full = [tensor.detach().float().requires_grad_() for tensor in tensors]
    expected = plain.dynamic_token_norm(*full, eps=1e-5, head_rms=True, unbiased=True)
    eps = torch.finfo(low).eps
    torch.testing.assert_close(y.float(), expected, rtol=eps if keep else 1e-4, atol=eps if keep else 1e-4)
    for name, got, want in zip(
        ("x", "coefficients", "mean_gate", "var_gate", "weight", "bias"),
        gradients,
        torch.autograd.grad(expected, full, grad_y.float()),
        strict=True,
    ):
        torch.testing.assert_close(
            got.float(),
            want,
            rtol=eps if name == "x" else 1e-3,
            atol=eps if name == "x" else 1e-3,
            msg=lambda m, n=name: n + m,
        )


@pytest.mark.parametrize("only_var", [False, True])
def test_gradients_of_gradients(only_var):
    tensors = problem(only_var=only_var)
    wanted = [tensor for tensor in tensors if tensor is not None]

    def function(*leaves):
        values = iter(leaves)
        return run([None if tensor is None else next(values) for tensor in tensors], torch.float64)

    assert torch.autograd.gradcheck(function, wanted)
    assert torch.autograd.gradgradcheck(function, wanted, fast_mode=True)


def test_gradients_of_gradients_of_a_low_precision_input():
    tensors = problem(torch.float32, torch.float16)
    y = run(tensors, torch.float32)
    (grad_x,) = torch.autograd.grad(y.square().sum(), tensors[0], create_graph=True)
    assert grad_x.dtype == torch.float16
    (second,) = torch.autograd.grad(grad_x.float().square().sum(), tensors[1])
    assert torch.isfinite(second).all()
    assert second.abs().max() > 0


@pytest.mark.parametrize("num_prefix", [0, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_for_many_outputs_at_once(num_prefix, masked):
    """What `jacobian(..., vectorize=True)` asks for."""
    layer = DTN(6, 2, dtype=torch.float64)
    x = torch.randn(2, num_prefix + 5, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(num_prefix + 5).expand(2, -1) < num_prefix + 4 if masked else None
    y = layer(x, (1, 5), mask)
    grad_y = torch.randn(3, *y.shape, dtype=torch.float64)
    wanted = [x, *layer.parameters()]
    together = torch.autograd.grad(y, wanted, grad_y, is_grads_batched=True, retain_graph=True)
    one_by_one = zip(*(torch.autograd.grad(y, wanted, one, retain_graph=True) for one in grad_y), strict=True)
    for got, want in zip(together, one_by_one, strict=True):
        assert not got.requires_grad
        torch.testing.assert_close(got, torch.stack(want))


def test_gradients_of_gradients_without_prefix_warn_of_nothing(recwarn):
    tensors = problem()
    torch.autograd.grad(run(tensors, torch.float64).sum(), tensors[0], create_graph=True)
    assert not recwarn.list


def test_negative_views_are_read_as_such():
    """The imaginary part of a conjugate is a view whose sign is not in its memory."""
    layer, x = DTN(6, 2), torch.randn(2, 4, 6)
    negative = torch._neg_view(x)
    assert torch.equal(layer(negative), layer(-x))
    (got,) = torch.autograd.grad(layer(x.requires_grad_()), x, negative.detach())
    (want,) = torch.autograd.grad(layer(x), x, -x.detach())
    assert torch.equal(got, want)


def test_parameters_on_another_device_are_an_error():
    message = "expected tokens and parameters of DTN on one device, got cpu and meta: move the model"
    with pytest.raises(ValueError, match=message):
        DTN(6, 2, device="meta")(torch.randn(2, 4, 6))
