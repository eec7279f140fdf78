"""Check whether a norm computes the function of LayerNorm, so that another norm can replace it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks"),
    *("_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks"),
)
# Classes with their own `forward` that computes LayerNorm's function. The tests compare them with LayerNorm.
KNOWN = frozenset({("timm.layers.norm", "LayerNorm"), ("timm.layers.norm", "LayerNormFp32")})
_OWN_TENSORS = frozenset({"weight", "bias"})
# Largest difference from LayerNorm's outputs, which are of the order of 1. Rounding in float32 changes outputs by about
# 1e-6; a further activation or scale changes them much more.
_TOLERANCE = 1e-3
# Standard deviation of the inputs that reveal a different eps: their variance is of the order of eps.
_SMALL = 1e-3


class LikeLayerNorm:
    """Decides for each norm of a model whether it computes ``F.layer_norm`` with the norm's weight, bias and eps.

    If the class of a norm has its own ``forward``, the norm is tried on a small random input. All norms of the class
    with the same settings are tried only once. The trial runs on the CPU with random weights, so that the device and
    the weights of the model have no effect on the result. Neither the model nor the global random state changes.
    """

    def __init__(self) -> None:
        self._tried: dict[tuple[object, ...], str | None] = {}

    def reason_to_stay(self, norm: nn.LayerNorm) -> str | None:
        """Return why a norm over one axis must not be replaced; None if another norm can take its place.

        A norm stays if it has hooks, parametrizations or submodules, because the new norm would not have them, or if it
        does not compute LayerNorm's function.
        """
        reason, kind = attachments(norm), type(norm)
        plain = kind.forward is nn.LayerNorm.forward and kind.__call__ is nn.Module.__call__
        if reason is not None or plain or (kind.__module__, kind.__qualname__) in KNOWN:
            return reason
        key = (kind, *_settings(norm))
        if key not in self._tried:
            self._tried[key] = _difference(norm)
        return self._tried[key]


def attachments(module: nn.Module, parts: frozenset[str] = frozenset()) -> str | None:
    """Return what a norm has besides weight and bias, as a reason not to replace it; None if it has nothing else.

    Args:
        parts: Names of submodules that the norm may have.
    """
    if "parametrizations" in module._modules:
        return "has parametrized weights, which the new norm would not have"
    hooks = [name.strip("_") for name in _HOOKS if getattr(module, name, None)]
    if hooks:
        return f"has hooks ({', '.join(hooks)}), which the new norm would not have"
    if "forward" in vars(module):
        return "has a forward of its own, set on the module"
    others = [
        f"{name} ({type(part).__name__})"
        for name, part in module.named_children()
        if name not in parts and type(part) is not nn.Identity
    ]
    if others:
        return f"has the parts {', '.join(others)}, which the new norm would not have"
    tensors = [*module._parameters, *module._buffers]
    # BatchNorm also has buffers of running statistics, which do not prevent its replacement.
    more = [name for name in tensors if name not in _OWN_TENSORS and not isinstance(module, nn.BatchNorm1d)]
    return f"has the tensors {', '.join(more)} beyond weight and bias" if more else None


def _settings(norm: nn.LayerNorm) -> list[tuple[str, str]]:
    """Return the names and values of the attributes in which norms of one class may differ."""
    # Skip attributes with an underscore: they belong to nn.Module or are private counters.
    own = {name: value for name, value in vars(norm).items() if not name.startswith("_")}
    without = [name for name, value in norm._parameters.items() if value is None]
    return [(name, repr(own[name])) for name in sorted(own) if name not in ("training", "normalized_shape")] + [
        (name, "None") for name in without
    ]


@torch.no_grad()
def _difference(norm: nn.LayerNorm) -> str | None:
    """Return how a norm's outputs differ from LayerNorm's for a random input, in training or evaluation; else None."""
    generator = torch.Generator(device="cpu").manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)

    width, kind = norm.normalized_shape[0], type(norm).__name__
    x = 2 * draw(2, 3, width) + 0.5
    x[0] = _SMALL * draw(3, width)
    tensors = {name: draw(width) for name, value in norm._parameters.items() if value is not None}
    wanted = F.layer_norm(x, (width,), tensors.get("weight"), tensors.get("bias"), norm.eps)
    training = norm.training
    try:
        for norm.training in (True, False):
            with torch.random.fork_rng(devices=[]):
                found: Any = functional_call(norm, tensors, (x.clone(),))
            if not isinstance(found, Tensor) or found.shape != x.shape:
                return f"is a {kind}, which gives other outputs than a tensor of its input's shape"
            if not torch.allclose(found.float(), wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
                return f"is a {kind}, which computes another function than LayerNorm"
    # The code of users may raise anything.
    except Exception as error:
        return f"is a {kind}, which cannot be compared with LayerNorm ({type(error).__name__}: {error})"
    finally:
        norm.training = training
    return None
