"""The Triton kernels on a real device."""

import copy

import pytest
import torch
from dense_dtn import randomize

from dtn_det.layers import DTN
from dtn_det.layers.kernels import gpu, operator
from dtn_det.layers.plain import DTNOptions, DTNParameters, dynamic_token_norm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.is_available() and not gpu.status().available, reason=f"Triton: {gpu.status().detail}"
    ),
]

# Batch, height, width, channels, groups: Swin-T's stages at 800 x 1344, odd ones, and groups of 1 and of many channels.
SHAPES = [
    (1, 200, 336, 96, 3),
    (2, 100, 168, 192, 6),
    (2, 50, 84, 384, 12),
    (2, 25, 42, 768, 24),
    (3, 7, 5, 6, 3),
    (2, 14, 14, 384, 1),
    (1, 1, 700, 40, 8),
    (1, 9, 13, 15, 15),
    (2, 56, 56, 64, 4),
]


def leaves(shape, dtype=torch.float32, only_var=False, kernel_scale=0.3):
    batch, height, width, channels, groups = shape
    parameters = {
        "coefficients": kernel_scale * torch.randn(groups, 3),
        "mean_gate": None if only_var else torch.randn(groups),
        "var_gate": torch.randn(groups),
        "weight": torch.randn(channels),
        "bias": torch.randn(channels),
    }
    x = torch.randn(batch, height, width, channels).to(dtype)
    return [None if t is None else t.cuda().requires_grad_() for t in (x, *parameters.values())]


def run(tensors, grad_y, head_rms=True, unbiased=True):
    """The kernels: the output and all gradients."""
    x, coefficients, mean_gate, *_ = tensors
    assert operator.is_usable(x, coefficients.shape[0], head_rms, mean_gate is None)
    hw_shape = (x.shape[1], x.shape[2])
    options = DTNOptions(1e-5, head_rms, unbiased)
    y = operator.dynamic_token_norm(x, DTNParameters(*tensors[1:]), options, grad_y.dtype, hw_shape)
    return [y.detach(), *torch.autograd.grad(y, [t for t in tensors if t is not None], grad_y)]


def check(tensors, grad_y, tolerance, head_rms=True, unbiased=True):
    exact = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    y = dynamic_token_norm(exact[0], DTNParameters(*exact[1:]), DTNOptions(1e-5, head_rms, unbiased))
    wanted = [y.detach(), *torch.autograd.grad(y, [t for t in exact if t is not None], grad_y.double())]
    for i, (got, want) in enumerate(zip(run(tensors, grad_y, head_rms, unbiased), wanted, strict=True)):
        allowed = max(tolerance, torch.finfo(got.dtype).eps)
        assert (got.double() - want).abs().max() <= allowed * want.abs().max(), f"tensor {i}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_the_plain_form(shape, dtype):
    check(leaves(shape, dtype), torch.randn(shape[:4], device="cuda"), 1e-4)


@pytest.mark.parametrize("only_var", [False, True])
@pytest.mark.parametrize("head_rms", [False, True])
@pytest.mark.parametrize("unbiased", [False, True])
def test_options(head_rms, unbiased, only_var):
    shape = (2, 19, 23, 96, 3)
    check(leaves(shape, only_var=only_var), torch.randn(shape[:4], device="cuda"), 1e-5, head_rms, unbiased)


@pytest.mark.parametrize("kernel_scale", [0.0, 0.01, 1.0, 10.0])
def test_kernels_of_any_form(kernel_scale):
    shape = (2, 31, 37, 64, 4)
    check(leaves(shape, kernel_scale=kernel_scale), torch.randn(shape[:4], device="cuda"), 1e-4)


def test_two_runs_are_equal():
    shape = SHAPES[1]
    tensors, grad_y = leaves(shape, torch.float16), torch.randn(shape[:4], device="cuda")
    for first, second in zip(run(tensors, grad_y), run(tensors, grad_y), strict=True):
        assert torch.equal(first, second)


def test_nothing_waits_for_the_device():
    shape = SHAPES[2]
    tensors, grad_y = leaves(shape, torch.float16), torch.randn(shape[:4], device="cuda")
    run(tensors, grad_y)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(tensors, grad_y)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_memory_of_a_pass_is_a_few_maps():
    shape = SHAPES[0]
    tensors, grad_y = leaves(shape), torch.randn(shape[:4], device="cuda")
    run(tensors, grad_y)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run(tensors, grad_y)
    assert torch.cuda.max_memory_allocated() - before <= 8 * grad_y.numel() * 4


def test_the_layer_agrees_with_the_cpu_and_is_the_same_under_autocast():
    layer = DTN(96, 3)
    randomize(layer, 0, 0.3)
    x = torch.randn(2, 20 * 33, 96)
    expected = layer(x, (20, 33))
    on_device = copy.deepcopy(layer).cuda()
    torch.testing.assert_close(on_device(x.cuda(), (20, 33)).cpu(), expected, rtol=1e-3, atol=1e-4)
    with torch.autocast("cuda", dtype=torch.float16):
        y = on_device(x.half().cuda(), (20, 33))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.cpu(), layer(x.half().float(), (20, 33)), rtol=1e-3, atol=1e-4)


def test_compile_fullgraph():
    layer = DTN(48, 3).cuda()
    compiled = torch.compile(layer, fullgraph=True)
    for height, width in ((4, 6), (5, 7)):
        x = torch.randn(2, height * width, 48, device="cuda", requires_grad=True)
        y, expected = compiled(x, (height, width)), layer(x, (height, width))
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
        grad_y = torch.randn_like(y)
        ours, theirs = (torch.autograd.grad(out, [x, *layer.parameters()], grad_y) for out in (y, expected))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    torch._dynamo.reset()


def test_in_a_cuda_graph():
    layer = DTN(96, 3).cuda()
    x = torch.randn(2, 14, 14, 96, device="cuda")
    with torch.no_grad():
        expected = layer(x)
        graph, static = torch.cuda.CUDAGraph(), x.clone()
        with torch.cuda.graph(graph):
            y = layer(static)
        static.copy_(2 * x + 1)
        graph.replay()
        torch.testing.assert_close(y, layer(2 * x + 1))
        assert not torch.equal(y, expected)


def test_another_device_than_the_current_one():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    layer = DTN(96, 3).to("cuda:1")
    x = torch.randn(2, 14, 14, 96)
    torch.testing.assert_close(layer(x.to("cuda:1")).cpu(), copy.deepcopy(layer).cpu()(x), rtol=1e-3, atol=1e-4)
