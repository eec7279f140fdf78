"""DTN on a CUDA device: whether its Triton kernels can be used, and their launch.

Triton comes with PyTorch's CUDA builds and is optional: without it, and for all that the kernels do not cover, the
layer runs :mod:`dtn_det.layers.plain`. A launch cuts the maps into tiles, makes the buffers, and adds up the sums of
the tiles; nothing here waits for the device. With ``TRITON_INTERPRET=1`` in the environment the same functions run on a
CPU.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
import warnings
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from dtn_det.layers.kernels import KernelStatus

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# A program holds a whole group of channels of a few tokens, COLUMNS or more, in registers.
MAX_GROUP_CHANNELS = 1024
# Elements of a program's tile, and its warps; the statistics of tokens want smaller ones, as they loop over groups.
TILE = 2048
WARPS = 8
TOKEN_TILE = 512
TOKEN_WARPS = 4
# Neighbouring columns of a tile of the filters over the height.
COLUMNS = 4
AXIS_BLOCK = 128
# The kernels count tokens and programs in 32 bits and elements in 64.
MAX_TOKENS = 1 << 30
# Weights below a thousandth of the rounding error change nothing.
DEPTH = -math.log(torch.finfo(torch.float32).eps * 1e-3)


@functools.cache
def load() -> tuple[tuple[ModuleType, ModuleType] | None, str]:
    """The modules of the kernels, forward and backward, or None, and a line about them."""
    if os.environ.get("DTN_DET_NATIVE", "1") == "0":
        return None, "switched off by DTN_DET_NATIVE=0"
    try:
        triton = importlib.import_module("triton")
    except ImportError as error:
        return None, f"not available: Triton cannot be imported ({error})"
    kernels = tuple(
        importlib.import_module(f"dtn_det.layers.kernels.triton_{name}") for name in ("forward", "backward")
    )
    return (kernels[0], kernels[1]), f"Triton {triton.__version__}"


def _kernels() -> tuple[ModuleType, ModuleType]:
    kernels, detail = load()
    if kernels is None:
        raise RuntimeError(f"expected DTN's Triton kernels, but they are {detail}")
    return kernels


def fits(x: Tensor, num_groups: int) -> bool:
    """Whether the kernels are made for a map ``(B, H, W, C)`` of this shape and dtype."""
    batch, height, width, channels = x.shape
    return (
        x.dtype in DTYPES
        and x.numel() > 0
        and channels // num_groups <= MAX_GROUP_CHANNELS
        and batch * height * (width + COLUMNS) * num_groups <= MAX_TOKENS
    )


@dataclass(frozen=True)
class Tiling:
    """How a map is cut into tiles."""

    batch: int
    height: int
    width: int
    channels: int
    num_groups: int

    @classmethod
    def of(cls, x: Tensor, coefficients: Tensor) -> Tiling:
        """That of a map ``(B, H, W, C)`` and coefficients ``(G, 3)``."""
        batch, height, width, channels = x.shape
        return cls(batch, height, width, channels, coefficients.shape[0])

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """The sizes in the order in which the kernels take them."""
        return self.batch, self.height, self.width, self.num_groups, self.channels

    @property
    def num_tokens(self) -> int:
        """``N = B H W``."""
        return self.batch * self.height * self.width

    @property
    def group_channels(self) -> int:
        """``D = C / G``."""
        return self.channels // self.num_groups

    @property
    def block_channels(self) -> int:
        """Channels of a tile: blocks are powers of two."""
        return _power_of_two(self.group_channels)

    @property
    def block_tokens(self) -> int:
        """Tokens of a tile."""
        return max(COLUMNS, TILE // self.block_channels)

    @property
    def row_tiles(self) -> int:
        """Tiles of consecutive tokens."""
        return -(-self.num_tokens // self.block_tokens)

    @property
    def column_tiles(self) -> int:
        """Tiles of strips of ``COLUMNS`` columns."""
        strips = -(-self.width // COLUMNS)
        return -(-(self.batch * strips * self.height * COLUMNS) // self.block_tokens)

    @property
    def tile_options(self) -> dict[str, int]:
        """What the kernels over tiles are compiled for."""
        return {
            "D": self.group_channels,
            "BLOCK_T": self.block_tokens,
            "BLOCK_D": self.block_channels,
            "num_warps": WARPS,
        }


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not below ``number``."""
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class _Moments:
    """What both directions need: the axes' tables, the tokens' statistics and the moments within rows."""

    bounds: Tensor  # (4, G, H + W) int32
    table: Tensor  # (4, G, H + W)
    scale: Tensor  # (N, G); empty without the root mean square
    own: Tensor  # (2, N)
    row_mean: Tensor  # (B, H, W, C)
    row_var: Tensor  # (B, H, W, C)


def _divisor(channels: int, unbiased: bool) -> float:
    return float(channels - 1 if unbiased else channels)


def _moments(plan: Tiling, x: Tensor, coefficients: Tensor, eps: float, head_rms: bool, unbiased: bool) -> _Moments:
    kernels, _ = _kernels()
    positions = plan.height + plan.width
    new = functools.partial(torch.empty, dtype=torch.float32, device=x.device)
    bounds = torch.empty(4, plan.num_groups, positions, dtype=torch.int32, device=x.device)
    table = new(4, plan.num_groups, positions)
    kernels.axis_kernel[(positions, plan.num_groups)](
        coefficients, bounds, table, plan.height, plan.width, DEPTH, BLOCK=AXIS_BLOCK, num_warps=1
    )
    scale = new(plan.num_tokens if head_rms else 0, plan.num_groups)
    own = new(2, plan.num_tokens)
    block_tokens = max(1, TOKEN_TILE // plan.block_channels)
    kernels.token_kernel[(-(-plan.num_tokens // block_tokens),)](
        x,
        scale,
        own,
        *plan.sizes,
        _divisor(plan.channels, unbiased),
        eps,
        D=plan.group_channels,
        HEAD_RMS=head_rms,
        BLOCK_T=block_tokens,
        BLOCK_D=plan.block_channels,
        num_warps=TOKEN_WARPS,
    )
    row_mean = new(x.shape)
    row_var = new(x.shape)
    kernels.row_moments_kernel[(plan.row_tiles * plan.num_groups,)](
        x, scale, coefficients, bounds, table, row_mean, row_var, *plan.sizes, HEAD_RMS=head_rms, **plan.tile_options
    )
    return _Moments(bounds, table, scale, own, row_mean, row_var)


def forward(
    x: Tensor,
    coefficients: Tensor,
    mean_gate: Tensor | None,
    var_gate: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    head_rms: bool,
    unbiased: bool,
    out_dtype: torch.dtype,
) -> Tensor:
    """:func:`dtn_det.layers.plain.dynamic_token_norm` without a mask, computed in float32.

    Args:
        x: ``(B, H, W, C)`` of one of ``DTYPES``; the parameters are float32.
        coefficients: ``(G, 3)``.
        mean_gate: ``(G,)`` or None.
        var_gate: ``(G,)``.
        weight: ``(C,)``.
        bias: ``(C,)``.
        eps: Added to variances and mean squares.
        head_rms: Divide each group by its root mean square first.
        unbiased: Unbiased intra-token variance.
        out_dtype: The dtype of the output.

    Returns:
        ``(B, H, W, C)``, contiguous.
    """
    kernels, _ = _kernels()
    plan = Tiling.of(x, coefficients)
    x, coefficients, var_gate, weight, bias = (t.contiguous() for t in (x, coefficients, var_gate, weight, bias))
    mean_gate = None if mean_gate is None else mean_gate.contiguous()
    y = torch.empty(x.shape, dtype=out_dtype, device=x.device)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call, unused-ignore]
        moments = _moments(plan, x, coefficients, eps, head_rms, unbiased)
        kernels.output_kernel[(plan.column_tiles * plan.num_groups,)](
            x,
            moments.scale,
            moments.own,
            coefficients,
            var_gate if mean_gate is None else mean_gate,
            var_gate,
            weight,
            bias,
            moments.bounds,
            moments.table,
            moments.row_mean,
            moments.row_var,
            y,
            *plan.sizes,
            eps,
            HEAD_RMS=head_rms,
            ONLY_VAR=mean_gate is None,
            COLUMNS=COLUMNS,
            **plan.tile_options,
        )
    return y


def backward(
    grad_y: Tensor,
    x: Tensor,
    coefficients: Tensor,
    mean_gate: Tensor | None,
    var_gate: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    head_rms: bool,
    unbiased: bool,
) -> list[Tensor]:
    """The gradients of :func:`forward` by its six tensors, in their dtypes; an empty one stands for that of None."""
    _, kernels = _kernels()
    plan = Tiling.of(x, coefficients)
    grad_y, x, coefficients, var_gate, weight = (
        tensor.contiguous() for tensor in (grad_y, x, coefficients, var_gate, weight)
    )
    mean_gate = None if mean_gate is None else mean_gate.contiguous()
    new = functools.partial(torch.empty, dtype=torch.float32, device=x.device)
    grad_x = torch.empty_like(x)
    direct, to_mean, to_var = (new(x.shape) for _ in range(3))
    to_own = new(2, plan.num_tokens, plan.num_groups)
    tiles = plan.column_tiles
    coefficient_sums = new(tiles + plan.row_tiles, plan.num_groups, 3)
    gate_sums = new(2, tiles, plan.num_groups)
    channel_sums = new(2, tiles, plan.channels)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call, unused-ignore]
        moments = _moments(plan, x, coefficients, eps, head_rms, unbiased)
        kernels.output_gradient_kernel[(tiles * plan.num_groups,)](
            grad_y,
            x,
            moments.scale,
            moments.own,
            coefficients,
            var_gate if mean_gate is None else mean_gate,
            var_gate,
            weight,
            moments.bounds,
            moments.table,
            moments.row_mean,
            moments.row_var,
            direct,
            to_mean,
            to_var,
            to_own,
            coefficient_sums,
            gate_sums,
            channel_sums,
            *plan.sizes,
            eps,
            HEAD_RMS=head_rms,
            ONLY_VAR=mean_gate is None,
            COLUMNS=COLUMNS,
            **plan.tile_options,
        )
        # The moments within rows have done their work: their memory takes the gradients that go to them.
        to_row_mean, to_row_var = moments.row_mean, moments.row_var
        kernels.column_transpose_kernel[(tiles * plan.num_groups,)](
            to_mean,
            to_var,
            coefficients,
            moments.bounds,
            moments.table,
            to_row_mean,
            to_row_var,
            *plan.sizes,
            COLUMNS=COLUMNS,
            **plan.tile_options,
        )
        kernels.input_gradient_kernel[(plan.row_tiles * plan.num_groups,)](
            x,
            moments.scale,
            moments.own,
            coefficients,
            moments.bounds,
            moments.table,
            direct,
            to_row_mean,
            to_row_var,
            to_own,
            grad_x,
            coefficient_sums,
            tiles,
            *plan.sizes,
            _divisor(plan.channels, unbiased),
            HEAD_RMS=head_rms,
            BLOCK_G=_power_of_two(plan.num_groups),
            **plan.tile_options,
        )
    return [
        grad_x,
        coefficient_sums.sum(0),
        x.new_empty(0) if mean_gate is None else gate_sums[0].sum(0),
        gate_sums[1].sum(0),
        channel_sums[0].sum(0),
        channel_sums[1].sum(0),
    ]


def status() -> KernelStatus:
    """Whether the Triton kernels are in use on this machine, and why not."""
    if not torch.cuda.is_available():
        return KernelStatus(False, "no CUDA device")
    kernels, detail = load()
    return KernelStatus(kernels is not None, detail)


def is_usable(x: Tensor, num_groups: int, head_rms: bool, only_var: bool) -> bool:
    """Whether the kernels cover this input and work on its device.

    The first time for a device, a dtype and a number of channels the kernels are compiled and run on a tiny map. If
    that fails, a warning says so, and the answer stays False.

    Args:
        x: ``(B, H, W, C)``.
        num_groups: ``G``.
        head_rms: As for the layer.
        only_var: As for the layer.
    """
    if x.device.type != "cuda" or not fits(x, num_groups):
        return False
    answer: bool = works(x.device.index, x.dtype, x.shape[-1], num_groups, head_rms, only_var)
    return answer


def works(
    device_index: int, dtype: torch.dtype, channels: int, num_groups: int, head_rms: bool, only_var: bool
) -> bool:
    """:func:`try_out`, as a constant for a graph that is being compiled."""
    return try_out(device_index, dtype, channels, num_groups, head_rms, only_var)


# What `torch.compiler.assume_constant_result` does, without the compiler's import, which takes longer than torch's.
works._dynamo_marked_constant = True  # type: ignore[attr-defined]


def trial_device(device_index: int) -> torch.device:
    """The device of this index."""
    return torch.device("cuda", device_index)


@functools.cache
def try_out(
    device_index: int, dtype: torch.dtype, channels: int, num_groups: int, head_rms: bool, only_var: bool
) -> bool:
    """Compile the kernels for these arguments and run them once; a warning says what went wrong."""
    if load()[0] is None:
        return False
    device = trial_device(device_index)
    try:
        with torch.no_grad():
            x = torch.zeros(1, 2, 2, channels, dtype=dtype, device=device)
            gates, weight = torch.zeros(num_groups, device=device), torch.zeros(channels, device=device)
            coefficients = torch.zeros(num_groups, 3, device=device)
            parameters = (coefficients, None if only_var else gates, gates, weight, weight)
            y = forward(x, *parameters, 1e-5, head_rms, False, torch.float32)
            backward(y, x, *parameters, 1e-5, head_rms, False)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # Triton, its compilers and the driver raise all kinds
        warnings.warn(
            f"DTN's Triton kernels do not work on {device} ({type(error).__name__}: {error}): DTN runs its slower "
            "plain form; set DTN_DET_NATIVE=0 to silence this",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
