"""FLOPs of DTN, computed by formulas, and of whole networks, counted in a forward pass.

The convention is the same as in MMEngine's `get_model_complexity_info` and most papers: one FLOP is one multiply-add,
or one arithmetic operation on one element. The axis filters of DTN, along rows and columns of the grid, are counted
with all their weights: `H + W` multiply-adds per element, for the mean and again for the second moment. Kernels that
leave out weights too small to matter compute less.

A counter would miss most of DTN's FLOPs. So networks are counted while their DTN layers compute LayerNorm, and the
FLOPs of DTN are added by the formulas, for the height and width of each layer's input.
"""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dtn_det.errors import InputError
from dtn_det.layers import DTN

# FLOPs of each step of the layer, per element of its input.
TOKEN_MOMENTS = 3  # sum for the mean; subtract the mean, square and add up
CENTRE = 2  # sum for the mean over the image; subtract the mean
SQUARE = 1  # squared input of the second moment
FILTER_VARIANCE = 1  # q - m^2, of the filtered second moment q and mean m
BLEND_MEAN = 3  # interpolate; add the centre
BLEND_VARIANCE = 2
NORMALIZE = 5  # subtract; add eps; root; multiply; weight and bias in one multiply-add
HEAD_RMS = 2  # square and add up; multiply
# FLOPs per entry of an axis matrix: two multiply-adds for the exponent; and exponential, sum and division of the
# softmax.
MATRIX_ENTRY = 5
# FLOPs of LayerNorm per element, as MMEngine counts them.
LAYER_NORM = 5


@dataclass(frozen=True)
class DTNFlops:
    """The FLOPs of one DTN layer on one image, by part.

    Attributes:
        mean_filter: FLOPs of both axis filters for the inter-token mean.
        square_filter: FLOPs of both axis filters for the inter-token second moment.
        axis_matrices: FLOPs of the `H x H` and `W x W` softmax matrices of all groups.
        elementwise: FLOPs of all other steps: token statistics, blending, normalisation.
        layer_norm: FLOPs of LayerNorm in place of DTN, as MMEngine counts them.
        dense: FLOPs of DTN if it had one `N x N` positional matrix over all `N` tokens instead of axis filters.
    """

    mean_filter: int
    square_filter: int
    axis_matrices: int
    elementwise: int
    layer_norm: int
    dense: int

    @property
    def total(self) -> int:
        """The FLOPs of the layer."""
        return self.mean_filter + self.square_filter + self.axis_matrices + self.elementwise


def dtn_flops(
    height: int,
    width: int,
    channels: int,
    num_groups: int,
    *,
    num_prefix: int = 0,
    head_rms: bool = True,
    only_var: bool = False,
) -> DTNFlops:
    """Count the FLOPs of one DTN layer on one image.

    Args:
        height: Number of rows `H` of the grid.
        width: Number of columns `W` of the grid.
        channels: Number of channels `C`.
        num_groups: Number of groups `G`.
        num_prefix: Number of tokens before the grid, which are normalised by LayerNorm's statistics.
        head_rms: Option of :class:`dtn_det.layers.DTN`.
        only_var: Option of :class:`dtn_det.layers.DTN`. The filter of the mean is counted in any case, because the
            variance needs it.

    Raises:
        InputError: A size is not positive, or `num_prefix` is negative.

    Example:
        >>> dtn_flops(14, 14, 384, 6).mean_filter == 14 * 14 * 384 * (14 + 14)
        True
    """
    sizes = {"height": height, "width": width, "channels": channels, "num_groups": num_groups}
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"expected {name} to be positive, got {size}")
    if num_prefix < 0:
        raise InputError(f"expected num_prefix to be 0 or more, got {num_prefix}")
    tokens = height * width
    elements = tokens * channels
    prefix_elements = num_prefix * channels
    per_token = TOKEN_MOMENTS + NORMALIZE + (HEAD_RMS if head_rms else 0)
    per_element = per_token + CENTRE + SQUARE + FILTER_VARIANCE + BLEND_VARIANCE + (0 if only_var else BLEND_MEAN)
    elementwise = elements * per_element + prefix_elements * per_token
    one_filter = elements * (height + width)
    return DTNFlops(
        mean_filter=one_filter,
        square_filter=one_filter,
        axis_matrices=MATRIX_ENTRY * num_groups * (height**2 + width**2),
        elementwise=elementwise,
        layer_norm=LAYER_NORM * (elements + prefix_elements),
        dense=2 * elements * tokens + MATRIX_ENTRY * num_groups * tokens**2 + elementwise,
    )


@dataclass(frozen=True)
class LayerCost:
    """One call of a DTN layer on one image: path and sizes of the layer, grid of the input, and FLOPs."""

    name: str
    height: int
    width: int
    channels: int
    num_groups: int
    flops: DTNFlops


@contextlib.contextmanager
def as_layer_norm(network: nn.Module) -> Iterator[Callable[[], tuple[LayerCost, ...]]]:
    """Make the DTN layers of a network compute LayerNorm within the block, and record the grids of the layers' inputs.

    Yields:
        A function that returns the cost of DTN for each call of a DTN layer within the block so far.
    """
    norms = {name: module for name, module in network.named_modules() if isinstance(module, DTN)}
    grids: dict[str, list[tuple[int, int, int]]] = defaultdict(list)

    def forward(
        norm: DTN, name: str, x: Tensor, hw_shape: tuple[int, int] | None = None, mask: Tensor | None = None
    ) -> Tensor:
        height, width, num_prefix = norm._grid(x, hw_shape)
        grids[name].append((int(height), int(width), int(num_prefix)))
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)

    def costs() -> tuple[LayerCost, ...]:
        return tuple(_layer_cost(name, norms[name], *grid) for name, met in grids.items() for grid in met)

    try:
        for name, norm in norms.items():
            norm.forward = functools.partial(forward, norm, name)  # type: ignore[method-assign]
        yield costs
    finally:
        for norm in norms.values():
            del norm.forward


def _layer_cost(name: str, norm: DTN, height: int, width: int, num_prefix: int) -> LayerCost:
    channels, groups = norm.num_features, norm.num_groups
    flops = dtn_flops(
        height, width, channels, groups, num_prefix=num_prefix, head_rms=norm.head_rms, only_var=norm.only_var
    )
    return LayerCost(name, height, width, channels, groups, flops)


def forward_flops(network: nn.Module, forward: Callable[[Tensor], object], images: Tensor) -> int | None:
    """Count the FLOPs of a forward pass: matrix products, convolutions, attention, and all of DTN.

    Unlike :func:`dtn_det.cost.complexity.model_complexity`, this requires only PyTorch, and does not count elementwise
    operations of layers other than DTN. `images` is one image, in the shape that `forward` accepts. The result is None
    if the network fails on the image.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # With this backend attention consists of matrix products, which the counter counts on any device.
    plain = sdpa_kernel(SDPBackend.MATH)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), as_layer_norm(network) as costs, plain, counter:
            forward(images)
    # The model may be third-party code, which can raise any error. The sweep itself will report the error.
    except (Exception, SystemExit):
        return None
    # The counter counts a multiply-add as two FLOPs.
    return int(counter.get_total_flops()) // 2 + sum(layer.flops.total for layer in costs())
