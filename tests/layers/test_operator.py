"""The operator around the kernels: what PyTorch asks of it, dtypes, tokens before the grid, gradients of gradients."""

import pytest
import torch
from dense_dtn import randomize
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.layers import DTN, plain
from dtn_det.layers.kernels import check_tensors, cpu, operator
from dtn_det.layers.plain import DTNOptions, DTNParameters

pytestmark = pytest.mark.skipif(not cpu.status().available, reason=f"compiled kernels: {cpu.status().detail}")

GRID = (3, 4)
OPTIONS = DTNOptions(1e-5, True, True)
only_var_or_not = pytest.mark.parametrize("only_var", [False, True])
with_or_without_prefix = pytest.mark.parametrize("num_prefix", [0, 2])


def problem(dtype=torch.float64, low=None, only_var=False, num_prefix=0, batch=2):
    """Leaves: the input, in ``low`` if given, and the parameters."""
    groups, channels = 2, 6
    shape = (batch, *GRID, channels) if num_prefix == 0 else (batch, num_prefix + GRID[0] * GRID[1], channels)
    x = torch.randn(shape, dtype=low or dtype)
    shapes = ((groups, 3), None if only_var else (groups,), (groups,), (channels,), (channels,))
    parameters = [None if shape is None else torch.randn(shape, dtype=dtype) for shape in shapes]
    return [None if tensor is None else tensor.requires_grad_() for tensor in (x, *parameters)]


def run(tensors, out_dtype):
    return operator.dynamic_token_norm(tensors[0], DTNParameters(*tensors[1:]), OPTIONS, out_dtype, GRID)


@only_var_or_not
@with_or_without_prefix
def test_what_pytorch_asks_of_an_operator(only_var, num_prefix):
    low = torch.bfloat16 if only_var else None
    tensors = problem(torch.float32, low, only_var, num_prefix)
    torch.library.opcheck(operator._forward, (*tensors, *OPTIONS, torch.float32, *GRID))


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

    x, *parameters = (tensor.detach().float().requires_grad_() for tensor in tensors)
    expected = plain.dynamic_token_norm(x, DTNParameters(*parameters), OPTIONS)
    eps = torch.finfo(low).eps
    torch.testing.assert_close(y.float(), expected, rtol=eps if keep else 1e-4, atol=eps if keep else 1e-4)
    wanted = torch.autograd.grad(expected, [x, *parameters], grad_y.float())
    for name, got, want in zip(("x", *DTNParameters._fields), gradients, wanted, strict=True):
        tolerance = eps if name == "x" else 1e-3
        torch.testing.assert_close(got.float(), want, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: n + m)


@only_var_or_not
@with_or_without_prefix
def test_gradients_of_gradients(only_var, num_prefix):
    tensors = problem(only_var=only_var, num_prefix=num_prefix, batch=1)
    wanted = [tensor for tensor in tensors if tensor is not None]

    def function(*leaves):
        values = iter(leaves)
        given = [None if tensor is None else next(values) for tensor in tensors]
        if num_prefix:  # past the shortcut around PyTorch's dispatcher
            return operator._forward(*given, *OPTIONS, torch.float64, *GRID)
        return run(given, torch.float64)

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


@with_or_without_prefix
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


@pytest.mark.parametrize("name", ["weight", "bias", "var_norm_weight"])
def test_parameters_of_another_length_are_refused(name):
    layer = DTN(24, 3)
    setattr(layer, name, torch.nn.Parameter(torch.ones(2)))
    with pytest.raises(ValueError, match=r"of DTN to hold (24|3) values of torch.float32, got 2 of torch.float32"):
        layer(torch.randn(2, 4, 24))


def test_a_gradient_of_another_size_is_refused():
    x, *parameters = problem()
    with pytest.raises(ValueError, match="expected the gradient of DTN's output to have the shape"):
        check_tensors(x, DTNParameters(*parameters), x[:1])


def parts(norm, x, grid):
    """The plain form of the prefix, and the grid by itself."""
    count = x.shape[1] - grid[0] * grid[1]
    return torch.cat([norm._normalize_prefix(x[:, :count]), norm(x[:, count:], grid)], dim=1)


@given(
    batch=st.integers(1, 3),
    count=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    options=st.fixed_dictionaries({name: st.booleans() for name in ("head_rms", "unbiased", "only_var")}),
)
def test_with_a_prefix_outputs_and_gradients_are_those_of_the_parts(batch, count, grid, options):
    norm = DTN(6, 2, dtype=torch.float64, **options)
    randomize(norm)
    x = torch.randn(batch, count + grid[0] * grid[1], 6, dtype=torch.float64, requires_grad=True)
    assert operator.is_usable(x, 2, options["head_rms"], options["only_var"])
    grad_y = torch.randn_like(x)
    leaves = [x, *norm.parameters()]
    outputs = norm(x, grid), parts(norm, x, grid)
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    gradients = [torch.autograd.grad(y, leaves, grad_y, allow_unused=True) for y in outputs]
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)


def test_a_prefix_in_low_precision_and_in_any_strides():
    norm = DTN(6, 2)
    randomize(norm)
    x = torch.randn(6, 14, 2).permute(2, 1, 0)
    torch.testing.assert_close(norm(x, GRID), parts(norm, x, GRID), rtol=1e-4, atol=1e-4)
    low = norm(x.bfloat16(), GRID)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), norm(x, GRID), rtol=0.05, atol=0.05)


def test_with_a_prefix_masks_go_the_other_way():
    norm = DTN(6, 2, dtype=torch.float64)
    randomize(norm)
    x = torch.randn(2, 13, 6, dtype=torch.float64)
    mask = torch.ones(2, 13, dtype=torch.bool)
    torch.testing.assert_close(norm(x, GRID, mask), norm(x, GRID), rtol=1e-9, atol=1e-9)
