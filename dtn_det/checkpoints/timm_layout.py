"""Convert weights in another layout with timm's own function, and check what that function leaves out.

Each module of models in timm has a ``checkpoint_filter_fn``, which renames weights but also resizes and drops some. The
result is used only if it contains everything in the file, except for weights that cannot alter outputs.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dtn_det.checkpoints.fit import OWN_BUFFERS
from dtn_det.checkpoints.state_dict import StateDict
from dtn_det.datasets.remarks import Remark, agreeing

_MASK = ".bias_mask"
_QKV = ".qkv.bias"
_PERIODS = "rope_embed.periods"


@dataclass(frozen=True)
class Filtered:
    """The result of a model's ``checkpoint_filter_fn``.

    Attributes:
        state: Names and tensors; empty if the result cannot be used.
        dropped: Names of the file's tensors that were left out and cannot alter outputs.
        folded: Names of position embeddings whose row for the class token was added to that token.
        biases: Names of non-zero biases in the file that the model lacks.
    """

    state: StateDict
    dropped: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()

    def remarks(self, source: str) -> tuple[Remark, ...]:
        """Return remarks on what was left out, and on position embeddings that were added to class tokens."""
        found = []
        if self.dropped:
            what = agreeing(
                len(self.dropped),
                "{weight|weights} that {alters|alter} no output, or {is a mask|are masks} applied to biases, "
                "{was|were} left out by timm's filter",
            )
            found.append(Remark("dropped_by_timm", what, source, len(self.dropped), self.dropped[:3]))
        if self.folded:
            what = "position of the class token was added to the token, as timm's filter does for this model"
            found.append(Remark("folded_positions", what, source, len(self.folded), self.folded))
        return tuple(found)


def in_own_layout(model: nn.Module, state: Mapping[str, Tensor]) -> Filtered | None:
    """Rename weights by the ``checkpoint_filter_fn`` of the timm module that defines a model.

    A result with as many values as the file is used. If it has fewer values, each tensor of the file must be in the
    result or be one of these:

    * a mask token of a pretraining,
    * the periods of rotary positions, if the model computes the same,
    * a mask of biases, which is applied to the biases first,
    * a bias that is zero,
    * a position embedding whose first row was added to the class token.

    Args:
        state: Names and tensors that do not fit the model.

    Returns:
        The result; its ``state`` is empty if non-zero biases would be lost. None if the module has no such function, or
        if the function fails or loses other weights.
    """
    convert = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return None
    masked = _with_masks(state)
    # timm's function may print, warn, and fail with any error on weights that it does not know.
    try:
        with warnings.catch_warnings(), contextlib.ExitStack() as quiet:
            warnings.simplefilter("ignore")
            quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
            quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
            found = dict(convert(dict(masked), model))
    except Exception:
        return None
    masks = tuple(name for name in state if name not in masked)
    if _numbers(found) == _numbers(masked):
        return Filtered(found, dropped=masks)
    return _account(model, masked, found, masks)


def _with_masks(state: Mapping[str, Tensor]) -> StateDict:
    """Multiply biases by their masks, as Meta's DINOv3 does in each forward pass, and leave the masks out."""
    masks = {name.removesuffix("_mask"): value for name, value in state.items() if name.endswith(_MASK)}
    masks = {name: value for name, value in masks.items() if name in state and state[name].shape == value.shape}
    kept = {name: value for name, value in state.items() if name.removesuffix("_mask") not in masks or name in masks}
    return {**kept, **{name: state[name] * value.to(state[name].dtype) for name, value in masks.items()}}


def _account(model: nn.Module, state: StateDict, found: StateDict, masks: tuple[str, ...]) -> Filtered | None:
    """Check each tensor that only the file or only the result has; return None if the result loses or adds weights."""
    if any(value.is_meta for value in (*state.values(), *found.values())):
        return None
    lost, new = _unmatched(state, found)
    folded = tuple(name for name in lost if _is_folded(name, state, found))
    for name in folded:
        for one in (name, _class_token(name)):
            lost.pop(one, None)
            new.pop(one, None)
    dropped, biases = [*masks], []
    for name in lost:
        if name.endswith(_QKV):
            parts = _parts(name, state[name], found)
            for part in parts:
                new.pop(part, None)
            rest = state[name].chunk(3)[1] if parts else state[name]
            if rest.count_nonzero():
                biases.append(name)
            elif not parts:
                dropped.append(name)
        elif name.rpartition(".")[2] == "mask_token" or _is_periods(name, state[name], model):
            dropped.append(name)
        else:
            return None
    if new:
        return None
    return Filtered({} if biases else found, tuple(dropped), folded, tuple(biases))


def _unmatched(state: StateDict, found: StateDict) -> tuple[StateDict, StateDict]:
    """Pair equal tensors of two state dicts, one to one, and return the unpaired tensors of each."""
    lost = {name: value for name, value in state.items() if not name.endswith(OWN_BUFFERS)}
    new = {name: value for name, value in found.items() if not name.endswith(OWN_BUFFERS)}
    for same in (lambda one, other: one is other, _is_view, _is_equal):
        by_size: dict[int, list[str]] = {}
        for name, value in new.items():
            by_size.setdefault(value.numel(), []).append(name)
        for name, value in list(lost.items()):
            names = by_size.get(value.numel(), [])
            partner = next((other for other in names if same(value, new[other])), None)
            if partner is not None:
                names.remove(partner)
                del lost[name], new[partner]
    return lost, new


def _is_view(one: Tensor, other: Tensor) -> bool:
    return bool(one.data_ptr()) and one.data_ptr() == other.data_ptr() and one.dtype == other.dtype


def _is_equal(one: Tensor, other: Tensor) -> bool:
    return not (one.is_meta or other.is_meta) and torch.equal(one.flatten(), other.flatten())


def _class_token(name: str) -> str:
    return f"{name.removesuffix('pos_embed')}cls_token"


def _is_folded(name: str, state: StateDict, found: StateDict) -> bool:
    """Return whether the first row of a position embedding was added to the class token, without other changes."""
    token = _class_token(name)
    if not name.endswith("pos_embed") or not {name, token} <= state.keys() & found.keys() or state[name].ndim != 3:
        return False
    first, rest = state[name][:, :1], state[name][:, 1:]
    return torch.equal(found[name], rest) and torch.equal(found[token], state[token] + first)


def _parts(name: str, bias: Tensor, found: StateDict) -> tuple[str, ...]:
    """Return the names of the query and value biases in ``found`` if both are slices of ``bias``; else ``()``."""
    names = (name.replace("qkv.bias", "q_bias"), name.replace("qkv.bias", "v_bias"))
    if not {*names} <= found.keys() or bias.numel() % 3:
        return ()
    queries, _, values = bias.chunk(3)
    return names if torch.equal(found[names[0]], queries) and torch.equal(found[names[1]], values) else ()


def _is_periods(name: str, value: Tensor, model: nn.Module) -> bool:
    """Return whether a tensor holds the model's own periods of rotary positions, perhaps rounded to bfloat16."""
    if not name.endswith(_PERIODS):
        return False
    return any(_near(value, own) for buffer, own in model.named_buffers() if buffer.rpartition(".")[2] == "periods")


def _near(there: Tensor, here: Tensor) -> bool:
    if there.shape != here.shape or there.is_meta or here.is_meta:
        return False
    there, here = there.detach().cpu().float(), here.detach().cpu().float()
    return torch.allclose(there, here, rtol=1e-5, atol=0.0) or torch.equal(there, here.bfloat16().float())


def _numbers(state: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for name, value in state.items() if not name.endswith(OWN_BUFFERS))


def timm_name(model: nn.Module) -> str:
    """Return the name of a model in timm; empty for other models."""
    settings = getattr(model, "pretrained_cfg", None)
    name = settings.get("architecture") if isinstance(settings, Mapping) else None
    return name if isinstance(name, str) else ""


def is_timm_model(name: str) -> bool:
    """Return whether timm has been imported and knows a model of this name."""
    timm = sys.modules.get("timm")
    return timm is not None and bool(timm.is_model(name))


def with_biases(model: nn.Module) -> str:
    """Return the name of the model's variant in timm that has q, k and v biases; empty if there is none."""
    name = timm_name(model)
    return f"{name}_qkvb" if name and is_timm_model(f"{name}_qkvb") else ""
