"""Compare the weights of a checkpoint with a model, and find the likely cause if the weights do not fit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dtn_det.checkpoints.state_dict import StateDict, some
from dtn_det.checkpoints.structure import Structure, find_structure
from dtn_det.datasets.remarks import counted
from dtn_det.errors import CheckpointError
from dtn_det.layers.options import EXTRA_STATE, unpack_options

OWN_BUFFERS = (
    *("num_batches_tracked", "relative_position_index", "relative_coords_table", "attention_bias_idxs", "attn_mask"),
    EXTRA_STATE,
)
"""Ends of the names of buffers that a model computes itself. Only some releases of the libraries save them."""

# Modules that models have only in training.
_OF_TRAINING = re.compile(r"(aux\w*|\w+_aux\w*|criterion\w*|loss\w*|\w+_loss|metrics?|teacher\w*|\w*ema)\.")
_BLOCK = re.compile(r"\.\d+(?=\.)")
_MERGED = re.compile(r"downsample\.(reduction|norm)\.")
_NORM_NAMES = re.compile(
    r"\.(mean_norm_weight|var_norm_weight|pos_proj\.\w+|running_\w+|num_steps|mean_weight|var_weight|gain|alpha)$"
)
_FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
_PACKED = re.compile(r"\.(qweight|qzeros|weight_packed|zero_point|weight_zero_point|_packed_params\.\w+)$")
_SCALE = re.compile(r"(scales?|scale_inv|absmax|zero_point|qzeros|quant_\w+)(\.\w+)?$")
_POSITIONS = re.compile(r"(pos_embed\w*|position_embed\w*(\.weight)?|relative_position_bias_table)$")
_SHOWN = 3
_LEAST_OF_A_BLOCK = 4


@dataclass(frozen=True)
class Fit:
    """The comparison of a state dict with a model. It is true if the state dict fits.

    Attributes:
        missing: Names of the model that the state dict lacks.
        unexpected: Names of the state dict that the model lacks.
        misshapen: Name, shape in the state dict and shape in the model of each tensor whose shapes differ.
        not_numbers: Names of weights with NaN.
        untied: Pairs of names that share one tensor in the model, but have different tensors in the state dict.
        other_types: Name and type of weights that cannot be loaded: complex numbers where the model has real numbers,
            or tensors without values.
        known: Number of the model's names that the state dict has.
        left_out: Names of the state dict that only training needs; they are not loaded.
        other_norms: Names of the norm classes that the state dict has where the model has LayerNorm.
        other_depth: True if state dict and model have different numbers of blocks in the same list of blocks.
        other_names: Pairs of an unexpected and a missing name of the same shape, by similarity. Empty unless every such
            name has a partner.
        biases: Names of non-zero biases of queries, keys and values that the state dict has and a model of timm lacks.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    not_numbers: tuple[str, ...] = ()
    other_types: tuple[tuple[str, str], ...] = ()
    untied: tuple[tuple[str, str], ...] = ()
    known: int = 0
    left_out: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    other_norms: tuple[str, ...] = ()
    other_depth: bool = False
    other_names: tuple[tuple[str, str], ...] = ()
    biases: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether the state dict fits."""
        others = self.not_numbers or self.other_types or self.untied
        return not (self.missing or self.unexpected or self.misshapen or others)

    @property
    def lacks_only(self) -> bool:
        """True if everything in the state dict fits, but some names of the model are missing."""
        return bool(self.missing) and bool(replace(self, missing=()))

    def problems(self) -> str:
        """Describe what does not fit: the number of names for each kind of problem, and a few of the names."""
        shapes = [f"{name} {there} instead of {here}" for name, there, here in self.misshapen]
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": shapes,
            "not of numbers": self.not_numbers,
            "of another type": [f"{name} {kind}" for name, kind in self.other_types],
            "different where the model has one tensor": [f"{name} and {other}" for name, other in self.untied],
        }
        return "; ".join(
            f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
            for kind, names in kinds.items()
            if names
        )

    def cause(self) -> str:
        """Return the likely cause of the misfit as a sentence; empty if none is known."""
        if self.biases:
            return f"The file has biases that are not zero ({some(self.biases, _SHOWN)}), and the model none there."
        if self.structure is not None:
            return f"{self.structure.cause} {self._classes()}".rstrip()
        if self.other_names and not self.misshapen:
            shown = ", ".join(f"{there} like {here}" for there, here in _of_each_kind(self.other_names))
            return f"The file has weights of the shapes of all that are missing, under other names ({shown})."
        if not self.known:
            return f"The file holds {some(self.held, 6)}, none of which the model has."
        if self.not_numbers:
            return "The training has diverged."
        if self.other_depth:
            return "It is of a model of another size: one has more blocks than the other."
        if self.other_types:
            return "Its weights are of another kind of numbers, or elsewhere."
        norms = self._norms()
        if norms:
            return norms
        classes = self._classes()
        if classes:
            return classes
        if self.untied:
            return "It is of a model whose modules do not share weights, where those of this one do."
        if (channels := self.image_channels) is not None:
            there, here = channels
            return f"It is of a model for images of {counted(there, 'channel')}, and this one takes {here}."
        if self.misshapen and not (self.missing or self.unexpected):
            if self.positions_alone and self._same_channels:
                return "It is of the model built for images or windows of another size, by its positions."
            return "It is of a model of another size."
        if self.misshapen:
            return "It is of another model, or of another version of the library that names its weights."
        return ""

    def advice(self) -> str:
        """Return advice if no other model or config would fit either; empty if another model or config may fit."""
        if self.structure is not None:
            return ""
        if self.other_names and not self.misshapen and not self.biases:
            return (
                "If they are the same weights, at the same place in the model and in the same order of channels, "
                "rename them with state[NEW] = state.pop(OLD) and save the state dict to a new file; else name the "
                "model or the config that they were trained with"
            )
        if self.not_numbers:
            return "Take a checkpoint of an earlier epoch"
        if self.other_types:
            return "Save the state dict again from the model that holds the values, in floating point"
        return ""

    @property
    def structure(self) -> Structure | None:
        """A difference of structure that the names show; None if there is none, or if another cause is known."""
        if self.biases or self.not_numbers or self.other_depth:
            return None
        return find_structure(self.unexpected, self.missing, self.other_names)

    def _norms(self) -> str:
        beyond = any(map(_NORM_NAMES.search, self.unexpected))
        lacking = any(map(_NORM_NAMES.search, self.missing))
        if self.other_norms:
            return f"The file is of {' and '.join(self.other_norms)}, the model has LayerNorm there."
        if not self._norms_alone:
            return ""
        if beyond and not lacking:
            return "The file is of a model with another norm, such as DTN, where this one has LayerNorm or less."
        if lacking and not beyond:
            return "The file is of a model with LayerNorm or another norm, which has less than the norm of this one."
        return "The file is of a model with another norm." if beyond else ""

    @property
    def _norms_alone(self) -> bool:
        """True if no modules but norms have names that the other side lacks."""
        names = (*self.unexpected, *self.missing)
        norms = {name.rpartition(".")[0] for name in names if _NORM_NAMES.search(name)}
        return all(_NORM_NAMES.search(name) or name.rpartition(".")[0] in norms for name in names)

    def _classes(self) -> str:
        names = {name.rpartition(".")[0] for name, _, _ in self.misshapen}
        if self._rows is None:
            return ""
        there, here = self._rows
        return f"It has {there} classes or outputs of {some(names)}, the model {here}."

    @property
    def num_classes(self) -> int | None:
        """The state dict's number of classes if nothing but this number differs from the model; else None."""
        others = self.missing or self.unexpected or self.not_numbers or self.other_types or self.untied
        return None if others or self._rows is None else self._rows[0]

    @property
    def head_rows(self) -> int | None:
        """The state dict's number of classes if no other shapes differ; else None. Names may differ."""
        return None if self._rows is None else self._rows[0]

    @property
    def positions_alone(self) -> bool:
        """True if no other shapes differ than those of tables of positions and of buffers that the model computes."""
        names = (name for name, _, _ in self.misshapen)
        return all(_POSITIONS.search(name) or name.endswith(OWN_BUFFERS) for name in names)

    @property
    def image_channels(self) -> tuple[int, int] | None:
        """Channels of an image in the state dict and in the model, if only this number differs; else None."""
        if self.missing or self.unexpected or len(self.misshapen) != 1:
            return None
        ((_, there, here),) = self.misshapen
        same = len(there) == len(here) == 4 and there[0] == here[0] and there[2:] == here[2:]
        return (there[1], here[1]) if same and here[1] == 3 else None

    @property
    def _same_channels(self) -> bool:
        """True if the differing shapes have the same length along their last axis."""
        return all(there[-1:] == here[-1:] for _, there, here in self.misshapen)

    @property
    def _rows(self) -> tuple[int, int] | None:
        """Number of rows of the last layer in the state dict and in the model, if no other shapes differ; else None."""
        pairs = {(there[:1], here[:1]) for _, there, here in self.misshapen}
        same = len(pairs) == 1 and all(there[1:] == here[1:] for _, there, here in self.misshapen)
        modules = {name.rpartition(".")[0] for name, _, _ in self.misshapen}
        if not same or len(modules) > _SHOWN or not any(name.endswith("bias") for name, _, _ in self.misshapen):
            return None
        ((there, here),) = pairs
        return (there[0], here[0]) if there and here else None


def compare_weights(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], buffers: Iterable[str] = (), optional: Iterable[str] = ()
) -> Fit:
    """Compare a state dict with the state dict of a model.

    Some differences are allowed, because outputs do not depend on them. Buffers that models compute themselves may be
    missing or left over. Modules that exist only in training may be left over. If the model has several names for one
    tensor, the state dict needs only one of them.

    Args:
        state: Names and tensors, in the names of the model.
        buffers: Names of all buffers of the model, including those that it does not save.
        optional: Further names of the model that may be missing.
    """
    may_lack = set(optional)
    state = with_tied_names(state, own)
    # Some wrappers add their name in `named_buffers()` but not in state dicts, so only the ends of names are compared.
    of_model = tuple(f".{name}" for name in buffers)
    beyond = [name for name in state if name not in own]
    # `others` stays empty if the model itself has norms whose options are saved. The norms of the file may then be the
    # same ones under other names.
    own_norms = any(_norm_of(own, name) for name in own)
    others = {} if own_norms else {norm: None for name in beyond if (norm := _norm_of(state, name))}
    left_out = tuple(name for name in beyond if _OF_TRAINING.match(name))
    own_beyond = {name for name in beyond if any(buffer.endswith(f".{name}") for buffer in of_model)}
    own_beyond |= {name for name in beyond if name.endswith(OWN_BUFFERS[:-1])}
    unexpected = tuple(name for name in beyond if name not in own_beyond and name not in left_out)
    missing = tuple(n for n in own if n not in state and n not in may_lack and not n.endswith(OWN_BUFFERS))
    both = [name for name in own if name in state]
    return Fit(
        missing=missing,
        unexpected=unexpected,
        misshapen=tuple(
            (name, tuple(state[name].shape), tuple(own[name].shape))
            for name in both
            if state[name].shape != own[name].shape and not name.endswith(EXTRA_STATE)
        ),
        not_numbers=tuple(name for name in both if state[name].is_floating_point() and _has_nan(state[name])),
        other_types=tuple((name, kind) for name in both if (kind := _other_type(state[name], own[name]))),
        untied=tuple(_untied(state, own)),
        known=len(both),
        left_out=left_out,
        held=tuple(state),
        other_norms=tuple(others),
        other_depth=_lacks_blocks(unexpected, own) or _lacks_blocks(missing, state),
        other_names=_other_names({n: state[n].shape for n in unexpected}, {n: own[n].shape for n in missing}),
    )


def with_tied_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> StateDict:
    """Add the missing names of tensors that a state dict has under only some of the model's names.

    A parameter that several modules share has a name in each of them. Files of safetensors and of Hugging Face's models
    hold such a tensor only once, under one of its names.

    Args:
        state: Names and tensors, in the names of the model.
        own: State dict of the model, with the model's own tensors rather than copies.

    Returns:
        The state dict with the missing names added.
    """
    known = {_storage(value): name for name, value in own.items() if name in state}
    known.pop(None, None)
    tied = {
        name: known[_storage(value)] for name, value in own.items() if name not in state and _storage(value) in known
    }
    return {**state, **{name: state[other] for name, other in tied.items()}}


def _untied(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield pairs of names that share one tensor in the model but have different tensors in the state dict."""
    first: dict[tuple[object, ...], str] = {}
    for name, value in own.items():
        place = _storage(value)
        if name not in state or place is None:
            continue
        one, other = state[first.setdefault(place, name)], state[name]
        if one is not other and not (one.is_meta or other.is_meta) and not torch.equal(one, other):
            yield first[place], name


def _storage(value: Tensor) -> tuple[object, ...] | None:
    """Return a key that is equal for two tensors that are the same view of memory; None for a tensor without values."""
    if value.is_meta or not value.numel():
        return None
    return value.device, value.dtype, value.data_ptr(), value.shape, value.stride()


def _norm_of(state: Mapping[str, Tensor], name: str) -> str | None:
    """Return the class name of the norm whose options are stored under a name; None if none are stored there."""
    options = unpack_options(state[name]) if name.endswith(EXTRA_STATE) else None
    norm = (options or {}).get("norm")
    return norm if isinstance(norm, str) else None


def _lacks_blocks(names: Iterable[str], others: Iterable[str]) -> bool:
    """Return whether some names belong to numbered blocks that ``others`` lack, in a list of blocks that both have.

    A block counts if at least :data:`_LEAST_OF_A_BLOCK` of the names belong to it. If ``others`` lack a whole list, the
    depth need not differ, because the list may only have another name.
    """
    known = {block for name in others for block in _blocks(name)}
    rows = {block.rpartition(".")[0] for block in known}
    counted = Counter(block for name in names for block in _blocks(name) if block not in known)
    return any(count >= _LEAST_OF_A_BLOCK and block.rpartition(".")[0] in rows for block, count in counted.items())


def _blocks(name: str) -> list[str]:
    """Return the paths of numbered modules in a name: ``a.0`` and ``a.0.blocks.1`` of ``a.0.blocks.1.weight``."""
    return [name[: found.end()] for found in _BLOCK.finditer(name)]


def _other_names(
    unexpected: Mapping[str, torch.Size], missing: Mapping[str, torch.Size]
) -> tuple[tuple[str, str], ...]:
    """Pair each missing name with the most similar unexpected name of its shape; empty if any name has no partner."""
    if not missing or Counter(unexpected.values()) != Counter(missing.values()):
        return ()
    # Libraries concatenate the four neighbours of Swin's patch merging in different orders, so renaming is not enough.
    if any(_MERGED.search(name) for name in unexpected):
        return ()
    left: dict[torch.Size, list[str]] = {}
    for name, shape in unexpected.items():
        left.setdefault(shape, []).append(name)
    pairs = []
    for name, shape in missing.items():
        best = max(left[shape], key=lambda other: _likeness(other, name))
        left[shape].remove(best)
        pairs.append((best, name))
    return tuple(pairs)


def _likeness(one: str, other: str) -> tuple[bool, int]:
    """Return whether two names contain the same numbers, and how many parts they share at their beginning and end."""
    change, _ = _change(one, other)
    return re.findall(r"\d+", one) == re.findall(r"\d+", other), len(one.split(".")) - len(change)


def _change(one: str, other: str) -> tuple[list[str], list[str]]:
    """Return the parts of two dotted names between their common beginning and their common end."""
    first, second = one.split("."), other.split(".")
    for _ in range(2):
        while first and second and first[0] == second[0]:
            del first[0], second[0]
        first, second = first[::-1], second[::-1]
    return first, second


def _of_each_kind(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return one pair of names for each kind of renaming, up to :data:`_SHOWN`. Numbers do not distinguish kinds."""
    kinds = {re.sub(r"\d+", "0", str(_change(*pair))): pair for pair in reversed(list(pairs))}
    return list(kinds.values())[: -_SHOWN - 1 : -1]


def _has_nan(values: Tensor) -> bool:
    return not values.is_meta and bool(torch.isnan(values).any())


def _other_type(value: Tensor, own: Tensor) -> str:
    """Return the type of a weight that cannot be loaded into the model; ``""`` for a weight that can be loaded."""
    if value.is_meta:
        return "without values"
    if own.is_floating_point() and value.is_complex():
        return str(value.dtype).removeprefix("torch.")
    return ""


def check_floating_point(state: Mapping[str, Tensor], own: Mapping[str, Tensor], model: str, source: str) -> None:
    """Check that a checkpoint holds the floating-point weights of a model in floating point, with at least 16 bits.

    Other weights are quantised. PyTorch would copy the integers or 8-bit floats without applying their scales.

    Args:
        state: Names and tensors of the checkpoint, in the names of the model.

    Raises:
        CheckpointError: Some weights are integers, have 8 bits, or are packed.
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
