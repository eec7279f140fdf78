"""Weights in parametrizations of PyTorch: weight normalization is folded, all others are refused with their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from dtn_det.checkpoints.state_dict import StateDict, some
from dtn_det.errors import CheckpointError

# Names of magnitudes: `torch.nn.utils.parametrizations.weight_norm` and, second, `torch.nn.utils.weight_norm` store a
# weight as magnitude and direction.
_MAGNITUDE = re.compile(r"^(?P<module>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.original0$")
_OLD_MAGNITUDE = re.compile(r"^(?P<module>(?:.*\.)?)(?P<name>[^.]+)_g$")
_PARAMETRIZED = re.compile(r"^(?P<module>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.(?P<rest>.+)$")
_OLD_SPECTRAL = re.compile(r"^(?P<module>(?:.*\.)?)(?P<name>[^.]+)_(?:orig|u)$")
_KINDS = {
    "spectral norm": re.compile(r"^\d+\._[uv]$"),
    "LoRA": re.compile(r"^\d+\..*lora_", re.IGNORECASE),
    "an orthogonal parametrization": re.compile(r"^\d+\.base$"),
}
_FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
_SHOWN = 3


def fold_weight_norm(state: Mapping[str, Tensor], own: Iterable[str] = ()) -> tuple[StateDict, tuple[str, ...]]:
    """Replace magnitude and direction of each weight with weight normalization by the weight, as PyTorch does.

    The weight is ``g * v / norm(v)``, with the norm over the axes along which the magnitude ``g`` has length 1.

    Args:
        state: Names and tensors of a file. Magnitude and direction of ``X`` are ``parametrizations.X.original0`` and
            ``...original1``, or ``X_g`` and ``X_v`` as ``torch.nn.utils.weight_norm`` names them.
        own: Parameter names of the model. If the model itself has magnitudes and directions, these do not change.

    Returns:
        The state dict, and the names ``X`` of the folded weights.
    """
    kept = tuple(name for name in own if _MAGNITUDE.match(name) or _OLD_MAGNITUDE.match(name))
    folded: StateDict = {}
    parts: set[str] = set()
    for magnitude, g in state.items():
        found = _MAGNITUDE.match(magnitude)
        old = None if found else _OLD_MAGNITUDE.match(magnitude)
        if found:
            weight, direction = found["module"] + found["name"], magnitude[:-1] + "1"
            further = magnitude.removesuffix("original0")
            alone = all(name in (magnitude, direction) for name in state if name.startswith(further))
        elif old:
            weight, direction, alone = old["module"] + old["name"], magnitude[:-1] + "v", True
        else:
            continue
        v = state.get(direction)
        is_own = any(f".{magnitude}".endswith(f".{name}") for name in kept)
        if v is None or is_own or not alone or weight in state or not _are_parts(g, v):
            continue
        folded[weight] = _product(g, v)
        parts |= {magnitude, direction}
    if not folded:
        return dict(state), ()
    return {**{name: value for name, value in state.items() if name not in parts}, **folded}, tuple(folded)


def _are_parts(g: Tensor, v: Tensor) -> bool:
    """Return whether the shapes and dtypes fit a magnitude and a direction."""
    if not {g.dtype, v.dtype} <= _FLOATS:
        return False
    if not g.ndim:
        return True
    longer = [axis for axis, length in enumerate(g.shape) if length > 1]
    return g.ndim == v.ndim and len(longer) <= 1 and all(g.shape[axis] == v.shape[axis] for axis in longer)


def _product(g: Tensor, v: Tensor) -> Tensor:
    dtype = torch.promote_types(g.dtype, v.dtype)
    # `axis` is the axis that the norm is not summed over: the magnitude has the same length there, more than 1. If
    # there is no such axis, any axis of length 1 in both tensors gives the same norm. -1 means a norm over all axes.
    axis = next((axis for axis, length in enumerate(g.shape) if length == v.shape[axis] > 1), None)
    if axis is None:
        axis = next((axis for axis, length in enumerate(g.shape) if length == v.shape[axis]), -1)
    return torch._weight_norm(v.to(dtype), g.to(dtype), axis if g.ndim else -1)


def check_parametrizations(state: Mapping[str, Tensor], own: Iterable[str] | None = None) -> None:
    """Check that no weight is stored as parts of a parametrization, which only the parametrization's code can join.

    Args:
        state: Names and tensors, after :func:`fold_weight_norm`. If ``own`` is given, they have the model's names.
        own: Parameter names of the model; None if the model is not known. Only parts of the model's own weights are
            refused.

    Raises:
        CheckpointError: Some weights are stored as parts of a parametrization, such as spectral norm or LoRA.
    """
    known = None if own is None else set(own)
    found: dict[str, tuple[str, str]] = {}
    for name, weight, kind in _parts(state):
        wanted = known is None or (weight in known and name not in known)
        if wanted and weight not in state and found.get(weight, ("", ""))[1] in ("", "a parametrization"):
            found[weight] = name, kind
    if not found:
        return
    kinds = list(dict.fromkeys(kind for _, kind in found.values()))
    old = any("parametrizations." not in name for name, _ in found.values())
    module, _, weight = next(iter(found)).rpartition(".")
    do = "torch.nn.utils.parametrize.remove_parametrizations(module, NAME)"
    do = "torch.nn.utils.remove_spectral_norm(module, NAME)" if old else do
    raise CheckpointError(
        f"expected the weights of a model, got {len(found):,} in the parts of {' and '.join(kinds)} "
        f"({some((name for name, _ in found.values()), _SHOWN)}), which only the program that wrote them can put "
        f"together: there, after model.eval(), call {do} for each of them, such as NAME={weight!r} of the module "
        f"{module or 'itself'!r}, then save its state_dict()"
    )


def _parts(state: Mapping[str, Tensor]) -> Iterator[tuple[str, str, str]]:
    """Yield the names of each part and of its weight, and the kind of the parametrization."""
    for name in state:
        if found := _PARAMETRIZED.match(name):
            kind = next((kind for kind, rest in _KINDS.items() if rest.match(found["rest"])), "a parametrization")
            yield name, found["module"] + found["name"], kind
        elif found := _OLD_SPECTRAL.match(name):
            weight = found["module"] + found["name"]
            if {f"{weight}_orig", f"{weight}_u"} <= state.keys():
                yield name, weight, "spectral norm"
