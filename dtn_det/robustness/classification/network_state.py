"""The parameters and buffers of a network, compared before and after it is run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

State = Mapping[str, tuple[tuple[int, ...], torch.dtype, int]]
"""Shape, type and sum of the bit patterns of each parameter and buffer, by name."""


def state_of(network: nn.Module) -> State:
    """Sum the bit patterns of each parameter and buffer of a network, on its device."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    sums = [_sum(tensor.detach()) for tensor in tensors.values()]
    # One transfer rather than one for each tensor, where all are on one device.
    if len({one.device for one in sums}) > 1:
        sums = [one.cpu() for one in sums]
    values = torch.stack(sums).tolist() if sums else []
    return {
        name: (tuple(tensor.shape), tensor.dtype, value)
        for (name, tensor), value in zip(tensors.items(), values, strict=True)
    }


def changed(before: State, after: State) -> str:
    """Return the name of a parameter or buffer whose values have changed, or an empty text.

    Tensors that are new or of another shape or type do not count, because networks make such tables at their first
    batch or for another size of image.
    """
    for name, (shape, dtype, value) in after.items():
        if name in before and before[name][:2] == (shape, dtype) and before[name][2] != value:
            return name
    return ""


def _sum(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.view(_INTEGERS[tensor.element_size()]).sum(dtype=torch.int64)
