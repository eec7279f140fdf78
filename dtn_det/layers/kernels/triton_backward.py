# ruff: noqa: ANN001, ANN201, ANN202, N803
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, import-not-found"
"""The backward pass of Dynamic Token Normalization in Triton: see :mod:`dtn_det.layers.kernels.triton_forward`."""

import triton
import triton.language as tl

from dtn_det.layers.kernels.triton_forward import (
    SIZES,
    _axis,
    _blend,
    _column_tile,
    _elements,
    _exponent,
    _moments,
    _read,
    _row_tile,
    _window,
)


@triton.jit
def _transposed(to_mean, to_var, step, bounds, table, fields, position, length, valid, columns, linear, quadratic):
    """Filter two maps with the transposed matrix: for each token of a tile, sum over the outputs that read it."""
    mean = tl.zeros(to_mean.shape, tl.float32)
    var = tl.zeros(to_var.shape, tl.float32)
    low, high = _window(bounds + 2 * fields, fields, position, valid)
    for offset in range(low, high + 1):
        output = position + offset
        inside = valid & (output >= 0) & (output < length)
        best = tl.load(table + output, mask=inside, other=0.0)
        share = tl.load(table + fields + output, mask=inside, other=0.0)
        weight = tl.where(inside, tl.exp(_exponent(linear, quadratic, offset * 1.0, best)), 0.0) * share
        mask = inside[:, None] & columns[None, :]
        mean += weight[:, None] * tl.load(to_mean + offset * step, mask=mask, other=0.0)
        var += weight[:, None] * tl.load(to_var + offset * step, mask=mask, other=0.0)
    return mean, var


@triton.jit
def _reference(
    x, scale, token, group, height, width, num_groups, channels, valid,
    D: tl.constexpr, BLOCK_D: tl.constexpr, HEAD_RMS: tl.constexpr,
):  # fmt: skip
    """For each token of a tile, read the normalised token in the middle of the same image."""
    middle = token // (height * width) * (height * width) + height // 2 * width + width // 2
    scales = scale + middle.to(tl.int64) * num_groups + group
    return _read(x + _elements(middle, group, channels, D, BLOCK_D), scales, valid, tl.arange(0, BLOCK_D) < D, HEAD_RMS)


@triton.jit(do_not_specialize=SIZES)
def output_gradient_kernel(
    grad_y, x, scale, own, coefficients, mean_gate, var_gate, weight, bounds, table, row_mean, row_var,
    direct, to_mean, to_var, to_own, coefficient_sums, gate_sums, channel_sums,
    batch, height, width, num_groups, channels, eps,
    D: tl.constexpr, HEAD_RMS: tl.constexpr, ONLY_VAR: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Propagate the gradient from the output back to the moments over the neighbourhood.

    It writes these tensors:

    * ``direct``: the gradient of the normalised input through the output alone, a map,
    * ``to_mean`` and ``to_var``: the two maps that the transposed filters of both axes carry back to the input,
    * ``to_own`` ``(2, N, G)``: the contribution of each group to the gradients of LayerNorm's mean and variance,
    * ``coefficient_sums`` ``(tiles, G, 3)``, ``gate_sums`` ``(2, tiles, G)`` and ``channel_sums`` ``(2, tiles, C)``:
      sums for the gradients of the parameters, in one slot per tile.
    """
    group = tl.program_id(0) % num_groups
    tile = (tl.program_id(0) // num_groups).to(tl.int64)
    tiles = (tl.num_programs(0) // num_groups).to(tl.int64)
    token, row, valid = _column_tile(tl.program_id(0) // num_groups, batch, height, width, BLOCK_T, COLUMNS)
    columns = tl.arange(0, BLOCK_D) < D
    mask = valid[:, None] & columns[None, :]
    at = _elements(token, group, channels, D, BLOCK_D)
    bounds, table, fields, linear, quadratic = _axis(
        coefficients, bounds, table, group, height, width, num_groups, ALONG_WIDTH=False
    )
    pilot, mean, var, mean_linear, square_linear, mean_quadratic, square_quadratic = _moments(
        row_mean + at, scale, row_var + at, width.to(tl.int64) * channels, 0, bounds, table, fields, row, height,
        valid, columns, linear, quadratic, SCALED=False, SPREAD=True, DERIVATIVES=True,
    )  # fmt: skip
    own_mean, own_var, mean_share, var_share, centre, inverse = _blend(
        own, mean_gate, var_gate, token, group, batch * height * width, valid, pilot + mean, var, eps, ONLY_VAR
    )
    scales = scale + token.to(tl.int64) * num_groups + group
    result = (_read(x + at, scales, valid, columns, HEAD_RMS) - centre) * inverse
    channel = group * D + tl.arange(0, BLOCK_D)
    gain = tl.load(weight + channel, mask=columns, other=0.0).to(tl.float32)[None, :]
    to_y = tl.load(grad_y + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(channel_sums + tile * channels + channel, tl.sum(to_y * result, 0), mask=columns)
    tl.store(channel_sums + (tiles + tile) * channels + channel, tl.sum(to_y, 0), mask=columns)

    to_centred = to_y * gain * inverse
    to_blended_var = -0.5 * to_centred * result * inverse
    own_at = token.to(tl.int64) * num_groups + group
    num_tokens = tl.cast(batch, tl.int64) * height * width
    tl.store(to_own + own_at, -mean_share * tl.sum(to_centred, 1), mask=valid)
    tl.store(to_own + num_tokens * num_groups + own_at, var_share * tl.sum(to_blended_var, 1), mask=valid)
    tl.store(direct + at, to_centred, mask=mask)

    # Gradients of the mean and of the variance over the neighbourhood.
    to_inter_mean = -(1.0 - mean_share) * to_centred
    to_inter_var = (1.0 - var_share) * to_blended_var
    reference = _reference(x, scale, token, group, height, width, num_groups, channels, valid, D, BLOCK_D, HEAD_RMS)
    tl.store(to_mean + at, to_inter_mean - 2.0 * to_inter_var * (pilot - reference + mean), mask=mask)
    tl.store(to_var + at, to_inter_var, mask=mask)

    slot = tile * num_groups + group
    gate_slots = tiles * num_groups
    if not ONLY_VAR:
        by_mean_gate = tl.sum(tl.sum(to_centred * (pilot - own_mean + mean), 1), 0)
        tl.store(gate_sums + slot, by_mean_gate * mean_share * (1.0 - mean_share))
    by_var_gate = tl.sum(tl.sum(to_blended_var * (own_var - var), 1), 0)
    tl.store(gate_sums + gate_slots + slot, by_var_gate * var_share * (1.0 - var_share))
    by_linear = to_inter_mean * mean_linear + to_inter_var * (square_linear - 2.0 * mean * mean_linear)
    by_quadratic = to_inter_mean * mean_quadratic + to_inter_var * (square_quadratic - 2.0 * mean * mean_quadratic)
    tl.store(coefficient_sums + 3 * slot, 0.0)
    tl.store(coefficient_sums + 3 * slot + 1, tl.sum(tl.sum(by_linear, 1), 0))
    tl.store(coefficient_sums + 3 * slot + 2, tl.sum(tl.sum(by_quadratic, 1), 0))


@triton.jit(do_not_specialize=SIZES)
def column_transpose_kernel(
    to_mean, to_var, coefficients, bounds, table,
    to_row_mean, to_row_var,
    batch, height, width, num_groups, channels,
    D: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Apply the transposed filter over the height to ``to_mean`` and ``to_var``."""
    group = tl.program_id(0) % num_groups
    token, row, valid = _column_tile(tl.program_id(0) // num_groups, batch, height, width, BLOCK_T, COLUMNS)
    columns = tl.arange(0, BLOCK_D) < D
    at = _elements(token, group, channels, D, BLOCK_D)
    bounds, table, fields, linear, quadratic = _axis(
        coefficients, bounds, table, group, height, width, num_groups, ALONG_WIDTH=False
    )
    mean, var = _transposed(
        to_mean + at, to_var + at, width.to(tl.int64) * channels, bounds, table, fields, row, height, valid, columns,
        linear, quadratic,
    )  # fmt: skip
    mask = valid[:, None] & columns[None, :]
    tl.store(to_row_mean + at, mean, mask=mask)
    tl.store(to_row_var + at, var, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def input_gradient_kernel(
    x, scale, own, coefficients, bounds, table, direct, to_row_mean, to_row_var, to_own,
    grad_x, coefficient_sums,
    first_slot, batch, height, width, num_groups, channels, divisor,
    D: tl.constexpr, HEAD_RMS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    """Propagate the gradients back through the filter over the width, LayerNorm's statistics and the root mean square.

    Each tile writes one slot of ``coefficient_sums`` ``(slots, G, 3)``; the slots begin at ``first_slot``.
    """
    group = tl.program_id(0) % num_groups
    tile = tl.program_id(0) // num_groups
    token, column, valid = _row_tile(tile, batch, height, width, BLOCK_T)
    columns = tl.arange(0, BLOCK_D) < D
    mask = valid[:, None] & columns[None, :]
    at = _elements(token, group, channels, D, BLOCK_D)
    token_at = token.to(tl.int64) * num_groups
    scales = scale + token_at + group
    bounds, table, fields, linear, quadratic = _axis(
        coefficients, bounds, table, group, height, width, num_groups, ALONG_WIDTH=True
    )
    mean_part, var_part = _transposed(
        to_row_mean + at, to_row_var + at, channels, bounds, table, fields, column, width, valid, columns,
        linear, quadratic,
    )  # fmt: skip
    value = _read(x + at, scales, valid, columns, HEAD_RMS)
    reference = _reference(x, scale, token, group, height, width, num_groups, channels, valid, D, BLOCK_D, HEAD_RMS)

    # All groups contribute to the gradients of LayerNorm's mean and variance.
    groups = tl.arange(0, BLOCK_G)
    shares = to_own + token_at[:, None] + groups[None, :]
    in_use = valid[:, None] & (groups < num_groups)[None, :]
    num_tokens = tl.cast(batch, tl.int64) * height * width
    to_own_mean = tl.sum(tl.load(shares, mask=in_use, other=0.0), 1) / channels
    to_own_var = tl.sum(tl.load(shares + num_tokens * num_groups, mask=in_use, other=0.0), 1) * 2.0 / divisor
    own_mean = tl.load(own + token, mask=valid, other=0.0)
    gradient = tl.load(direct + at, mask=mask, other=0.0) + mean_part + 2.0 * var_part * (value - reference)
    gradient += to_own_mean[:, None] + to_own_var[:, None] * (value - own_mean[:, None])
    if HEAD_RMS:
        along = tl.sum(tl.where(columns[None, :], gradient * value, 0.0), 1) / D
        gradient = (gradient - value * along[:, None]) * tl.load(scales, mask=valid, other=0.0)[:, None]
    tl.store(grad_x + at, gradient.to(grad_x.dtype.element_ty), mask=mask)

    pilot, mean, _var, mean_linear, square_linear, mean_quadratic, square_quadratic = _moments(
        x + at, scales, x + at, channels, num_groups, bounds, table, fields, column, width, valid, columns,
        linear, quadratic, SCALED=HEAD_RMS, SPREAD=False, DERIVATIVES=True,
    )  # fmt: skip
    to_var = tl.load(to_row_var + at, mask=mask, other=0.0)
    to_mean = tl.load(to_row_mean + at, mask=mask, other=0.0) + 2.0 * to_var * (pilot - reference + mean)
    by_linear = to_mean * mean_linear + to_var * (square_linear - 2.0 * mean * mean_linear)
    by_quadratic = to_mean * mean_quadratic + to_var * (square_quadratic - 2.0 * mean * mean_quadratic)
    slot = (tl.cast(first_slot, tl.int64) + tile) * num_groups + group
    tl.store(coefficient_sums + 3 * slot, tl.sum(tl.sum(by_linear, 1), 0))
    tl.store(coefficient_sums + 3 * slot + 1, 0.0)
    tl.store(coefficient_sums + 3 * slot + 2, tl.sum(tl.sum(by_quadratic, 1), 0))
