"""Magnitudes, gates and kernels against the layers themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtn_det.inspection.norms import offset_moments, read_gates, read_kernels, spread, token_magnitudes
from dtn_det.layers import DTN
from dtn_det.layers.positions import axis_attention


def moved(norm: DTN) -> DTN:
    """Away from the start, without scale and shift, which magnitudes leave out."""
    with torch.no_grad():
        for name, parameter in norm.named_parameters():
            if name not in ("weight", "bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return norm.double()


def sizes(tokens: Tensor, groups: int) -> np.ndarray:
    height, width, channels = tokens.shape
    norms = tokens.detach().reshape(height, width, groups, -1).norm(dim=-1) / (channels // groups) ** 0.5
    return norms.permute(2, 0, 1).numpy()


@pytest.mark.parametrize("options", [{}, {"only_var": True}, {"init": "layernorm"}, {"unbiased": False, "eps": 0.1}])
def test_magnitudes_are_those_of_the_layers(options) -> None:
    norm = moved(DTN(12, 3, **options))
    x = 3 * torch.randn(5, 7, 12, dtype=torch.float64) + 1
    found = token_magnitudes(x, norm, num_groups=1)
    np.testing.assert_allclose(found.tokens, sizes(x, 3), rtol=1e-6)
    np.testing.assert_allclose(found.dtn, sizes(norm(x[None])[0], 3), rtol=1e-5)
    np.testing.assert_allclose(found.layer_norm, sizes(F.layer_norm(x, (12,), eps=norm.eps), 3), rtol=1e-5)
    instance = F.instance_norm(x.permute(2, 0, 1)[None], eps=norm.eps)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found.instance_norm, sizes(instance, 3), rtol=1e-5)


def test_scale_and_shift_are_left_out() -> None:
    norm = moved(DTN(12, 3))
    x = torch.randn(5, 7, 12, dtype=torch.float64)
    before = token_magnitudes(x, norm, 1).dtn
    with torch.no_grad():
        norm.weight.fill_(7)
        norm.bias.fill_(2)
    np.testing.assert_array_equal(token_magnitudes(x, norm, 1).dtn, before)


def test_layer_norm_gets_an_untrained_dtn() -> None:
    x = torch.randn(4, 6, 12)
    found = token_magnitudes(x, nn.LayerNorm(12, eps=1e-3), num_groups=4)
    np.testing.assert_allclose(found.dtn, sizes(DTN(12, 4, eps=1e-3)(x[None])[0], 4), rtol=1e-5)


def test_half_precision_is_measured_in_single() -> None:
    x = torch.randn(4, 6, 12)
    found = token_magnitudes(x.half(), nn.LayerNorm(12), num_groups=4)
    np.testing.assert_allclose(found.dtn, token_magnitudes(x.half().float(), nn.LayerNorm(12), 4).dtn, rtol=1e-6)


def test_whole_tokens_are_equal_under_layer_norm_alone() -> None:
    x = torch.randn(8, 8, 16) * torch.rand(8, 8, 1)
    found = token_magnitudes(x, nn.LayerNorm(16, eps=0), num_groups=1)
    assert spread(found.layer_norm) < 1e-6
    assert spread(found.instance_norm) > 0.1


def test_gates() -> None:
    norm = DTN(8, 4)
    with torch.no_grad():
        norm.mean_norm_weight.copy_(torch.tensor([0.0, 1, 2, -30]))
    gates = read_gates(norm)
    np.testing.assert_allclose(gates.mean, [0.5, 0.73105858, 0.88079708, 0], atol=1e-8)
    assert gates.var.tolist() == [0.5] * 4
    assert read_gates(DTN(8, 4, only_var=True)).mean is None


@pytest.mark.parametrize("strength", [1.0, 0.05, -0.05])
def test_kernels_are_the_rows_of_the_positional_matrix(strength: float) -> None:
    norm = DTN(8, 4)
    norm.pos_proj.reset_parameters(strength)
    kernels = read_kernels(norm, (16, 19))
    a_x, a_y, a_d = norm.pos_proj.weight.detach().double().unbind(1)
    dense = torch.einsum("gts,guv->gtusv", axis_attention(a_y, a_d, 16), axis_attention(a_x, a_d, 19))
    product = kernels.rows[:, :, None] * kernels.columns[:, None, :]
    np.testing.assert_allclose(product, dense[:, 8, 9], rtol=1e-12)
    np.testing.assert_allclose(kernels.rows.sum(1), 1)
    assert kernels.row_offsets.tolist() == list(range(-8, 8))
    assert kernels.column_offsets.tolist() == list(range(-9, 10))
    np.testing.assert_allclose(kernels.window(2), dense[:, 8, 9, 6:11, 7:12], rtol=1e-12)
    # Beyond the grid there is nothing.
    assert kernels.window(9)[:, 0].tolist() == np.zeros((4, 19)).tolist()


def test_a_small_map_does_not_cut_kernels_off() -> None:
    norm = DTN(8, 4)
    small, large = (read_kernels(norm, grid) for grid in ((4, 5), (31, 31)))
    assert small.rows.shape == small.columns.shape == (4, 15)
    np.testing.assert_allclose(small.window(3), large.window(3), rtol=1e-12)


def test_where_kernels_look() -> None:
    """A coefficient a_x of 2 with a_d of -1 is a Gaussian at dx = 1, one token to the left of the output."""
    norm = DTN(8, 1)
    with torch.no_grad():
        norm.pos_proj.weight.copy_(torch.tensor([[2.0, -4.0, -1.0]]))
    kernels = read_kernels(norm, (21, 21))
    right, right_sd = offset_moments(kernels.columns, kernels.column_offsets)
    down, _ = offset_moments(kernels.rows, kernels.row_offsets)
    assert right == pytest.approx(-1)
    assert down == pytest.approx(2)
    assert right_sd == pytest.approx(0.5**0.5, rel=1e-2)
    down_place, right_place = np.unravel_index(kernels.window(3)[0].argmax(), (7, 7))
    assert (down_place - 3, right_place - 3) == (2, -1)
