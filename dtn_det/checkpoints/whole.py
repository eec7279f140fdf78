"""Whether a state dict holds a model's weights as they are: neither pruned, nor an adapter, nor parts of ZeRO."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from dtn_det.checkpoints.names import StateDict, some
from dtn_det.errors import CheckpointError

MERGE = (
    "with PEFT, load it into the model that it adapts, and save the state_dict() of model.merge_and_unload() as the "
    "checkpoint"
)
"""What can be done with an adapter, as the end of a sentence."""

_ORIGINAL, _MASK = "_orig", "_mask"
# `base_layer` alone is no sign: DLA has a module of that name.
_OF_ADAPTER = re.compile(
    r"(^|\.)(lora_\w+|modules_to_save|ia3_l|hada_w\d_\w|lokr_w\d\w*|vera_lambda_\w)(\.|$)"
    r"|^base_model\.model\..*\.base_layer\."
)
_SHOWN = 3


def apply_masks(state: Mapping[str, Tensor], own: Iterable[str] = ()) -> tuple[StateDict, tuple[str, ...]]:
    """Put the product of weights and masks in their place, as ``torch.nn.utils.prune.remove`` does.

    Args:
        state: Names and tensors of a file; a pruned weight ``X`` stands there as ``X_orig`` and ``X_mask``.
        own: Names of the model; one that is pruned itself takes both as they are.

    Returns:
        The state dict, and the names ``X``.
    """
    pruned = {
        original.removesuffix(_ORIGINAL): (value, mask)
        for original, value in state.items()
        if original.endswith(_ORIGINAL)
        and (mask := state.get(original.removesuffix(_ORIGINAL) + _MASK)) is not None
        and mask.shape == value.shape
        and original.removesuffix(_ORIGINAL) not in state
    }
    if not pruned or any(name.endswith(_ORIGINAL) for name in own):
        return dict(state), ()
    gone = {name + end for name in pruned for end in (_ORIGINAL, _MASK)}
    kept = {name: value for name, value in state.items() if name not in gone}
    return {**kept, **{name: mask.to(value.dtype) * value for name, (value, mask) in pruned.items()}}, tuple(pruned)


def check_whole(state: Mapping[str, Tensor], own: Iterable[str] = ()) -> None:
    """See that a state dict is neither an adapter nor one of which DeepSpeed's ZeRO-3 keeps the values elsewhere.

    Args:
        state: Names and tensors of a file.
        own: Names of the model; one with adapters of its own takes those of the file.

    Raises:
        CheckpointError: It is.
    """
    adapters = [name for name in state if _OF_ADAPTER.search(name)]
    if adapters and not any(map(_OF_ADAPTER.search, own)):
        raise CheckpointError(
            f"expected the weights of a model, got {len(adapters):,} tensors in the names of an adapter "
            f"such as LoRA ({some(adapters, _SHOWN)}), which adds to the weights of another checkpoint: {MERGE}"
        )
    empty = [name for name, value in state.items() if tuple(value.shape) == (0,) and name.endswith("weight")]
    if empty:
        raise CheckpointError(
            f"expected the weights of a model, got {len(empty):,} empty tensors ({some(empty, _SHOWN)}), as DeepSpeed "
            "ZeRO-3 writes where the values are in a file of each process: run the zero_to_fp32.py that DeepSpeed has "
            "put into the folder of the checkpoint, and name the file that it writes"
        )
