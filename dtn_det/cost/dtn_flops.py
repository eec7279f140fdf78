"""What one DTN layer costs, counted on paper.

Convention, that of MMEngine's `get_model_complexity_info` and of most papers: one multiply-add is one FLOP, and so is
one arithmetic operation on one element. The axis filters are counted over their full range, `H + W` multiply-adds per
element and moment; a kernel that leaves out entries that are zero in floating point does less, never more.
"""

from __future__ import annotations

from dataclasses import dataclass

from dtn_det.errors import InputError

# FLOPs per element of the map, by step of the layer.
TOKEN_MOMENTS = 3  # mean; subtract it, square and add up
CENTRE = 2  # mean over the image; subtract it
SQUARE = 1  # the input of the second moment
FILTER_VARIANCE = 1  # q - m^2
BLEND_MEAN = 3  # interpolate; add the centre
BLEND_VARIANCE = 2
NORMALIZE = 5  # subtract; add eps; root; multiply; weight and bias
HEAD_RMS = 2  # square and add up; multiply
# FLOPs per entry of an axis matrix: two multiply-adds for the exponent; exponential, sum and division of the softmax.
MATRIX_ENTRY = 5
# MMEngine's own estimate for LayerNorm, per element.
LAYER_NORM = 5


@dataclass(frozen=True)
class DTNFlops:
    """FLOPs of one DTN layer on one image, by part.

    Attributes:
        mean_filter: Both axis filters of the inter-token mean.
        square_filter: Both axis filters of the inter-token second moment.
        axis_matrices: The `H x H` and `W x W` softmax matrices of all groups.
        elementwise: The rest: token statistics, blending, normalisation.
        layer_norm: LayerNorm in its place, as MMEngine counts it.
        dense: DTN with an `N x N` matrix instead of the axis filters, for comparison.
    """

    mean_filter: int
    square_filter: int
    axis_matrices: int
    elementwise: int
    layer_norm: int
    dense: int

    @property
    def total(self) -> int:
        """FLOPs of the layer."""
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
        head_rms: As in :class:`dtn_det.layers.DTN`.
        only_var: As in :class:`dtn_det.layers.DTN`; the filter of the mean stays, the variance needs it.

    Raises:
        ValueError: A size that is not positive, or a negative `num_prefix`.

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
