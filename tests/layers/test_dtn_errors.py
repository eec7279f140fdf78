"""What a user can do wrong, and what the layer says."""

import pytest
import torch

from dtn_det.layers import DTN


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_features": (8,)}, r"to be integers, got \(8,\) and 1"),
        ({"num_features": 8, "num_groups": 2.0}, r"to be integers, got 8 and 2.0"),
        ({"num_features": 10, "num_groups": 3}, r"num_features=10 and num_groups=3"),
        ({"num_features": 8, "num_groups": 0}, r"positive divisor.*num_groups=0"),
        ({"num_features": 8, "init": "random"}, r"init to be one of \('local', 'layernorm'\), got 'random'"),
        ({"num_features": 1}, r"num_features > 1 for an unbiased variance, got 1"),
    ],
)
def test_constructor(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DTN(**kwargs)


@pytest.mark.parametrize(
    ("shape", "hw_shape", "message"),
    [
        ((2, 12, 8), None, r"hw_shape=\(H, W\) for 12 tokens, which form no square grid, got None"),
        ((2, 12, 8), (4, 4), r"H \* W of at most 12.*got \(4, 4\) with H \* W = 16"),
        ((2, 12, 8), (0, 4), r"two positive integers \(H, W\), got \(0, 4\)"),
        ((2, 12, 8), 12, "two positive integers.*got 12"),
        ((2, 12, 8), (3.0, 4.0), r"two positive integers.*got \(3.0, 4.0\)"),
        ((2, 12, 8), (3, 4, 1), r"two positive integers \(H, W\), got \(3, 4, 1\)"),
        ((2, 3, 4, 8), (4, 3), r"hw_shape to be \(3, 4\).*got \(4, 3\)"),
        ((2, 12, 9), (3, 4), r"\(B, N, 8\) or \(B, H, W, 8\), got \(2, 12, 9\)"),
        ((12, 8), (3, 4), r"got \(12, 8\)"),
    ],
)
def test_shapes(shape, hw_shape, message):
    with pytest.raises(ValueError, match=message):
        DTN(8)(torch.zeros(shape), hw_shape)


def test_integer_tokens():
    with pytest.raises(ValueError, match=r"floating-point dtype, got torch.int64"):
        DTN(8)(torch.zeros(1, 4, 8, dtype=torch.int64))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 11, dtype=torch.bool), r"mask of shape \(2, 12\) or \(2, 3, 4\), got \(2, 11\)"),
        (torch.ones(2, 12), r"dtype torch.bool, True for valid tokens, got torch.float32"),
        (torch.arange(24).reshape(2, 12) < 12, r"at least one valid token in each row of mask, got none in rows \[1\]"),
    ],
)
def test_masks(mask, message):
    with pytest.raises(ValueError, match=message):
        DTN(8)(torch.zeros(2, 12, 8), (3, 4), mask)


def test_meta_tensors_give_the_shape():
    layer = DTN(8, 2, device="meta")
    assert layer(torch.empty(1, 12, 8, device="meta"), (3, 4)).shape == (1, 12, 8)
