"""FLOPs of DTN, computed by formulas, and of whole networks, counted in one forward pass.

The convention is that of MMEngine's `get_model_complexity_info` and of most papers: one multiply-add is one FLOP, and
so is one arithmetic operation on one element. The axis filters of DTN, along rows and columns of the grid, are counted
with all their weights: `H + W` multiply-adds per element, for the mean and again for the second moment. A kernel that
leaves out weights which are zero in floating point does less, never more.

A counter sees little of what DTN computes. Networks are therefore counted while their DTN layers do what LayerNorm
does, and the FLOPs of DTN are added by the formulas, for the height and width of the layers' inputs.
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

# FLOPs of the steps of the layer, per element of its input.
TOKEN_MOMENTS = 3  # mean; subtract it, square and add up
CENTRE = 2  # mean over the image; subtract it
SQUARE = 1  # the input of the second moment
FILTER_VARIANCE = 1  # q - m^2, of the filtered second moment q and mean m
BLEND_MEAN = 3  # interpolate; add the centre
BLEND_VARIANCE = 2
NORMALIZE = 5  # subtract; add eps; root; multiply; weight and bias
HEAD_RMS = 2  # square and add up; multiply
# FLOPs per entry of an axis matrix: two multiply-adds for the exponent; exponential, sum and division of the softmax.
MATRIX_ENTRY = 5
# FLOPs of LayerNorm per element, as MMEngine counts them.
LAYER_NORM = 5


@dataclass(frozen=True)
class DTNFlops:
    """The FLOPs of one DTN layer on one image, by part.

    Attributes:
        mean_filter: Both axis filters of the inter-token mean.
        square_filter: Both axis filters of the inter-token second moment.
        axis_matrices: The `H x H` and `W x W` softmax matrices of all groups.
        elementwise: The rest: token statistics, blending, normalisation.
        layer_norm: The FLOPs of LayerNorm in its place, as MMEngine counts them.
        dense: The FLOPs of DTN with a positional matrix over all `N` tokens, `N x N`, instead of axis filters.
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
        height: Rows of the grid `H`.
        width: Columns of the grid `W`.
        channels: Channels `C`.
        num_groups: Groups `G`.
        num_prefix: Tokens in front of the grid, which get LayerNorm's statistics.
        head_rms: Option of :class:`dtn_det.layers.DTN`.
        only_var: Option of :class:`dtn_det.layers.DTN`. The filter of the mean stays, because the variance needs it.

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
    """The cost of one call of a DTN layer, at a path of the network and on the grid of its input, for one image."""

    name: str
    height: int
    width: int
    channels: int
    num_groups: int
    flops: DTNFlops


@contextlib.contextmanager
def as_layer_norm(network: nn.Module) -> Iterator[Callable[[], tuple[LayerCost, ...]]]:
    """Within the block, let the DTN layers of a network do what LayerNorm does, and note the grids of their inputs.

    Yields:
        A function that returns, for each call of a DTN layer within the block so far, what DTN would have cost.
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
    """Count the FLOPs of a forward pass: matrix products, convolutions, attention, and all that DTN computes.

    Unlike :func:`dtn_det.cost.complexity.model_complexity`, this needs nothing but PyTorch, and does not count what
    layers other than DTN compute element by element. `images` is one image, of the shape that `forward` takes. The
    result is None if the network fails on it.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # With this backend attention is plain matrix products, which the counter sees on any device.
    plain = sdpa_kernel(SDPBackend.MATH)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), as_layer_norm(network) as costs, plain, counter:
            forward(images)
    # The model may be third-party code, which can raise anything. The sweep itself will report the error.
    except (Exception, SystemExit):
        return None
    # The counter counts a multiply-add as two operations.
    return int(counter.get_total_flops()) // 2 + sum(layer.flops.total for layer in costs())
