"""The norms that DTN is compared with, against PyTorch's own and against their papers, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from token_norm_references import PowerReference, switch_norm
from torch import Tensor, nn

from dtn_det.layers import TOKEN_NORMS, PowerNorm, SwitchNorm, TokenNorm, build_token_norm

NAMES = tuple(name for name in TOKEN_NORMS if name != "dtn")
ACROSS = ("bn", "in", "gn-image", "sn", "powernorm")
VARIANTS = (*NAMES, "gn-image")
B, H, W, C, G = 3, 4, 5, 12, 3
N = H * W


def make(variant: str, channels: int = C, groups: int = G, seed: int = 1, **options: Any) -> TokenNorm:
    """A norm in float64 with every parameter moved away from its start."""
    name, _, over = variant.partition("-")
    if over:
        options["over"] = over
    norm = build_token_norm(name, channels, groups, dtype=torch.float64, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return norm


def tokens(*shape: int, seed: int = 0, scale: float = 2.0, shift: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64) + shift


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def of_torch(variant: str, norm: TokenNorm) -> tuple[Callable[..., Tensor], nn.Module]:
    """PyTorch's layer of the same parameters: a function of `(B, N, C)` and the mode, and the layer itself."""
    over_tokens = {
        "bn": lambda: nn.BatchNorm1d(C, eps=1e-5),
        "in": lambda: nn.InstanceNorm1d(C, eps=1e-5, affine=True),
        "gn-image": lambda: nn.GroupNorm(G, C, eps=1e-5),
    }
    within = {
        "ln": lambda: nn.LayerNorm(C, eps=1e-5),
        "rmsnorm": lambda: nn.RMSNorm(C, eps=1e-5),
        "gn": lambda: nn.GroupNorm(G, C, eps=1e-5),
    }
    layer = {**over_tokens, **within}[variant]().double()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(getattr(norm, name))

    def call(x: Tensor, training: bool) -> Tensor:
        layer.train(training)
        if variant in over_tokens:
            out: Tensor = layer(x.transpose(1, 2)).transpose(1, 2)
            return out
        return layer(x.flatten(0, 1)).reshape(x.shape) if variant == "gn" else layer(x)

    return call, layer


@pytest.mark.parametrize("variant", ["ln", "rmsnorm", "gn", "gn-image", "in", "bn"])
def test_as_pytorchs_own(variant: str) -> None:
    norm = make(variant)
    reference, layer = of_torch(variant, norm)
    for step in range(3):
        x = tokens(B, N, C, seed=step).requires_grad_()
        y = x.detach().clone().requires_grad_()
        weights = tokens(B, N, C, seed=9)
        found, expected = norm(x), reference(y, training=True)
        close(found, expected)
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        close(x.grad, y.grad)
        for name, parameter in layer.named_parameters():
            close(getattr(norm, name).grad, parameter.grad)
    if variant == "bn":
        close(norm.running_mean, layer.running_mean)
        close(norm.running_var, layer.running_var)
    norm.eval()
    close(norm(x), reference(y, training=False))


def test_scale_norm_is_the_direction_times_a_gain() -> None:
    x = tokens(B, N, C)
    norm = make("scalenorm")
    close(norm(x), norm.gain * x / (x * x).sum(-1, keepdim=True).sqrt())
    fresh = build_token_norm("scalenorm", C, dtype=torch.float64)
    close(fresh(x).square().mean(-1), torch.ones(B, N, dtype=torch.float64))
    assert not fresh(torch.zeros_like(x)).any()


def test_dynamic_tanh() -> None:
    x = tokens(B, N, C)
    norm = make("dyt")
    close(norm(x), norm.weight * torch.tanh(norm.alpha * x) + norm.bias)
    assert build_token_norm("dyt", C).alpha.item() == 0.5
    assert build_token_norm("dyt", C, alpha=0.8).alpha.item() == pytest.approx(0.8)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_switch_norm_is_its_equations(batch: int, length: int, channels: int, seed: int) -> None:
    norm = make("sn", channels, 1, seed)
    x = tokens(batch, length, channels, seed=seed)
    shares = norm.mean_weight.softmax(0), norm.var_weight.softmax(0)
    close(norm(x), switch_norm(x, None, shares, norm.eps) * norm.weight + norm.bias)
    close(norm.running_mean, 0.1 * x.mean((0, 1)))
    close(norm.running_var, 0.9 + 0.1 * x.var((0, 1), correction=0))
    norm.eval()
    running = (norm.running_mean, norm.running_var)
    close(norm(x), switch_norm(x, running, shares, norm.eps) * norm.weight + norm.bias)


def test_switch_norm_of_one_kind_is_that_norm() -> None:
    x = tokens(B, N, C)
    for index, name in enumerate(("in", "ln", "bn")):
        norm = SwitchNorm(C, dtype=torch.float64)
        with torch.no_grad():
            for logits in (norm.mean_weight, norm.var_weight):
                logits.copy_(torch.tensor([-1e3] * 3, dtype=torch.float64))
                logits[index] = 1e3
        close(norm(x), build_token_norm(name, C, dtype=torch.float64)(x))


@pytest.mark.parametrize("layer_scale", [False, True])
@pytest.mark.parametrize("warmup_steps", [0, 3])
def test_power_norm_is_its_algorithm(warmup_steps: int, layer_scale: bool) -> None:
    norm = PowerNorm(C, warmup_steps=warmup_steps, layer_scale=layer_scale, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(tokens(C, seed=3))
        norm.bias.copy_(tokens(C, seed=4))
    reference = PowerReference(C, 0.9, norm.eps, warmup_steps)
    for step in range(7):
        x = tokens(B, N, C, seed=step, scale=1 + step).requires_grad_()
        gradient = tokens(B, N, C, seed=50 + step)
        scaled = x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() if layer_scale else x
        rows, upstream = scaled.detach().reshape(-1, C), (gradient * norm.weight.detach()).reshape(-1, C)
        x_hat, down = reference.step(rows, upstream)
        norm.zero_grad()
        out = norm(x)
        (expected,) = torch.autograd.grad(scaled, x, down.reshape(x.shape))
        (out * gradient).sum().backward()
        close(out, (x_hat * norm.weight + norm.bias).reshape(x.shape))
        close(x.grad, expected)
        close(norm.weight.grad, (gradient.reshape(-1, C) * x_hat).sum(0))
        close(norm.bias.grad, gradient.sum((0, 1)))
        close(norm.running_square, reference.psi_squared)
        close(norm.running_gradient, reference.nu)
    norm.eval()
    close(norm(x), scaled / (reference.psi_squared + norm.eps).sqrt() * norm.weight + norm.bias)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant: str, training: bool, masked: bool) -> None:
    """PowerNorm is in its warm-up, whose gradient is exact."""
    norm = make(variant, 4, 2).train(training)
    x = tokens(2, 6, 4).requires_grad_()
    mask = torch.tensor([[1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 1, 1]], dtype=torch.bool) if masked else None
    names, values = zip(*norm.named_parameters(), strict=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        state = {name: buffer.clone() for name, buffer in norm.named_buffers()}
        given = dict(zip(names, parameters, strict=True))
        out: Tensor = torch.func.functional_call(norm, {**state, **given}, (x, (2, 3), mask))
        return out

    assert torch.autograd.gradcheck(call, (x, *values))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant: str, training: bool) -> None:
    plain, padded = (make(variant).train(training) for _ in range(2))
    mask = torch.ones(B, H, W, dtype=torch.bool)
    mask[:, -1] = mask[:, :, -2:] = False
    x = tokens(B, H, W, C).masked_fill(~mask.unsqueeze(-1), 1e6)
    short = x[mask].reshape(B, H - 1, W - 2, C).clone().requires_grad_()
    long = x.requires_grad_()
    weights = tokens(B, H - 1, W - 2, C, seed=7)
    for _ in range(2):
        found, expected = padded(long, mask=mask)[mask].reshape(short.shape), plain(short)
        close(found, expected)
    close(
        torch.autograd.grad((found * weights).sum(), long)[0][mask],
        torch.autograd.grad((expected * weights).sum(), short)[0].reshape(-1, C),
    )
    for name, buffer in plain.named_buffers():
        if name != "running_gradient":
            close(padded.state_dict()[name], buffer)


@pytest.mark.parametrize("variant", VARIANTS)
def test_masks_of_all_shapes_are_one(variant: str) -> None:
    norm = make(variant)
    x = tokens(B, N + 1, C)
    mask = torch.rand(B, H, W) < 0.7
    mask[:, 0, 0] = True
    with_prefix = torch.cat([torch.ones(B, 1, dtype=torch.bool), mask.flatten(1)], dim=1)
    outs = [copy.deepcopy(norm)(x, (H, W), m) for m in (mask, mask.flatten(1), with_prefix)]
    outs.append(copy.deepcopy(norm)(x, mask=with_prefix))
    for out in outs[1:]:
        assert torch.equal(out, outs[0])


@pytest.mark.parametrize("variant", ACROSS)
def test_prefix_tokens(variant: str) -> None:
    """Part of the statistics, unless the norm is told otherwise; then normalised by those of the others."""
    grid, prefix = tokens(B, N, C), tokens(B, 2, C, seed=5, shift=9.0)
    x = torch.cat([prefix, grid], dim=1)
    close(make(variant)(x, (H, W)), make(variant)(x))
    without = make(variant, include_prefix=False)
    close(without(x, (H, W))[:, 2:], make(variant)(grid))
    close(without(grid, (H, W)), without(grid.reshape(B, H, W, C)).reshape(B, N, C))
    mask = torch.ones(B, 2 + N, dtype=torch.bool)
    mask[:, :2] = False
    close(make(variant)(x, mask=mask), make(variant, include_prefix=False)(x, (H, W)))
    with pytest.raises(ValueError, match=r"hw_shape=\(H, W\) with include_prefix=False, got None"):
        without(x)


@pytest.mark.parametrize("variant", ["bn", "sn", "powernorm"])
def test_evaluation_comes_near_training_on_the_same_data(variant: str) -> None:
    norm = make(variant)
    x = tokens(B, N, C)
    for _ in range(300):
        trained = norm(x)
    norm.eval()
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    torch.testing.assert_close(norm(x), trained, rtol=0.02, atol=0.02)
    assert all(torch.equal(before[name], buffer) for name, buffer in norm.named_buffers())


@pytest.mark.parametrize("variant", VARIANTS)
def test_state_dict_round_trip_and_reset(variant: str) -> None:
    norm = make(variant)
    norm(tokens(B, N, C)).square().sum().backward()
    other = make(variant, seed=2)
    other.load_state_dict(norm.state_dict())
    for training in (True, False):
        x = tokens(B, N, C, seed=8)
        close(other.train(training)(x), norm.train(training)(x))
    norm.reset_parameters()
    fresh = build_token_norm(variant.split("-")[0], C, G, dtype=torch.float64)
    # Options stay, and those of the variant are not the ones of the fresh norm.
    for name, value in fresh.state_dict().items():
        assert name == "_extra_state" or torch.equal(norm.state_dict()[name], value), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_statistics_are_float32_in_half_precision(variant: str, dtype: torch.dtype) -> None:
    norm = make(variant).float()
    x = tokens(B, N, C, scale=200, shift=500).to(dtype)
    expected = copy.deepcopy(norm)(x.float()).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(x)
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    # Parameters and buffers of half precision, too.
    assert make(variant).to(dtype)(x).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_running_statistics_of_another_dtype(dtype: torch.dtype) -> None:
    norm, same = make("bn").to(torch.float32), make("bn").to(torch.float32)
    x = tokens(B, N, C).to(dtype)
    norm(x)
    same(x.float())
    torch.testing.assert_close(norm.running_mean, same.running_mean)
    torch.testing.assert_close(norm.running_var, same.running_var)


@given(st.sampled_from(VARIANTS), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_any_size(variant: str, batch: int, height: int, width: int, channels: int) -> None:
    norm = make(variant, channels, channels)
    norm.train(batch * height * width > 1)
    grid = tokens(batch, height, width, channels)
    out = norm(grid)
    assert out.shape == grid.shape
    assert bool(out.isfinite().all())
    close(copy.deepcopy(norm).eval()(grid.flatten(1, 2), (height, width)), norm.eval()(grid).flatten(1, 2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_meta_tensors_and_memory_formats(variant: str) -> None:
    norm = build_token_norm(variant.split("-")[0], C, G, device="meta")
    assert norm(torch.empty(B, N, C, device="meta"), (H, W)).shape == (B, N, C)
    x = tokens(B, C, H, W).permute(0, 2, 3, 1)
    close(make(variant)(x), make(variant)(x.contiguous()))


@pytest.mark.parametrize("variant", ["bn", "sn", "gn", "powernorm"])
def test_compiled(variant: str) -> None:
    """Graphs are traced, not compiled to C++, which takes long; PowerNorm's training breaks them."""
    norm, plain = make(variant), make(variant)
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=variant != "powernorm")
    x = tokens(B, N, C).requires_grad_()
    mask = torch.arange(B * N).reshape(B, N) % 4 > 0
    close(compiled(x, (H, W), mask), plain(x, (H, W), mask))
    close(
        torch.autograd.grad(compiled(x).square().sum(), x)[0],
        torch.autograd.grad(plain(x).square().sum(), x)[0],
    )


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_traced_and_exported(variant: str, masked: bool) -> None:
    norm = make(variant).eval().requires_grad_(False)
    x = tokens(B, H, W, C)
    mask = torch.arange(B * N).reshape(B, H, W) % 4 > 0 if masked else None
    close(torch.jit.trace(lambda x: norm(x, mask=mask), x)(x), norm(x, mask=mask))
    batch, height = torch.export.Dim("batch", min=2), torch.export.Dim("height", min=2)
    shapes = {"x": {0: batch, 1: height}, "mask": {0: batch, 1: height} if masked else None}
    exported = torch.export.export(norm, (x,), {"mask": mask}, dynamic_shapes=shapes)
    other = tokens(B + 1, H + 2, W, C)
    other_mask = None if mask is None else torch.arange(other[..., 0].numel()).reshape(other.shape[:-1]) % 3 > 0
    close(exported.module()(other, mask=other_mask), norm(other, mask=other_mask))


@pytest.mark.parametrize("name", ["ln", "gn", "rmsnorm", "scalenorm", "dyt"])
def test_norms_within_tokens_take_rows_of_tokens(name: str) -> None:
    norm, x = build_token_norm(name, 8, 2), torch.randn(5, 8)
    assert torch.equal(norm(x), norm(x[None])[0])


@pytest.mark.parametrize("name", ["bn", "in", "sn", "powernorm", "dtn"])
def test_norms_across_tokens_need_to_know_the_images(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected x of shape \(B, N, 8\) or \(B, H, W, 8\), got \(5, 8\)"):
        build_token_norm(name, 8, 2)(torch.randn(5, 8))
    with pytest.raises(ValueError, match=r"expected x of shape \(B, N, 8\)"):
        build_token_norm("gn", 8, 2, over="image")(torch.randn(5, 8))
