"""Whether weights are quantised: numbers of fewer bits that mean nothing without the scales that belong to them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from dtn_det.checkpoints.fit import OWN_BUFFERS
from dtn_det.checkpoints.names import some
from dtn_det.errors import CheckpointError

_FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
_PACKED = re.compile(r"\.(qweight|qzeros|weight_packed|zero_point|weight_zero_point|_packed_params\.\w+)$")
_SHOWN = 3
_SCALE = re.compile(r"(scales?|scale_inv|absmax|zero_point|qzeros|quant_\w+)(\.\w+)?$")


def check_floating_point(state: Mapping[str, Tensor], own: Mapping[str, Tensor], model: str, source: str) -> None:
    """See that what is floating point in a model is floating point of at least 16 bits in a checkpoint.

    PyTorch copies integers and 8-bit floats into floating-point weights as they are, without their scales.

    Args:
        state: Names and tensors of the checkpoint, in the names of the model.
        own: State dict of the model.
        model: How messages call the model.
        source: How messages call the checkpoint.

    Raises:
        CheckpointError: Some weights are integers, of 8 bits, or packed.
    """
    wrong = [
        name
        for name, value in own.items()
        if value.is_floating_point()
        and name in state
        and state[name].dtype not in _FLOATS
        and not state[name].is_complex()
        and not name.endswith(OWN_BUFFERS)
    ]
    packed = [name for name in state if name not in own and _PACKED.search(name)]
    if not wrong and not packed:
        return
    found = wrong or packed
    kinds = some(list(dict.fromkeys(str(state[name].dtype).removeprefix("torch.") for name in found)))
    scales = [name for name in state if name not in own and name not in found and _SCALE.search(name)]
    beside = f", with the scales {some(scales, _SHOWN)} beside them" if scales else ""
    raise CheckpointError(
        f"expected the weights of {model} in {source} to be float16, bfloat16, float32 or float64, got {len(found):,} "
        f"as {kinds} ({some(found, _SHOWN)}){beside}: they are quantised; load them with the library that quantised "
        "them, dequantise them, and save model.state_dict() in floating point"
    )
