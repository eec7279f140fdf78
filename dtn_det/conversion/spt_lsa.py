"""Shifted Patch Tokenization and Locality Self-Attention (both arXiv:2112.13492) in built models.

:func:`convert_tokenization` and :func:`convert_attention` find modules by their exact classes.
:mod:`dtn_det.conversion.hosts` lists these classes and how each is replaced, with a module per library.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from dtn_det.conversion.grids import has_grid_hooks
from dtn_det.conversion.plan import Layers, check_choice, selects, some_names
from dtn_det.errors import InputError
from dtn_det.layers.lsa import head_scale

Replace = Callable[[nn.Module, str], None]
"""A function that replaces a module; it gets the model and the path of the module."""

Hosts = dict[type[nn.Module], Replace]
"""The classes of one library whose modules can be replaced."""

_LOGGER = logging.getLogger(__name__)
_LIBRARIES = ("timm", "mmcv", "mmpretrain", "mmdet")


@dataclass(frozen=True)
class Replacements:
    """The modules of a model that a conversion replaces, and the modules that it keeps. ``print`` lists them.

    Attributes:
        replaced: Path and class of each module that is replaced.
        kept: Path and class of each patch embedding or attention that stays.
    """

    model: str
    target: str
    replaced: tuple[tuple[str, str], ...]
    kept: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"{self.model}: {len(self.replaced)} modules become {self.target}, {len(self.kept)} stay"]
        lines += [f"  {name}: {kind}" for name, kind in self.replaced]
        lines += [f"  {name}: {kind} stays" for name, kind in self.kept]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Conversion:
    """One of the two conversions.

    Attributes:
        table: Name of the table of replaceable classes in each module of :mod:`dtn_det.conversion.hosts`.
        kind: Regular expression that finds patch embeddings or attentions by class name, to list those that stay.
    """

    argument: str
    value: str
    table: Literal["ATTENTION", "TOKENIZATION"]
    target: str
    models: str
    kind: str


_TOKENIZATION = _Conversion(
    "tokenization",
    "spt",
    "TOKENIZATION",
    "Shifted Patch Tokenization",
    "timm's ViT, DeiT, DeiT III, PiT, Swin or CaiT, mmpretrain's ViT, DeiT, T2T-ViT or Swin, or MMDetection's Swin or "
    "PVT",
    r"Patch(Embed|Merging)|Pooling$|ConvEmbedding|T2TModule",
)
_ATTENTION = _Conversion(
    "attention",
    "lsa",
    "ATTENTION",
    "Locality Self-Attention",
    "timm's ViT, DeiT, DeiT III, PiT, Swin or CaiT, mmpretrain's ViT, DeiT, T2T-ViT or Swin, or MMDetection's Swin, "
    "PVT or PVTv2",
    r"(?i)attn|attention|msa$",
)


def convert_tokenization(model: nn.Module, tokenization: str = "spt", *, layers: Layers = "") -> nn.Module:
    """Replace the tokenization of a built model by Shifted Patch Tokenization (Lee et al., arXiv:2112.13492), in place.

    The following modules are replaced:

    * the patch embedding, with its norm, in these models: timm's ViT, DeiT, DeiT III, CaiT and Swin, mmpretrain's ViT,
      DeiT and Swin, and MMDetection's Swin and PVT,
    * the patch mergings of Swin,
    * the patch embedding and the pooling layers of timm's PiT, where the class token keeps its projection,
    * the tokens-to-token module of mmpretrain's T2T-ViT, of which only the input changes: it becomes the image with its
      shifted copies, as in the paper.

    New weights are initialised, and all other weights stay. If the old patches overlap, as in PiT, the new patches do
    not overlap, and have the size of the old stride. The position embedding is resized to the new grid.

    The replaced modules are logged at level INFO; :func:`plan_tokenization` returns them without changing the model.

    Args:
        tokenization: ``'spt'``.
        layers: Regular expression to search for in the path of a module, or a function of path and module that returns
            whether to replace it. By default all modules are replaced.

    Returns:
        The same model.

    Raises:
        InputError: No module can be replaced, the layer is not defined for the patches of the model, or an argument
            does not fit.

    Example:
        >>> model = convert_tokenization(timm.create_model("vit_small_patch16_224"), "spt")
    """
    plan = plan_tokenization(model, tokenization, layers=layers)
    if has_grid_hooks(model):
        raise InputError(
            f"expected to convert the tokens of {type(model).__name__} before its norms, got norms converted already: "
            "they look for the module that makes the tokens; build the model again, convert_tokenization first"
        )
    return _replace(model, plan, _TOKENIZATION)


def plan_tokenization(model: nn.Module, tokenization: str = "spt", *, layers: Layers = "") -> Replacements:
    """Return what :func:`convert_tokenization` would replace, with the same arguments and errors."""
    return _plan(model, _TOKENIZATION, tokenization, layers)


def convert_attention(model: nn.Module, attention: str = "lsa", *, layers: Layers = "") -> nn.Module:
    """Turn the attention of a built model into Locality Self-Attention (Lee et al., arXiv:2112.13492), in place.

    Each attention module becomes an instance of a subclass of its own class, so that weights, hooks and names stay. It
    gets ``scale``, one learned number per head, which starts at the former scale of the module. No token attends to
    itself any more. Two kinds of attention get only the scale: class attention, whose only query is the class token,
    and PVT's attention to spatially reduced keys. The supported models are timm's ViT, DeiT, DeiT III, PiT, Swin and
    CaiT, mmpretrain's ViT, DeiT, T2T-ViT and Swin, and MMDetection's Swin, PVT and PVTv2.

    The replaced modules are logged at level INFO; :func:`plan_attention` returns them without changing the model.

    Args:
        attention: ``'lsa'``.
        layers: Regular expression to search for in the path of an attention module, or a function of path and module
            that returns whether to replace it. By default all are replaced.

    Returns:
        The same model.

    Raises:
        InputError: No module can be replaced, or an argument does not fit.

    Example:
        >>> model = convert_attention(timm.create_model("vit_small_patch16_224"), "lsa")
    """
    return _replace(model, plan_attention(model, attention, layers=layers), _ATTENTION)


def plan_attention(model: nn.Module, attention: str = "lsa", *, layers: Layers = "") -> Replacements:
    """Return what :func:`convert_attention` would replace, with the same arguments and errors."""
    return _plan(model, _ATTENTION, attention, layers)


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Set the submodule of a model at a path."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def become(
    kind: type[nn.Module], like: str = "qkv.weight", start: Callable[[Any], float] = lambda module: module.scale
) -> Replace:
    """Return a function that turns an attention module into an instance of `kind`, with a learnable scale per head.

    Args:
        like: Path of a parameter in the module. The scale takes its device, dtype and ``requires_grad``.
        start: Function that returns the former scale of a module.
    """

    def replace(model: nn.Module, name: str) -> None:
        module: Any = model.get_submodule(name)
        weight = module.get_parameter(like)
        scale = head_scale(module.num_heads, start(module), weight).requires_grad_(weight.requires_grad)
        module.__class__ = kind
        module.scale = scale

    return replace


def _replace(model: nn.Module, plan: Replacements, conversion: _Conversion) -> nn.Module:
    hosts = _known_hosts(model, conversion)
    for name, _ in plan.replaced:
        hosts[type(model.get_submodule(name))](model, name)
    _LOGGER.info("%s", plan)
    return model


def _known_hosts(model: nn.Module, conversion: _Conversion) -> Hosts:
    """Return the replaceable classes of the libraries that the model uses. No other library is imported."""
    packages = {type(module).__module__.partition(".")[0] for module in model.modules()}
    hosts: Hosts = {}
    for library in _LIBRARIES:
        if library in packages:
            hosts |= getattr(importlib.import_module(f"dtn_det.conversion.hosts.{library}"), conversion.table)
    return hosts


def _plan(model: nn.Module, conversion: _Conversion, value: str, layers: Layers) -> Replacements:
    """Choose what a conversion replaces. Subclasses of the known classes may behave differently and are left alone."""
    if value != conversion.value:
        raise InputError(f"expected {conversion.argument} to be {conversion.value!r}, got {value!r}")
    check_choice(model, layers)
    hosts = _known_hosts(model, conversion)
    replaced: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for name, module in model.named_modules():
        if type(module) in hosts and name and selects(layers, name, module):
            replaced.append((name, type(module).__name__))
        elif name and re.search(conversion.kind, type(module).__name__):
            others.append((name, type(module).__name__))
    # Modules inside or around a replaced module change together with it, so they are not listed as kept.
    kept = tuple(
        (name, kind)
        for name, kind in others
        if not any(f"{one}.".startswith(f"{name}.") or name.startswith(f"{one}.") for one, _ in replaced)
    )
    if not replaced:
        raise _nothing_to_replace(model, conversion, hosts, kept, layers)
    return Replacements(type(model).__name__, conversion.target, tuple(replaced), kept)


def _nothing_to_replace(
    model: nn.Module,
    conversion: _Conversion,
    hosts: Mapping[type[nn.Module], Replace],
    kept: Sequence[tuple[str, str]],
    layers: Layers,
) -> InputError:
    model_class = type(model).__name__
    kinds = [type(model.get_submodule(name)) for name, _ in kept]
    if kinds and all(kind.__module__.startswith("dtn_det.") for kind in kinds):
        return InputError(f"expected a {model_class} without {conversion.target}, got one that is converted already")
    fitting = [name for name, module in model.named_modules() if name and type(module) in hosts]
    if fitting:
        return InputError(
            f"expected layers to choose some of {some_names(fitting)} of {model_class}, got {layers!r}, which chooses "
            "none of them: write a regular expression that is found in such a path, or leave layers out"
        )
    classes = sorted({f"{kind.__module__}.{kind.__qualname__}" for kind in kinds})
    found = f"{', '.join(classes)}, for which it is not written" if classes else "none of the kind"
    return InputError(
        f"expected modules of {model_class} that can become {conversion.target}, got {found}: each class needs a form "
        f"of its own; take {conversion.models}"
    )
