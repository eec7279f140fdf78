"""Options that change a layer's output but cannot be inferred from its weights, so state dicts store them too."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

EXTRA_STATE = "_extra_state"
"""The key under which PyTorch stores a module's extra state in a state dict."""

Options = Mapping[str, object]
"""Options of a layer by name. They include the name of its class, under ``norm`` for norms of tokens and under
``layer`` for other layers.
"""

CLASS_KEYS = ("norm", "layer")
"""Keys under which options store the name of the layer's class."""


class CarriesOptions(nn.Module):
    """A layer whose state dict stores its class and the options in :attr:`decisive`, as PyTorch's ``_extra_state``.

    When a state dict with different options is loaded, the layer warns and adopts them, because the weights were
    trained with them. With :attr:`keeps_options`, it warns and keeps its own options. Older state dicts, which have no
    options, load without a warning.

    Attributes:
        class_key: Key under which the options store the name of the class.
        decisive: Names of the options to store; the layer has an attribute of each name.
        keeps_options: True if loading does not change the options of the layer.
    """

    class_key: ClassVar[str] = "layer"
    decisive: ClassVar[tuple[str, ...]] = ()
    keeps_options: bool = False

    def options(self) -> dict[str, object]:
        """Return a dict of the options in :attr:`decisive` and of the name of the layer's class."""
        return {self.class_key: type(self).__name__, **{name: getattr(self, name) for name in self.decisive}}

    def take_options(self, found: Options) -> None:
        """Set this layer's options to the values in ``found``, which come from a layer of the same class.

        Options that this layer does not have are ignored, and so is the name of the class.
        """
        for name, value in other_options(self.options(), found).items():
            if name not in CLASS_KEYS:
                setattr(self, name, value)

    def get_extra_state(self) -> Tensor:
        """Return the options for the state dict, see :func:`pack_options`."""
        return pack_options(self.options())

    def set_extra_state(self, state: object) -> None:
        """Compare the options of a state dict with the layer's, and adopt or ignore them."""
        found = unpack_options(state)
        if found is None:
            warnings.warn(
                f"expected the options of {type(self).__name__} in the state dict, got something else: the layer keeps "
                "its own; see that they are those of the training",
                stacklevel=2,
            )
            return
        own = self.options()
        others = other_options(own, found)
        if not others:
            return
        before = {name: own[name] for name in others}
        said = f"the state dict is of {describe_options(others)}, the model was built with {describe_options(before)}"
        if self.class_key in others:
            kind = "norm" if self.class_key == "norm" else "layer"
            warnings.warn(f"{said}: weights with the same names go from one {kind} into another", stacklevel=2)
        elif self.keeps_options:
            warnings.warn(f"{said}: the model keeps its own, which gives other outputs at first", stacklevel=2)
        else:
            self.take_options(others)
            warnings.warn(f"{said}: the model takes those of the state dict", stacklevel=2)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load as PyTorch does, but do not report missing options, because older files have none."""
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if prefix + EXTRA_STATE in missing_keys:
            missing_keys.remove(prefix + EXTRA_STATE)


def pack_options(options: Options) -> Tensor:
    """Encode options as the bytes of their JSON text.

    The result is a tensor because ``torch.load(weights_only=True)``, safetensors and all code that copies state dicts
    support tensors. It is on the CPU whatever the default device. It is a new tensor in each call, so that averaging
    weights in place cannot change it.

    Returns:
        ``(bytes,)``, uint8.
    """
    text = json.dumps(dict(options), sort_keys=True).encode("ascii")
    return torch.tensor(list(text), dtype=torch.uint8, device="cpu")


def unpack_options(state: object) -> dict[str, object] | None:
    """Decode the result of :func:`pack_options`, also if it has been cast to a floating-point dtype.

    Returns:
        The options; None if ``state`` holds none.
    """
    if not isinstance(state, Tensor) or state.dim() != 1 or state.is_meta or not state.numel():
        return None
    numbers = state.detach().cpu().double()
    if not bool(((numbers.round() == numbers) & (numbers >= 0) & (numbers < 128)).all()):
        return None
    try:
        found = json.loads(bytes(int(number) for number in numbers.tolist()).decode("ascii"))
    except ValueError:
        return None
    named = isinstance(found, dict) and any(isinstance(found.get(key), str) for key in CLASS_KEYS)
    return found if named else None


def other_options(own: Options, found: Options) -> dict[str, object]:
    """Return the options in ``found`` whose value in ``own`` differs; options that are not in both are ignored."""
    return {name: value for name, value in found.items() if name in own and own[name] != value}


def describe_options(options: Options) -> str:
    """Describe options in readable form, such as ``head_rms=True, unbiased=True``."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
