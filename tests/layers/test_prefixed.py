"""The operator for tokens behind class tokens: the same numbers as the layer on the grid, and LayerNorm's in front."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dtn_det.layers import DTN
from dtn_det.layers.kernels import cpu, operator

pytestmark = pytest.mark.skipif(not cpu.status().available, reason=f"compiled kernels: {cpu.status().detail}")

GRID = (3, 4)
OPTIONS = (1e-5, True, True)


def layer(**kwargs: object) -> DTN:
    norm = DTN(6, 2, dtype=torch.float64, **kwargs)  # type: ignore[arg-type]
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    return norm


def in_parts(norm: DTN, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """The plain form of the prefix, and the grid by itself."""
    count = x.shape[1] - grid[0] * grid[1]
    return torch.cat([norm._normalize_prefix(x[:, :count]), norm(x[:, count:], grid)], dim=1)


@given(
    batch=st.integers(1, 3),
    count=st.integers(1, 4),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    head_rms=st.booleans(),
    unbiased=st.booleans(),
    only_var=st.booleans(),
)
def test_outputs_and_gradients_are_those_of_the_parts(
    batch: int, count: int, grid: tuple[int, int], head_rms: bool, unbiased: bool, only_var: bool
) -> None:
    norm = layer(head_rms=head_rms, unbiased=unbiased, only_var=only_var)
    x = torch.randn(batch, count + grid[0] * grid[1], 6, dtype=torch.float64, requires_grad=True)
    assert operator.is_usable(x, 2, head_rms, only_var)
    grad_y = torch.randn_like(x)
    leaves = [x, *norm.parameters()]
    y, expected = norm(x, grid), in_parts(norm, x, grid)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    for got, want in zip(
        torch.autograd.grad(y, leaves, grad_y, allow_unused=True),
        torch.autograd.grad(expected, leaves, grad_y, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)


def problem(only_var: bool = False, low: torch.dtype | None = None) -> list[Tensor | None]:
    dtype = torch.float64 if low is None else torch.float32
    x = torch.randn(2, 2 + 12, 6, dtype=low or dtype)
    shapes = ((2, 3), None if only_var else (2,), (2,), (6,), (6,))
    tensors = [x, *(None if shape is None else torch.randn(shape, dtype=dtype) for shape in shapes)]
    return [None if tensor is None else tensor.requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("only_var", [False, True])
def test_what_pytorch_asks_of_an_operator(only_var: bool) -> None:
    torch.library.opcheck(operator._forward, (*problem(only_var), *OPTIONS, torch.float64, *GRID))
    low = problem(only_var, torch.bfloat16)
    torch.library.opcheck(operator._forward, (*low, *OPTIONS, torch.float32, *GRID))


@pytest.mark.parametrize("only_var", [False, True])
def test_gradients_of_gradients(only_var: bool) -> None:
    tensors = problem(only_var)
    wanted = [tensor for tensor in tensors if tensor is not None]

    def function(*leaves: Tensor) -> Tensor:
        values = iter(leaves)
        given = [None if tensor is None else next(values) for tensor in tensors]
        result: Tensor = operator._forward(*given, *OPTIONS, torch.float64, *GRID)
        return result

    assert torch.autograd.gradcheck(function, wanted)
    assert torch.autograd.gradgradcheck(function, wanted, fast_mode=True)


def test_low_precision_and_strides() -> None:
    norm = layer().float()
    x = torch.randn(6, 14, 2).permute(2, 1, 0)
    torch.testing.assert_close(norm(x, GRID), in_parts(norm, x, GRID), rtol=1e-4, atol=1e-4)
    low = norm(x.bfloat16(), GRID)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), norm(x, GRID), rtol=0.05, atol=0.05)


def test_masks_go_the_other_way() -> None:
    norm = layer()
    x = torch.randn(2, 13, 6, dtype=torch.float64)
    mask = torch.ones(2, 13, dtype=torch.bool)
    torch.testing.assert_close(norm(x, GRID, mask), norm(x, GRID), rtol=1e-9, atol=1e-9)
