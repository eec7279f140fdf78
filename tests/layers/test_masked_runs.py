"""Padded sequences: the kernels on the tokens that count give what the plain form gives with a mask."""

from __future__ import annotations

import pytest
import torch
from dense_dtn import plain_dtn
from hypothesis import given
from hypothesis import strategies as st

from dtn_det.layers import DTN
from dtn_det.layers.kernels import cpu
from dtn_det.layers.masked_runs import valid_runs

needs_kernels = pytest.mark.skipif(not cpu.status().available, reason="needs the compiled kernels")


def plain(norm: DTN, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return plain_dtn(norm, x.unsqueeze(1), mask.unsqueeze(1)).squeeze(1)


@needs_kernels
@given(
    length=st.integers(1, 40),
    seed=st.integers(0, 1000),
    only_var=st.booleans(),
    head_rms=st.booleans(),
)
def test_runs_agree_with_the_plain_form(length: int, seed: int, only_var: bool, head_rms: bool) -> None:
    torch.manual_seed(seed)
    norm = DTN(12, 3, only_var=only_var, head_rms=head_rms, dtype=torch.float64)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    bounds = torch.randint(0, length, (3, 2)).sort(1).values
    position = torch.arange(length)
    mask = (position >= bounds[:, :1]) & (position <= bounds[:, 1:])
    x = torch.randn(3, length, 12, dtype=torch.float64, requires_grad=True)
    outputs = [norm(x, (1, length), mask), plain(norm, x, mask)]
    torch.testing.assert_close(*outputs, atol=1e-10, rtol=1e-10)
    gradients = [torch.autograd.grad(out.sin().sum(), [x, *norm.parameters()]) for out in outputs]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-8)


@needs_kernels
def test_second_derivatives() -> None:
    norm = DTN(4, 2, dtype=torch.float64)
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    assert torch.autograd.gradgradcheck(lambda x: norm(x, (1, 5), mask), (x,))


@needs_kernels
def test_half_precision() -> None:
    norm = DTN(8, 2)
    x = torch.randn(2, 10, 8).bfloat16().requires_grad_()
    mask = torch.arange(10) < torch.tensor([[10], [4]])
    out = norm(x, (1, 10), mask)
    out.float().square().sum().backward()
    assert x.grad is not None
    assert out.dtype == x.dtype == x.grad.dtype
    torch.testing.assert_close(out.float(), norm(x.float(), (1, 10), mask), atol=2e-2, rtol=2e-2)


@needs_kernels
def test_padding_may_hold_anything() -> None:
    norm = DTN(8, 2)
    x = torch.randn(2, 10, 8)
    mask = torch.arange(10) < torch.tensor([[10], [4]])
    broken = x.masked_fill(~mask.unsqueeze(-1), torch.nan)
    torch.testing.assert_close(norm(broken, (1, 10), mask)[mask], norm(x, (1, 10), mask)[mask], atol=0, rtol=0)


@needs_kernels
def test_long_sequences_need_no_matrix() -> None:
    norm = DTN(8, 2)
    length = 1 << 17  # a matrix of L x L would take 69 GB for each group
    x = torch.randn(2, length, 8, requires_grad=True)
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[1, 1000:] = False
    norm(x, (1, length), mask).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_runs_of_a_mask() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    assert valid_runs(mask.unsqueeze(1)) == ((0, 4), (0, 2), (1, 3), (3, 4))
    assert valid_runs(torch.tensor([[[True, False, True]]])) is None
    assert valid_runs(torch.ones(1, 2, 3, dtype=torch.bool)) is None
