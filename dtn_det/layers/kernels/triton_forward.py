# ruff: noqa: ANN001, ANN201, ANN202, N803
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, import-not-found"
"""Dynamic Token Normalization in Triton: the kernels, launched by :mod:`dtn_det.layers.kernels.gpu`.

A filter over an axis is a band matrix. Its weights are computed in registers from four numbers per position
(:func:`axis_kernel`), relative to the largest weight, so no matrix is stored and nothing overflows.

The variance over the neighbours is computed first along the width and then along the height, by the law of total
variance. Each axis needs one pass over the taps. Values are relative to a pilot: the source with the largest weight
``w``. The error of such a variance is at most ``1 + 1 / w`` roundings, however large the means are.

In the backward pass, ``m = P x`` and ``v = P x^2 - m^2`` give ``dx = P' (dm - 2 dv m) + 2 x P' dv``, which takes two
linear filters. All values are taken relative to the token in the middle of the image, which only changes the rounding.

A program handles ``BLOCK_T`` tokens of one group of ``D`` channels. Maps are ``(B, H, W, C)``, contiguous. Sums over
tokens use one slot per program, so results do not depend on the order of execution.

The arguments of a kernel are listed by kind: tensors that it reads, tensors that it writes, sizes and numbers, and
compile-time constants.
"""

import triton
import triton.language as tl

# Arguments for which Triton must not compile again when their value changes. They differ from image to image, or do not
# affect alignment.
SIZES = ["batch", "height", "width", "num_groups", "first_slot"]


@triton.jit
def _best_distance(linear, quadratic, low, high):
    """Return the distance in [low, high] with the largest weight."""
    vertex = -linear / (2.0 * tl.where(quadratic < 0, quadratic, -1.0))
    near_vertex = tl.minimum(tl.maximum(tl.floor(vertex + 0.5), low), high)
    end = tl.where(quadratic * (low + high) + linear < 0, low, high)
    return tl.where(quadratic < 0, near_vertex, end)


@triton.jit
def _exponent(linear, quadratic, distance, best):
    """Return ``quadratic d^2 + linear d`` relative to its value at ``best``, without cancellation."""
    return (distance - best) * (quadratic * (distance + best) + linear)


@triton.jit(do_not_specialize=SIZES)
def axis_kernel(coefficients, bounds, table, height, width, depth, BLOCK: tl.constexpr):
    """Describe the weights around each position of both axes; there is one program per position and group.

    Args:
        coefficients: ``(G, 3)``.
        bounds: ``(4, G, H + W)`` int32: the first and the last source of an output, and the first and the last output
            of a source. Weights outside these bounds are left out.
        table: ``(4, G, H + W)`` float32: the distance with the largest weight; the reciprocal of the sum of the
            weights, each divided by the largest; and the two means of the exponent's derivatives, relative to the
            derivatives at that distance.
        depth: A weight is left out if its exponent is more than ``depth`` below the largest exponent.
        BLOCK: Number of positions of the axis to process at a time.
    """
    spot = tl.program_id(0)
    group = tl.program_id(1)
    along_width = spot >= height
    length = tl.where(along_width, width, height)
    here = spot - tl.where(along_width, height, 0)
    linear = tl.load(coefficients + 3 * group + tl.where(along_width, 0, 1)).to(tl.float32)
    quadratic = tl.load(coefficients + 3 * group + 2).to(tl.float32)
    low = (here - (length - 1)).to(tl.float32)
    best = _best_distance(linear, quadratic, low, here.to(tl.float32))

    total = tl.zeros([BLOCK], tl.float32)
    first_order = tl.zeros([BLOCK], tl.float32)
    second_order = tl.zeros([BLOCK], tl.float32)
    source_first = tl.full([BLOCK], 2147483647, tl.int32)
    source_last = tl.full([BLOCK], -1, tl.int32)
    output_first = tl.full([BLOCK], 2147483647, tl.int32)
    output_last = tl.full([BLOCK], -1, tl.int32)
    for start in range(0, length, BLOCK):
        other = start + tl.arange(0, BLOCK)
        inside = other < length
        distance = (here - other).to(tl.float32)
        exponent = _exponent(linear, quadratic, distance, best)
        weight = tl.where(inside, tl.exp(exponent), 0.0)
        total += weight
        first_order += weight * (distance - best)
        second_order += weight * ((distance - best) * (distance + best))
        counts = inside & (exponent >= -depth)
        source_first = tl.minimum(source_first, tl.where(counts, other, 2147483647))
        source_last = tl.maximum(source_last, tl.where(counts, other, -1))

        other_best = _best_distance(linear, quadratic, (other - (length - 1)).to(tl.float32), other.to(tl.float32))
        counts = inside & (_exponent(linear, quadratic, -distance, other_best) >= -depth)
        output_first = tl.minimum(output_first, tl.where(counts, other, 2147483647))
        output_last = tl.maximum(output_last, tl.where(counts, other, -1))

    positions = tl.num_programs(0)
    fields = tl.num_programs(1) * positions
    at = group * positions + spot
    total = tl.sum(total, 0)
    tl.store(table + at, best)
    tl.store(table + fields + at, 1.0 / total)
    tl.store(table + 2 * fields + at, tl.sum(first_order, 0) / total)
    tl.store(table + 3 * fields + at, tl.sum(second_order, 0) / total)
    # If an output has no significant weight, its coefficients are NaN, and the result must be NaN too. A source without
    # a significant weight is read by no output.
    first = tl.min(source_first, 0)
    last = tl.max(source_last, 0)
    tl.store(bounds + at, tl.where(last < 0, 0, first))
    tl.store(bounds + fields + at, tl.where(last < 0, length - 1, last))
    first = tl.min(output_first, 0)
    last = tl.max(output_last, 0)
    tl.store(bounds + 2 * fields + at, tl.where(last < 0, here, first))
    tl.store(bounds + 3 * fields + at, tl.where(last < 0, here, last))


@triton.jit
def _window(bounds, fields, position, valid):
    """Return the smallest and the largest offset from a position of the tile to the positions within its bounds."""
    first = tl.load(bounds + position, mask=valid, other=0) - position
    last = tl.load(bounds + fields + position, mask=valid, other=0) - position
    return tl.min(tl.where(valid, first, 0), 0), tl.max(tl.where(valid, last, 0), 0)


@triton.jit
def _read(values, scales, rows, columns, SCALED: tl.constexpr):
    """Read a tile in float32, multiply each row by its scale, and return 0 outside ``rows`` and ``columns``."""
    value = tl.load(values, mask=rows[:, None] & columns[None, :], other=0.0).to(tl.float32)
    if SCALED:
        value *= tl.load(scales, mask=rows, other=0.0)[:, None]
    return value


@triton.jit
def _axis(coefficients, bounds, table, group, height, width, num_groups, ALONG_WIDTH: tl.constexpr):
    """Return the results of :func:`axis_kernel` for an axis of a group, and the group's coefficients for this axis.

    Returns pointers to the first position of the axis in ``bounds`` and ``table``, the length of a row of these arrays,
    and the linear and the quadratic coefficient.
    """
    start = group * (height + width)
    if ALONG_WIDTH:
        start += height
    fields = num_groups * (height + width)
    linear = tl.load(coefficients + 3 * group + (0 if ALONG_WIDTH else 1)).to(tl.float32)
    quadratic = tl.load(coefficients + 3 * group + 2).to(tl.float32)
    return bounds + start, table + start, fields, linear, quadratic


@triton.jit
def _moments(
    values, scales, spreads, step, scale_step, bounds, table, fields, position, length, valid, columns,
    linear, quadratic, SCALED: tl.constexpr, SPREAD: tl.constexpr, DERIVATIVES: tl.constexpr,
):  # fmt: skip
    """Compute mean and variance over the sources of each token of a tile, along one axis.

    ``values`` and ``spreads`` (variances to add) point at the tile itself. The next position along the axis is ``step``
    elements further. Returns the pilot, the mean relative to the pilot, and the variance. With ``DERIVATIVES``, also
    returns the derivatives of this mean and of the second moment around the pilot, with respect to the linear and to
    the quadratic coefficient.
    """
    best = tl.load(table + position, mask=valid, other=0.0)
    share = tl.load(table + fields + position, mask=valid, other=0.0)
    linear_mean = tl.load(table + 2 * fields + position, mask=valid, other=0.0)
    quadratic_mean = tl.load(table + 3 * fields + position, mask=valid, other=0.0)
    nearest = -best.to(tl.int32)
    inside = valid & (position + nearest >= 0) & (position + nearest < length)
    pilot = _read(
        values + (nearest * step)[:, None], scales + nearest.to(tl.int64) * scale_step, inside, columns, SCALED
    )
    mean = tl.zeros_like(pilot)
    square = tl.zeros_like(pilot)
    mean_linear = tl.zeros_like(pilot)
    square_linear = tl.zeros_like(pilot)
    mean_quadratic = tl.zeros_like(pilot)
    square_quadratic = tl.zeros_like(pilot)
    low, high = _window(bounds, fields, position, valid)
    for offset in range(low, high + 1):
        inside = valid & (position + offset >= 0) & (position + offset < length)
        distance = offset * -1.0
        exponent = _exponent(linear, quadratic, distance, best)
        weight = tl.where(inside, tl.exp(exponent), 0.0) * share
        deviation = _read(values + offset * step, scales + offset * scale_step, inside, columns, SCALED) - pilot
        power = deviation * deviation
        if SPREAD:
            power += tl.load(spreads + offset * step, mask=inside[:, None] & columns[None, :], other=0.0)
        mean += weight[:, None] * deviation
        square += weight[:, None] * power
        if DERIVATIVES:
            by_linear = (weight * (distance - best - linear_mean))[:, None]
            by_quadratic = (weight * ((distance - best) * (distance + best) - quadratic_mean))[:, None]
            mean_linear += by_linear * deviation
            square_linear += by_linear * power
            mean_quadratic += by_quadratic * deviation
            square_quadratic += by_quadratic * power
    var = tl.maximum(square - mean * mean, 0.0)
    return pilot, mean, var, mean_linear, square_linear, mean_quadratic, square_quadratic


@triton.jit
def _row_tile(tile, batch, height, width, BLOCK_T: tl.constexpr):
    """Return the indices and columns of a tile of consecutive tokens, and which of the tokens exist."""
    token = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    return token, token % width, token < batch * height * width


@triton.jit
def _column_tile(tile, batch, height, width, BLOCK_T: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the indices and rows of a tile of neighbouring columns, row after row, and which of the tokens exist."""
    index = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    line = index // COLUMNS
    strips = (width + COLUMNS - 1) // COLUMNS
    row = line % height
    image = line // height // strips
    column = (line // height) % strips * COLUMNS + index % COLUMNS
    return (image * height + row) * width + column, row, (image < batch) & (column < width)


@triton.jit
def _blend(
    own, mean_gate, var_gate, token, group, num_tokens, valid, inter_mean, inter_var, eps, ONLY_VAR: tl.constexpr
):
    """Blend the moments over the neighbourhood with LayerNorm's, according to the gates of the group.

    Returns LayerNorm's mean and variance, the shares of both in the blend, and the blended mean and reciprocal standard
    deviation.
    """
    own_mean = tl.load(own + token, mask=valid, other=0.0)[:, None]
    own_var = tl.load(own + num_tokens + token, mask=valid, other=1.0)[:, None]
    var_share = tl.sigmoid(tl.load(var_gate + group).to(tl.float32))
    mean_share = 1.0
    centre = own_mean
    if not ONLY_VAR:
        mean_share = tl.sigmoid(tl.load(mean_gate + group).to(tl.float32))
        centre = mean_share * own_mean + (1.0 - mean_share) * inter_mean
    inverse = tl.rsqrt(var_share * own_var + (1.0 - var_share) * inter_var + eps)
    return own_mean, own_var, mean_share, var_share, centre, inverse


@triton.jit
def _elements(token, group, channels, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Return the offsets of a group's channels in a map, for each token."""
    return token.to(tl.int64)[:, None] * channels + (group * D + tl.arange(0, BLOCK_D))[None, :]


@triton.jit(do_not_specialize=SIZES)
def token_kernel(
    x,
    scale, own,
    batch, height, width, num_groups, channels, divisor, eps,
    D: tl.constexpr, HEAD_RMS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Compute the reciprocal root mean squares ``scale`` ``(N, G)`` and LayerNorm's statistics ``own`` ``(2, N)``."""
    num_tokens = batch * height * width
    token = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    valid = token < num_tokens
    columns = tl.arange(0, BLOCK_D) < D
    mean = tl.zeros([BLOCK_T], tl.float32)
    squares = tl.zeros([BLOCK_T], tl.float32)
    for group in range(num_groups):
        value = _read(x + _elements(token, group, channels, D, BLOCK_D), scale, valid, columns, False)
        if HEAD_RMS:
            factor = tl.rsqrt(tl.sum(value * value, 1) / D + eps)
            tl.store(scale + token.to(tl.int64) * num_groups + group, factor, mask=valid)
            value *= factor[:, None]
        group_mean = tl.sum(value, 1) / D
        deviation = tl.where(columns[None, :], value - group_mean[:, None], 0.0)
        # Merge the moments of this group into the moments of the groups before it.
        shift = group_mean - mean
        portion = 1.0 / (group + 1)
        mean += shift * portion
        squares += tl.sum(deviation * deviation, 1) + shift * shift * (group * portion * D)
    tl.store(own + token, mean, mask=valid)
    tl.store(own + num_tokens + token, squares / divisor, mask=valid)


@triton.jit(do_not_specialize=SIZES)
def row_moments_kernel(
    x, scale, coefficients, bounds, table,
    row_mean, row_var,
    batch, height, width, num_groups, channels,
    D: tl.constexpr, HEAD_RMS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Compute the moments along the width: the maps ``row_mean`` and ``row_var``."""
    group = tl.program_id(0) % num_groups
    token, column, valid = _row_tile(tl.program_id(0) // num_groups, batch, height, width, BLOCK_T)
    columns = tl.arange(0, BLOCK_D) < D
    at = _elements(token, group, channels, D, BLOCK_D)
    scales = scale + token.to(tl.int64) * num_groups + group
    bounds, table, fields, linear, quadratic = _axis(
        coefficients, bounds, table, group, height, width, num_groups, ALONG_WIDTH=True
    )
    pilot, mean, var, _1, _2, _3, _4 = _moments(
        x + at, scales, x + at, channels, num_groups, bounds, table, fields, column, width, valid, columns,
        linear, quadratic, SCALED=HEAD_RMS, SPREAD=False, DERIVATIVES=False,
    )  # fmt: skip
    mask = valid[:, None] & columns[None, :]
    tl.store(row_mean + at, pilot + mean, mask=mask)
    tl.store(row_var + at, var, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def output_kernel(
    x, scale, own, coefficients, mean_gate, var_gate, weight, bias, bounds, table, row_mean, row_var,
    y,
    batch, height, width, num_groups, channels, eps,
    D: tl.constexpr, HEAD_RMS: tl.constexpr, ONLY_VAR: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Compute the moments along the height from ``row_mean`` and ``row_var``, blend LayerNorm's in, and normalise."""
    group = tl.program_id(0) % num_groups
    token, row, valid = _column_tile(tl.program_id(0) // num_groups, batch, height, width, BLOCK_T, COLUMNS)
    columns = tl.arange(0, BLOCK_D) < D
    at = _elements(token, group, channels, D, BLOCK_D)
    bounds, table, fields, linear, quadratic = _axis(
        coefficients, bounds, table, group, height, width, num_groups, ALONG_WIDTH=False
    )
    pilot, mean, var, _1, _2, _3, _4 = _moments(
        row_mean + at, scale, row_var + at, width.to(tl.int64) * channels, 0, bounds, table, fields, row, height,
        valid, columns, linear, quadratic, SCALED=False, SPREAD=True, DERIVATIVES=False,
    )  # fmt: skip
    _own_mean, _own_var, _mean_share, _var_share, centre, inverse = _blend(
        own, mean_gate, var_gate, token, group, batch * height * width, valid, pilot + mean, var, eps, ONLY_VAR
    )
    value = _read(x + at, scale + token.to(tl.int64) * num_groups + group, valid, columns, HEAD_RMS)
    channel = group * D + tl.arange(0, BLOCK_D)
    gain = tl.load(weight + channel, mask=columns, other=0.0).to(tl.float32)[None, :]
    shift = tl.load(bias + channel, mask=columns, other=0.0).to(tl.float32)[None, :]
    result = (value - centre) * inverse * gain + shift
    tl.store(y + at, result.to(y.dtype.element_ty), mask=valid[:, None] & columns[None, :])
