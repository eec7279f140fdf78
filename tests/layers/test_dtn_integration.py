"""DTN under the machinery around a model: mixed precision, compilation, checkpointing, export, several processes."""

import copy
import functools
import io
import subprocess
import sys
import textwrap

import pytest
import torch
from dense_dtn import randomize, relative_error
from torch.utils.checkpoint import checkpoint

from dtn_det.layers import DTN


class Block(torch.nn.Module):
    """A small residual block in the manner of a transformer's."""

    def __init__(self, channels: int = 24, groups: int = 3) -> None:
        super().__init__()
        self.norm = DTN(channels, groups)
        self.mlp = torch.nn.Linear(channels, channels)

    def forward(self, x, hw_shape):
        return x + self.mlp(self.norm(x, hw_shape))


class Backbone(torch.nn.Module):
    """Images in, feature maps out: two stages, the second at half the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Conv2d(3, 24, 4, 4)
        self.block1 = Block()
        self.down = torch.nn.Conv2d(24, 48, 2, 2)
        self.block2 = Block(48, 6)

    def forward(self, image):
        outs = []
        x = self.embed(image)
        for block, down in ((self.block1, self.down), (self.block2, None)):
            b, c, h, w = x.shape
            x = block(x.flatten(2).transpose(1, 2), (h, w)).transpose(1, 2).reshape(b, c, h, w)
            outs.append(x)
            if down is not None:
                x = down(x)
        return tuple(outs)


def gradients(layer, x, hw_shape, grad_y):
    leaf = x.clone().requires_grad_()
    layer(leaf, hw_shape).backward(grad_y)
    result = [leaf.grad, *(p.grad.clone() for p in layer.parameters())]
    layer.zero_grad()
    return result


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_rms", [True, False])
def test_low_precision_with_means_a_thousand_times_the_spread(dtype, head_rms):
    layer = DTN(32, 4, head_rms=head_rms)
    randomize(layer, 0, 0.3)
    exact = copy.deepcopy(layer).double()
    # Channel means of 1000 spreads; the spread itself is kept above the dtype's resolution.
    x = torch.randn(2, 63, 32) + 1000 * torch.randn(32).sign()
    x, grad_y = x.to(dtype), torch.randn(2, 63, 32)
    y = layer(x, (7, 9))
    expected = exact(x.double(), (7, 9))
    assert y.dtype == dtype
    assert torch.isfinite(y).all()
    assert relative_error(y.double(), expected) < 2 * torch.finfo(dtype).eps
    low = gradients(layer, x, (7, 9), grad_y.to(dtype))
    full = gradients(exact, x.double(), (7, 9), grad_y.to(dtype).double())
    for got, want, (name, _) in zip(low, full, [("x", None), *layer.named_parameters()], strict=True):
        assert torch.isfinite(got).all(), name
        if name != "pos_proj.bias":
            assert relative_error(got.double(), want) < 0.01, name


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_computes_in_float32(dtype):
    layer = DTN(32, 4)
    x = torch.randn(2, 63, 32) + 1000
    with torch.autocast("cpu", dtype=dtype):
        y = layer(x, (7, 9))
    torch.testing.assert_close(y, layer(x, (7, 9)), rtol=0, atol=0)


@pytest.mark.usefixtures("backend")
def test_float32_keeps_its_accuracy_on_a_steep_ramp():
    # A global centre does not help here: the local mean changes by 10 spreads from token to token.
    layer = DTN(8, 2, head_rms=False)
    with torch.no_grad():
        layer.mean_norm_weight.fill_(-50)
        layer.var_norm_weight.fill_(-50)
    x = 10 * torch.arange(400.0).reshape(1, 20, 20, 1) + torch.randn(1, 20, 20, 8)
    expected = copy.deepcopy(layer).double()(x.double())
    assert relative_error(layer(x).double(), expected) < 1e-3


@pytest.mark.usefixtures("backend")
def test_the_grid_may_change_between_calls_and_the_input_be_a_view():
    layer = DTN(8, 2)
    x = torch.randn(2, 8, 5, 6).permute(0, 2, 3, 1)  # channels last, not contiguous
    torch.testing.assert_close(layer(x), layer(x.contiguous()))
    for h, w in ((3, 7), (7, 3), (1, 21), (21, 1), (1, 1)):
        assert layer(torch.randn(2, h * w, 8), (h, w)).shape == (2, h * w, 8)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("shape", [(0, 6, 8), (0, 2, 3, 8)])
def test_an_empty_batch_gives_an_empty_batch(shape):
    x = torch.zeros(shape, requires_grad=True)
    y = DTN(8, 2)(x, (2, 3))
    assert y.shape == shape
    y.sum().backward()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_parameters_give_non_finite_outputs_and_no_crash(value):
    layer = DTN(8, 2)
    with torch.no_grad():
        layer.pos_proj.weight.fill_(value)
    assert not torch.isfinite(layer(torch.randn(1, 6, 8), (2, 3))).any()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_activation_checkpointing(use_reentrant):
    torch.manual_seed(0)
    block = Block()
    x, grad_y = torch.randn(2, 30, 24), torch.randn(2, 30, 24)
    plain = gradients(block, x, (5, 6), grad_y)
    wrapped = gradients(lambda_module(block, use_reentrant), x, (5, 6), grad_y)
    for a, b in zip(plain, wrapped, strict=True):
        torch.testing.assert_close(a, b)


def lambda_module(block, use_reentrant):
    class Checkpointed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = block

        def forward(self, x, hw_shape):
            # Two grids are in flight before the first backward: nothing may be remembered from one to the other.
            self.block(x.detach()[:, :12], (3, 4))
            return checkpoint(self.block, x, hw_shape, use_reentrant=use_reentrant)

    return Checkpointed()


def test_function_transforms_and_forward_mode():
    """The kernels have no rules for these, so the layer must not use them there."""
    layer = DTN(8, 2, dtype=torch.float64)
    randomize(layer, 0, 0.3)
    x, direction = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    function = functools.partial(layer, hw_shape=(2, 3))
    _, tangent = torch.func.jvp(function, (x,), (direction,))
    difference = (function(x + 1e-6 * direction) - function(x - 1e-6 * direction)) / 2e-6
    assert relative_error(tangent, difference) < 1e-7

    def loss(tokens):
        return function(tokens).square().sum()

    leaf = x.clone().requires_grad_()
    loss(leaf).backward()
    torch.testing.assert_close(torch.func.grad(loss)(x), leaf.grad)
    each = torch.func.vmap(torch.func.grad(lambda tokens: loss(tokens.unsqueeze(0))))(x)
    torch.testing.assert_close(each, leaf.grad)


def test_deepcopy_and_pickle():
    layer = DTN(8, 2)
    randomize(layer)
    x = torch.randn(1, 6, 8)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x, (2, 3)), layer(x, (2, 3)))
    assert twin.pos_proj.weight is not layer.pos_proj.weight
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    fresh = DTN(8, 2)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(fresh(x, (2, 3)), layer(x, (2, 3)))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile_fullgraph(compiler):
    torch.manual_seed(0)
    block = Block()
    compiled = torch.compile(block, fullgraph=True, backend=compiler)
    for h, w in ((4, 6), (5, 7)):  # another grid: compiled again, with dynamic sizes
        x = torch.randn(2, h * w, 24, requires_grad=True)
        y, expected = compiled(x, (h, w)), block(x, (h, w))
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
        grad_y = torch.randn_like(x)
        found, wanted = (torch.autograd.grad(out, [x, *block.parameters()], grad_y) for out in (y, expected))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    torch._dynamo.reset()


def test_export_of_a_backbone_holds_core_operators_only():
    model = Backbone().eval()
    image = torch.randn(1, 3, 32, 48)
    program = torch.export.export(model, (image,))
    assert not [n for n in program.graph.nodes if "dtn_det" in str(n.target)]
    for ours, exported in zip(model(image), program.module()(image), strict=True):
        torch.testing.assert_close(exported, ours, rtol=1e-4, atol=1e-5)


def test_onnx_of_a_backbone(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime comes with the dev extra")
    model = Backbone().eval()
    image = torch.randn(1, 3, 32, 48)
    path = tmp_path / "backbone.onnx"
    torch.onnx.export(model, (image,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    outputs = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    for ours, exported in zip(model(image), outputs, strict=True):
        torch.testing.assert_close(torch.from_numpy(exported), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # the backbones do the same in the fast tests
def test_data_parallel_processes_agree_with_one(tmp_path):
    script = tmp_path / "ddp.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, torch, torch.distributed as dist
            from dtn_det.layers import DTN
            dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2)
            torch.manual_seed(0)
            layer = DTN(8, 2)
            model = torch.nn.parallel.DistributedDataParallel(layer)  # would raise for parameters without a gradient
            x = torch.randn(2, 12, 8)
            for _ in range(2):
                layer.zero_grad()
                model(x[dist.get_rank()::2], (3, 4)).square().sum().backward()
            both = [p.grad.clone() for p in layer.parameters()]
            single = DTN(8, 2)
            single.load_state_dict(layer.state_dict())
            single(x, (3, 4)).square().sum().backward()
            for a, p in zip(both, single.parameters()):
                torch.testing.assert_close(2 * a, p.grad)
            """
        )
    )
    arguments = [sys.executable, str(script), str(tmp_path / "rendezvous")]
    processes = [subprocess.Popen([*arguments, str(r)], stderr=subprocess.PIPE, text=True) for r in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=240)
        assert process.returncode == 0, stderr
