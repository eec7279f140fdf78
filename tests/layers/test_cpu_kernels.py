"""The compiled kernels: choice of library, fallback, threads."""

import pytest
import torch
from dense_dtn import plain_dtn, randomize
from hypothesis import assume, given
from hypothesis import strategies as st

from dtn_det.layers import DTN
from dtn_det.layers.kernels import cpu

needs_kernels = pytest.mark.skipif(not cpu.status().available, reason=f"compiled kernels: {cpu.status().detail}")


def run(threads, x, grad_y, layer):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        return y.detach(), *torch.autograd.grad(y, [leaf, *layer.parameters()], grad_y)
    finally:
        torch.set_num_threads(before)


@needs_kernels
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_results_are_the_same_for_any_number_of_threads(threads):
    layer = DTN(48, 3)
    randomize(layer, 0, 0.3)
    x, grad_y = torch.randn(2, 2, 40, 33, 48)
    for alone, shared in zip(run(1, x, grad_y, layer), run(threads, x, grad_y, layer), strict=True):
        assert torch.equal(alone, shared)


def plain_form(x, grad_y, layer):
    """Output and gradients of the plain form, in the dtype of the layer."""
    leaf = x.detach().to(layer.weight.dtype).requires_grad_()
    y = plain_dtn(layer, leaf)
    wanted = [leaf, *layer.parameters()]
    gradients = torch.autograd.grad(y, wanted, grad_y.to(y.dtype), allow_unused=True)
    return y.detach(), *(torch.zeros_like(t) if g is None else g for t, g in zip(wanted, gradients, strict=True))


@needs_kernels
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    groups=st.integers(1, 4),
    depth=st.integers(1, 70),
    head_rms=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_float32_is_as_accurate_as_the_plain_form(height, width, groups, depth, head_rms, seed):
    """Both against float64: groups of a few channels can come close to 0, which magnifies rounding in any form."""
    assume(groups * depth > 1)  # a single channel is its own mean: nothing but rounding is left to compare
    torch.manual_seed(seed)
    layer = DTN(groups * depth, groups, head_rms=head_rms)
    randomize(layer, seed, 0.5)
    x, grad_y = torch.randn(2, 1, height, width, groups * depth)
    twin = DTN(groups * depth, groups, head_rms=head_rms, dtype=torch.float64)
    twin.load_state_dict(layer.state_dict())
    exact = plain_form(x, grad_y, twin)
    scale = 1e-5 * max(1.0, *(want.abs().max().item() for want in exact[2:]))
    for got, rival, want in zip(run(2, x, grad_y, layer), plain_form(x, grad_y, layer), exact, strict=True):
        assert (got - want).abs().max() <= 4 * (rival - want).abs().max() + scale


def test_every_instruction_set_agrees(monkeypatch):
    """Those that this processor has."""
    if not cpu.status().available:
        pytest.skip(f"compiled kernels: {cpu.status().detail}")
    layer = DTN(24, 2, dtype=torch.float64)
    x, grad_y = torch.randn(2, 1, 9, 11, 24, dtype=torch.float64)
    results, libraries = [], set()
    for count in range(1, len(cpu.VARIANTS) + 1):
        with monkeypatch.context() as patch:
            patch.setattr(cpu, "VARIANTS", cpu.VARIANTS[:count])
            library, detail = cpu._load()
            patch.setattr(cpu, "_LIBRARY", library)
            results.append(run(1, x, grad_y, layer))
            libraries.add(detail)
    assert libraries >= {cpu.status().detail}
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def test_switched_off_by_the_environment(monkeypatch):
    monkeypatch.setenv("DTN_DET_NATIVE", "0")
    library, detail = cpu._load()
    assert (library, detail) == (None, "switched off by DTN_DET_NATIVE=0")
    monkeypatch.setattr(cpu, "_LIBRARY", library)
    x, layer = torch.randn(1, 2, 2, 8), DTN(8)
    assert not cpu.is_usable(x)
    torch.testing.assert_close(layer(x), plain_dtn(layer, x))


def test_without_the_libraries_the_plain_form_runs(monkeypatch, tmp_path):
    x, layer = torch.randn(1, 4, 8), DTN(8)
    expected = layer(x)
    monkeypatch.setattr(cpu, "__file__", str(tmp_path / "cpu.py"))
    library, detail = cpu._load()
    assert library is None
    assert detail == "not built: no C++ compiler at installation"
    monkeypatch.setattr(cpu, "_LIBRARY", library)
    monkeypatch.setattr(cpu, "_DETAIL", detail)
    torch.testing.assert_close(layer(x), expected)
    with pytest.raises(RuntimeError, match="expected DTN's compiled CPU kernels, but they are not built"):
        cpu.forward(x, layer._tensors(torch.float32), layer._options(), torch.float32, (2, 2))


def test_a_broken_library_is_reported_and_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "__file__", str(tmp_path / "cpu.py"))
    (tmp_path / "_dtn_cpu_baseline.so").write_bytes(b"not a library")
    with pytest.warns(RuntimeWarning, match="cannot be loaded.*install dtn-det again"):
        assert cpu._load()[0] is None
