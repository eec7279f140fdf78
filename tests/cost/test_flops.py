from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from dtn_det.cost.flops import dtn_flops
from dtn_det.layers.plain import inter_token_moments

SIZES = st.integers(1, 12)


@given(height=SIZES, width=SIZES, groups=st.integers(1, 4), group_channels=st.integers(1, 5))
def test_filters_are_the_multiplications_of_the_separable_form(
    height: int, width: int, groups: int, group_channels: int
) -> None:
    channels = groups * group_channels
    with FlopCounterMode(display=False) as counter:
        inter_token_moments(torch.rand(1, height, width, channels), torch.rand(groups, 3))
    flops = dtn_flops(height, width, channels, groups)
    # PyTorch's counter sees matrix products alone, and counts two FLOPs for a multiply-add.
    assert counter.get_total_flops() == 2 * (flops.mean_filter + flops.square_filter)


def test_dense_form_is_two_matrix_products_per_group() -> None:
    flops = dtn_flops(4, 6, 8, 2)
    attention, tokens = torch.rand(2, 24, 24), torch.rand(2, 24, 4)
    with FlopCounterMode(display=False) as counter:
        attention @ tokens
        attention @ tokens.square()
    softmax = 5 * 2 * 24**2
    assert flops.dense == counter.get_total_flops() // 2 + softmax + flops.elementwise


def test_total_is_the_sum_of_the_parts() -> None:
    flops = dtn_flops(7, 9, 12, 3)
    elements = 7 * 9 * 12
    assert flops.axis_matrices == 5 * 3 * (49 + 81)
    assert flops.elementwise == 19 * elements
    assert flops.layer_norm == 5 * elements
    assert flops.total == 2 * elements * (7 + 9) + flops.axis_matrices + flops.elementwise


def test_options_change_the_elementwise_part_alone() -> None:
    base = dtn_flops(5, 5, 8, 2)
    elements = 5 * 5 * 8
    assert base.elementwise - dtn_flops(5, 5, 8, 2, head_rms=False).elementwise == 2 * elements
    assert base.elementwise - dtn_flops(5, 5, 8, 2, only_var=True).elementwise == 3 * elements
    assert base.mean_filter == dtn_flops(5, 5, 8, 2, only_var=True).mean_filter
    with_prefix = dtn_flops(5, 5, 8, 2, num_prefix=3)
    assert with_prefix.elementwise - base.elementwise == 3 * 8 * 10
    assert with_prefix.layer_norm - base.layer_norm == 3 * 8 * 5


@pytest.mark.parametrize(("width", "groups", "published"), [(384, 6, 4.88 - 4.60), (768, 16, 18.13 - 17.58)])
def test_vision_transformers_of_the_paper(width: int, groups: int, published: float) -> None:
    """The authors' table gives 4.60 -> 4.88 G for ViT-S* and 17.58 -> 18.13 G for ViT-B*.

    Ten of twelve blocks carry two DTN layers on 14 x 14 tokens. One of the two N x N products per layer explains their
    figures within 8 %; the separable form adds less than half of them.
    """
    flops = dtn_flops(14, 14, width, groups)
    one_product = 196 * 196 * width
    assert 20 * one_product / 1e9 == pytest.approx(published, rel=0.08)
    assert 20 * (flops.total - flops.layer_norm) / 1e9 < 0.5 * published
    assert flops.dense > 2 * one_product


@pytest.mark.parametrize("name", ["height", "width", "channels", "num_groups"])
def test_sizes_must_be_positive(name: str) -> None:
    sizes = {"height": 2, "width": 2, "channels": 4, "num_groups": 2, name: 0}
    with pytest.raises(ValueError, match=f"expected {name} to be positive, got 0"):
        dtn_flops(**sizes)


def test_prefix_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="expected num_prefix to be 0 or more, got -1"):
        dtn_flops(2, 2, 4, 2, num_prefix=-1)
