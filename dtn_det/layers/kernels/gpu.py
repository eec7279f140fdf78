"""DTN on a CUDA device: a check that its Triton kernels can be used, and their launch.

Triton comes with PyTorch's CUDA builds and is optional: without it, and for inputs that the kernels do not support, the
layer runs :mod:`dtn_det.layers.plain`. A launch cuts the maps into tiles, allocates the buffers, and adds up the sums
of the tiles; nothing here waits for the device. With ``TRITON_INTERPRET=1`` in the environment the same functions run
on a CPU.
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

from dtn_det.layers.kernels import KernelStatus, check_tensors
from dtn_det.layers.plain import DTNOptions, DTNParameters

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Largest number of channels of a group. A program keeps all of them in registers, for at least COLUMNS tokens.
MAX_GROUP_CHANNELS = 1024
# TILE is the number of elements in the tile of a program, and WARPS its number of warps. TOKEN_TILE and TOKEN_WARPS are
# for the kernel that computes statistics of tokens. Its tiles are smaller, because it loops over groups.
TILE = 2048
WARPS = 8
TOKEN_TILE = 512
TOKEN_WARPS = 4
# Number of neighbouring columns in a tile of the filters over the height.
COLUMNS = 4
AXIS_BLOCK = 128
# The kernels index tokens and programs with 32 bits, and elements with 64.
MAX_TOKENS = 1 << 30
# Weights whose exponent is this far below the largest one are left out: they are below a thousandth of the rounding
# error.
DEPTH = -math.log(torch.finfo(torch.float32).eps * 1e-3)


@functools.cache
def load() -> tuple[tuple[ModuleType, ModuleType] | None, str]:
    """Import the two modules of the kernels, for the forward and the backward pass.

    Returns:
        The modules and Triton's version. If Triton is missing or switched off: None and the reason.
    """
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
    """Return whether the kernels support a map ``(B, H, W, C)`` of this shape and dtype."""
    batch, height, width, channels = x.shape
    return (
        x.dtype in DTYPES
        and x.numel() > 0
        and channels // num_groups <= MAX_GROUP_CHANNELS
        and batch * height * (width + COLUMNS) * num_groups <= MAX_TOKENS
    )


@dataclass(frozen=True)
class Tiling:
    """How a map ``(B, H, W, C)`` of ``G`` groups of channels is cut into tiles."""

    batch: int
    height: int
    width: int
    channels: int
    num_groups: int

    @classmethod
    def of(cls, x: Tensor, parameters: DTNParameters) -> Tiling:
        """Cut a map ``(B, H, W, C)`` into tiles."""
        batch, height, width, channels = x.shape
        return cls(batch, height, width, channels, parameters.coefficients.shape[0])

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """All sizes, in the order of the kernels' arguments."""
        return self.batch, self.height, self.width, self.num_groups, self.channels

    @property
    def num_tokens(self) -> int:
        """Number of tokens ``N = B H W``."""
        return self.batch * self.height * self.width

    @property
    def group_channels(self) -> int:
        """Number of channels of a group, ``D = C / G``."""
        return self.channels // self.num_groups

    @property
    def block_channels(self) -> int:
        """Number of channels of a tile: the smallest power of two that is at least ``D``, as Triton requires."""
        return _power_of_two(self.group_channels)

    @property
    def block_tokens(self) -> int:
        """Number of tokens of a tile."""
        return max(COLUMNS, TILE // self.block_channels)

    @property
    def row_tiles(self) -> int:
        """Number of tiles of consecutive tokens."""
        return -(-self.num_tokens // self.block_tokens)

    @property
    def column_tiles(self) -> int:
        """Number of tiles, if the map is cut into strips of ``COLUMNS`` columns."""
        strips = -(-self.width // COLUMNS)
        return -(-(self.batch * strips * self.height * COLUMNS) // self.block_tokens)

    @property
    def tile_options(self) -> dict[str, int]:
        """The compile-time arguments of the kernels that work on tiles."""
        return {
            "D": self.group_channels,
            "BLOCK_T": self.block_tokens,
            "BLOCK_D": self.block_channels,
            "num_warps": WARPS,
        }


def _power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least ``number``."""
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class _Statistics:
    """Intermediate results that both passes need: tables of the axes, statistics of tokens, moments within rows.

    ``N`` is the number of tokens of the batch, ``B * H * W``, and ``G`` the number of groups of channels.
    """

    bounds: Tensor  # (4, G, H + W) int32
    table: Tensor  # (4, G, H + W)
    scale: Tensor  # (N, G); empty without the option head_rms
    own: Tensor  # (2, N)
    row_mean: Tensor  # (B, H, W, C)
    row_var: Tensor  # (B, H, W, C)


def _divisor(channels: int, unbiased: bool) -> float:
    return float(channels - 1 if unbiased else channels)


def _statistics(tiling: Tiling, x: Tensor, coefficients: Tensor, options: DTNOptions) -> _Statistics:
    kernels, _ = _kernels()
    positions = tiling.height + tiling.width
    new = functools.partial(torch.empty, dtype=torch.float32, device=x.device)
    bounds = torch.empty(4, tiling.num_groups, positions, dtype=torch.int32, device=x.device)
    table = new(4, tiling.num_groups, positions)
    kernels.axis_kernel[(positions, tiling.num_groups)](
        coefficients, bounds, table, tiling.height, tiling.width, DEPTH, BLOCK=AXIS_BLOCK, num_warps=1
    )
    scale = new(tiling.num_tokens if options.head_rms else 0, tiling.num_groups)
    own = new(2, tiling.num_tokens)
    block_tokens = max(1, TOKEN_TILE // tiling.block_channels)
    kernels.token_kernel[(-(-tiling.num_tokens // block_tokens),)](
        x, scale, own, *tiling.sizes, _divisor(tiling.channels, options.unbiased), options.eps,
        D=tiling.group_channels, HEAD_RMS=options.head_rms,
        BLOCK_T=block_tokens, BLOCK_D=tiling.block_channels, num_warps=TOKEN_WARPS,
    )  # fmt: skip
    row_mean = new(x.shape)
    row_var = new(x.shape)
    kernels.row_moments_kernel[(tiling.row_tiles * tiling.num_groups,)](
        x, scale, coefficients, bounds, table, row_mean, row_var, *tiling.sizes,
        HEAD_RMS=options.head_rms, **tiling.tile_options,
    )  # fmt: skip
    return _Statistics(bounds, table, scale, own, row_mean, row_var)


def _contiguous(parameters: DTNParameters) -> DTNParameters:
    coefficients, mean_gate, *others = parameters
    mean_gate = None if mean_gate is None else mean_gate.contiguous()
    return DTNParameters(coefficients.contiguous(), mean_gate, *(tensor.contiguous() for tensor in others))


def forward(x: Tensor, parameters: DTNParameters, options: DTNOptions, out_dtype: torch.dtype) -> Tensor:
    """Compute :func:`dtn_det.layers.plain.dynamic_token_norm` without a mask, in float32.

    Arguments and result are as in :func:`dtn_det.layers.kernels.operator.dynamic_token_norm`, but ``x`` is always ``(B,
    H, W, C)`` of one of :data:`DTYPES`, and the parameters are float32. The result is contiguous.

    Raises:
        RuntimeError: The kernels are not available.
        ValueError: Tensors do not match, see :func:`dtn_det.layers.kernels.check_tensors`.
    """
    kernels, _ = _kernels()
    check_tensors(x, parameters)
    tiling = Tiling.of(x, parameters)
    x = x.contiguous()
    coefficients, mean_gate, var_gate, weight, bias = _contiguous(parameters)
    y = torch.empty(x.shape, dtype=out_dtype, device=x.device)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call, unused-ignore]
        found = _statistics(tiling, x, coefficients, options)
        kernels.output_kernel[(tiling.column_tiles * tiling.num_groups,)](
            x, found.scale, found.own, coefficients, var_gate if mean_gate is None else mean_gate, var_gate, weight,
            bias, found.bounds, found.table, found.row_mean, found.row_var, y, *tiling.sizes, options.eps,
            HEAD_RMS=options.head_rms, ONLY_VAR=mean_gate is None, COLUMNS=COLUMNS, **tiling.tile_options,
        )  # fmt: skip
    return y


def backward(grad_y: Tensor, x: Tensor, parameters: DTNParameters, options: DTNOptions) -> list[Tensor]:
    """Compute the gradients of :func:`forward` with respect to ``x`` and the parameters.

    Returns:
        Six tensors in the dtypes of the inputs. The gradient of a parameter that is None is empty.
    """
    _, kernels = _kernels()
    check_tensors(x, parameters, grad_y)
    tiling = Tiling.of(x, parameters)
    grad_y, x = grad_y.contiguous(), x.contiguous()
    coefficients, mean_gate, var_gate, weight, _ = _contiguous(parameters)
    new = functools.partial(torch.empty, dtype=torch.float32, device=x.device)
    grad_x = torch.empty_like(x)
    direct, to_mean, to_var = (new(x.shape) for _ in range(3))
    to_own = new(2, tiling.num_tokens, tiling.num_groups)
    tiles = tiling.column_tiles
    coefficient_sums = new(tiles + tiling.row_tiles, tiling.num_groups, 3)
    gate_sums = new(2, tiles, tiling.num_groups)
    channel_sums = new(2, tiles, tiling.channels)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call, unused-ignore]
        found = _statistics(tiling, x, coefficients, options)
        kernels.output_gradient_kernel[(tiles * tiling.num_groups,)](
            grad_y, x, found.scale, found.own, coefficients, var_gate if mean_gate is None else mean_gate, var_gate,
            weight, found.bounds, found.table, found.row_mean, found.row_var,
            direct, to_mean, to_var, to_own, coefficient_sums, gate_sums, channel_sums, *tiling.sizes, options.eps,
            HEAD_RMS=options.head_rms, ONLY_VAR=mean_gate is None, COLUMNS=COLUMNS, **tiling.tile_options,
        )  # fmt: skip
        # The moments within rows are no longer needed, so their gradients are written into the same memory.
        to_row_mean, to_row_var = found.row_mean, found.row_var
        kernels.column_transpose_kernel[(tiles * tiling.num_groups,)](
            to_mean, to_var, coefficients, found.bounds, found.table, to_row_mean, to_row_var, *tiling.sizes,
            COLUMNS=COLUMNS, **tiling.tile_options,
        )  # fmt: skip
        kernels.input_gradient_kernel[(tiling.row_tiles * tiling.num_groups,)](
            x, found.scale, found.own, coefficients, found.bounds, found.table, direct, to_row_mean, to_row_var, to_own,
            grad_x, coefficient_sums, tiles, *tiling.sizes, _divisor(tiling.channels, options.unbiased),
            HEAD_RMS=options.head_rms, BLOCK_G=_power_of_two(tiling.num_groups), **tiling.tile_options,
        )  # fmt: skip
    return [
        grad_x,
        coefficient_sums.sum(0),
        x.new_empty(0) if mean_gate is None else gate_sums[0].sum(0),
        gate_sums[1].sum(0),
        channel_sums[0].sum(0),
        channel_sums[1].sum(0),
    ]


def status() -> KernelStatus:
    """Return whether the Triton kernels are in use, and if not, why."""
    if not torch.cuda.is_available():
        return KernelStatus(False, "no CUDA device")
    kernels, detail = load()
    return KernelStatus(kernels is not None, detail)


def is_usable(x: Tensor, num_groups: int, head_rms: bool, only_var: bool) -> bool:
    """Return whether the kernels support this input and work on its device.

    The first call for a device, a dtype and the sizes and options of a layer compiles the kernels and runs them on a
    tiny map. If this fails, the user is warned, and the result remains False.
    """
    if x.device.type != "cuda" or not fits(x, num_groups):
        return False
    return works(x.device.index, x.dtype, x.shape[-1], num_groups, head_rms, only_var)


def works(
    device_index: int, dtype: torch.dtype, channels: int, num_groups: int, head_rms: bool, only_var: bool
) -> bool:
    """Call :func:`try_out` for a CUDA device. ``torch.compile`` treats the result as a constant."""
    return try_out(torch.device("cuda", device_index), dtype, channels, num_groups, head_rms, only_var)


# This has the effect of `torch.compiler.assume_constant_result`, whose import takes longer than importing torch.
works._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def try_out(
    device: torch.device, dtype: torch.dtype, channels: int, num_groups: int, head_rms: bool, only_var: bool
) -> bool:
    """Compile the kernels for these arguments and run them once; if they do not work, a warning describes the error."""
    if load()[0] is None:
        return False
    options = DTNOptions(1e-5, head_rms, False)
    try:
        with torch.no_grad():
            x = torch.zeros(1, 2, 2, channels, dtype=dtype, device=device)
            gates, weight = torch.zeros(num_groups, device=device), torch.zeros(channels, device=device)
            coefficients = torch.zeros(num_groups, 3, device=device)
            parameters = DTNParameters(coefficients, None if only_var else gates, gates, weight, weight)
            backward(forward(x, parameters, options, torch.float32), x, parameters, options)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # Triton, its compilers and the driver raise errors of many classes.
        warnings.warn(
            f"DTN's Triton kernels do not work on {device} ({type(error).__name__}: {error}): DTN runs its slower "
            "plain form; set DTN_DET_NATIVE=0 to silence this",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
