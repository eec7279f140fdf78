"""The plan of a conversion: which norms of a model are replaced, with how many groups, and why the others stay."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from dtn_det.conversion.blocks import (
    TransformerBlock,
    authors_blocks,
    block_around,
    find_blocks,
    num_heads,
    own_attention,
    reasons_of_strangers,
    stream_widths,
)
from dtn_det.conversion.grid_memory import Grid
from dtn_det.conversion.hosts.traits import ancestors, check_images_apart, check_order, hides_later_tokens
from dtn_det.conversion.same_function import LikeLayerNorm, attachments
from dtn_det.errors import InputError, NoNormToConvertError
from dtn_det.layers import DTN, DyT, RMSNorm, ScaleNorm, TokenGroupNorm, TokenLayerNorm
from dtn_det.layers.token_norm import TokenNorm
from dtn_det.layers.token_norms.factory import takes_groups, token_norm_class

Layers = str | Callable[[str, nn.Module], bool]
"""A choice of modules: a regular expression to search for in their paths, or a function of path and module."""

Groups = Literal["heads"] | int | Callable[[str, nn.Module], int]
"""The number of groups of a norm: ``'heads'`` for the number of attention heads, a number, or a function of path and
norm.
"""

GridFunction = Callable[[int], Grid]
"""A function that returns the grid for a number of tokens."""

# LeViT's linear layers at the start of an attention or feed-forward branch, as timm and mmpretrain name them. Each has
# a BatchNorm, which is replaced.
_BATCH_NORM_BRANCHES = ("qkv", "ln1", "linear1")
# Keywords that the argument `layers` takes; any other text is a regular expression.
_PLACEMENTS = ("authors", "blocks")
# Norms whose statistics come from each token alone.
_WITHIN_TOKENS = (TokenLayerNorm, TokenGroupNorm, ScaleNorm, RMSNorm, DyT)


@dataclass(frozen=True)
class NormSite:
    """A norm that is to be replaced.

    Attributes:
        width: Number of channels that the norm normalises.
        num_groups: Number of groups of DTN or GroupNorm; 1 for other norms.
        block: Path of the block that contains the norm; None for a norm outside of blocks.
        stream: Number of channels of the block's tokens. It differs from `width` for some norms inside an MLP.
    """

    name: str
    width: int
    num_groups: int
    block: str | None
    stream: int


@dataclass(frozen=True)
class NormPlan:
    """The norms of a model that a conversion replaces or keeps. Printing the plan lists both.

    Attributes:
        kept: Path of each norm that stays, and the reason.
        unlike: Paths of the norms that stay for one of two reasons: they do not compute LayerNorm's function, or they
            have hooks or submodules that a new norm would lack.
    """

    model: str
    norm: str
    replaced: tuple[NormSite, ...]
    kept: tuple[tuple[str, str], ...] = field(default=())
    blocks: tuple[str, ...] = field(default=())
    unlike: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"{self.model}: {len(self.replaced)} norms become {self.norm}, {len(self.kept)} stay"]
        groups = " in {} groups" if takes_groups(self.norm) else ""
        lines += [f"  {site.name}: {site.width} channels{groups.format(site.num_groups)}" for site in self.replaced]
        lines += [f"  {name} stays: {reason}" for name, reason in self.kept]
        return "\n".join(lines)


def plan_norms(
    model: nn.Module,
    norm: str = "dtn",
    *,
    layers: Layers = "authors",
    num_groups: Groups = "heads",
    grid: Grid | GridFunction | str | None = None,
) -> NormPlan:
    """Choose the norms that a conversion replaces, without changing the model.

    Arguments and errors are as in :func:`dtn_det.convert_norm`.

    Raises:
        NoNormToConvertError: The model has no norm to replace. The error carries the plan with the reasons.
        InputError: The model has no grid for the new norm, a norm to replace was converted before, groups do not divide
            a width, or an argument does not fit.
    """
    _check_arguments(model, norm, layers, grid)
    if not takes_groups(norm):
        num_groups = 1
    modules = dict(model.named_modules())
    blocks = find_blocks(modules)
    norms = {name: module for name, module in modules.items() if name and isinstance(module, nn.LayerNorm)}
    if not norms:
        return _batch_norm_plan(model, modules, norm, layers, num_groups)
    # Without a given grid, DTN can only replace norms of image tokens, because hooks can find the grid of these tokens.
    finds_grid = grid is None and token_norm_class(norm) is DTN
    strangers = reasons_of_strangers(modules, blocks) if finds_grid else {}
    own = {path: block for path, block in blocks.items() if path not in strangers}
    chosen = authors_blocks(own, grid == "sequence") if layers == "authors" else frozenset(own)
    replaced: list[NormSite] = []
    kept: list[tuple[str, str]] = []
    unlike: list[str] = []
    like_layer_norm = LikeLayerNorm()
    converted: dict[str, nn.Module] = {}
    block_of = {name: block_around(name, blocks) for name in norms}
    widths = stream_widths(norms, block_of)
    for name, module in norms.items():
        block = block_of[name]
        stream = widths.get(block.path) if block is not None else None
        reason = (strangers.get(block.path) if block is not None else None) or _firm_reason_to_stay(module)
        if layers in _PLACEMENTS:
            asked = block is not None and block.path in chosen
            reason = reason or _usual_reason_to_stay(name, module, modules, block, stream)
            reason = reason or (None if asked else "the authors keep LayerNorm in this block")
        else:
            asked = selects(layers, name, module)
            reason = reason or (None if asked else "not among the layers")
        if asked and isinstance(module, TokenNorm):
            converted[name] = module
        if reason is None:
            reason = like_layer_norm.reason_to_stay(module)
            unlike += [] if reason is None else [name]
        if reason is None:
            attention = block.attention if block else None
            width = module.normalized_shape[0]
            groups = _groups(num_groups, name, module, width, attention)
            replaced.append(NormSite(name, width, groups, block.path if block else None, stream or width))
        else:
            kept.append((name, reason))
    _check_first(type(model).__name__, converted)
    return _checked(
        NormPlan(type(model).__name__, norm, tuple(replaced), tuple(kept), tuple(blocks), tuple(unlike)),
        layers,
        modules,
    )


def _check_arguments(model: Any, norm: Any, layers: Layers, grid: Any) -> None:
    check_choice(model, layers)
    if not isinstance(norm, str):
        raise InputError(
            f"expected the name of a norm, got {norm!r}: write its options behind it, convert_norm(model, 'dtn', "
            "init='local')"
        )
    _check_grid(grid)
    if grid != "sequence" and token_norm_class(norm) is DTN:
        check_order(model, grid_is_given=grid is not None)
    if token_norm_class(norm) not in _WITHIN_TOKENS:
        check_across_tokens(model, norm, grid)


def check_across_tokens(model: nn.Module, norm: str, grid: object) -> None:
    """Check that a norm with statistics over tokens can be used in a model.

    Raises:
        InputError: The model packs the tokens of several images into one row; or ``grid='sequence'`` and its attention
            is causal.
    """
    check_images_apart(model, norm)
    if grid == "sequence" and hides_later_tokens(model):
        raise InputError(
            f"expected an encoder, got {type(model).__name__} with attention that must not see later tokens, at "
            f"which {norm} looks: convert an encoder, or take a norm within tokens (ln, rmsnorm, scalenorm, dyt)"
        )


def _check_grid(grid: Any) -> None:
    if grid is None or grid == "sequence" or callable(grid):
        return
    sides = tuple(grid) if isinstance(grid, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(
            f"expected grid to be (H, W), a function of the number of tokens, 'sequence' or None, got {grid!r}"
        )


def _firm_reason_to_stay(module: nn.LayerNorm) -> str | None:
    """Return the reason why a norm can never be replaced; None if it can."""
    if isinstance(module, TokenNorm):
        return "is converted already"
    if len(module.normalized_shape) != 1:
        return f"normalises {len(module.normalized_shape)} axes"
    return "normalises maps (B, C, H, W)" if type(module).__name__.endswith("2d") else None


def _usual_reason_to_stay(
    name: str, module: nn.LayerNorm, modules: dict[str, nn.Module], block: TransformerBlock | None, stream: int | None
) -> str | None:
    """Return the reason why a norm stays unless `layers` selects it by path; None if there is no reason."""
    if block is None:
        return "not in a block"
    if any(num_heads(modules[path]) for path in ancestors(name) if path.startswith(block.path + ".")):
        return "inside the attention"
    if module.normalized_shape[0] != stream:
        return "normalises hidden channels of its block"
    return "sees the class token alone" if block.is_class_attention else None


def _no_layer_norm(modules: Mapping[str, nn.Module]) -> str:
    """Return that a model has no LayerNorm, and which other norms it has."""
    others: dict[str, list[str]] = {}
    for name, module in modules.items():
        if "norm" in type(module).__name__.lower():
            others.setdefault(type(module).__name__, []).append(name)
    found = ", ".join(f"{len(names)} {kind} ({names[0]})" for kind, names in others.items())
    told = f"; its norms are {found}, which are no torch.nn.LayerNorm and may compute another function"
    return "it has no torch.nn.LayerNorm" + (told if found else "")


def _checked(plan: NormPlan, layers: Layers, modules: Mapping[str, nn.Module]) -> NormPlan:
    if plan.replaced:
        return plan
    reasons = sorted({reason for _, reason in plan.kept}) or [_no_layer_norm(modules)]
    names = some_names([name for name, _ in plan.kept])
    raise NoNormToConvertError(
        f"expected norms to replace in {plan.model} with layers={layers!r}, got none ({'; '.join(reasons)})"
        + (f": its norms are {names}" if names else ": choose another model")
        + (_advice_on_layers(layers, plan.kept[0][0]) if names and layers not in _PLACEMENTS else ""),
        plan,
    )


def some_names(names: Sequence[str], number: int = 6) -> str:
    """Join the first names, with an ellipsis for further ones."""
    return ", ".join(names[:number]) + (", ..." if len(names) > number else "")


def _advice_on_layers(layers: Layers, first: str) -> str:
    if callable(layers):
        return "; write a function that is true for some of them"
    close = difflib.get_close_matches(str(layers).strip().lower(), _PLACEMENTS, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    parent = re.escape(first.rpartition(".")[0] + ".") if "." in first else re.escape(first)
    return f"; write 'authors', 'blocks', or a regular expression that is found in such names, layers=r'{parent}'"


def _check_first(model: str, converted: dict[str, nn.Module]) -> None:
    """Raise an InputError if any of the norms to replace is a converted norm."""
    if not converted:
        return
    first = next(iter(converted))
    others = f" and {len(converted) - 1} more" if len(converted) > 1 else ""
    raise InputError(
        f"expected a {model} with LayerNorm in the places to convert, got norms that are converted already, "
        f"{type(converted[first]).__name__} at {first!r}{others}: build the model again and convert it once, or choose "
        "norms that are left with layers="
    )


def selects(layers: Layers, name: str, module: nn.Module) -> bool:
    """Return whether `layers` selects a module, given its path."""
    if callable(layers):
        return bool(layers(name, module))
    return re.search(layers, name) is not None


def check_choice(model: Any, layers: Layers) -> None:
    """Check that `model` is a built model, and that `layers` is a function or a regular expression.

    Raises:
        InputError: `model` is not a built model, or `layers` is neither a function nor a valid regular expression.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a built model (torch.nn.Module), got {type(model).__name__}: build it first")
    if callable(layers):
        return
    if not isinstance(layers, str):
        raise InputError(
            "expected layers to be 'authors', 'blocks', a function or a regular expression, got "
            f"{layers!r}: write the blocks 0 and 1 as layers=r'blocks\\.(0|1)\\.'"
        )
    try:
        re.compile(layers)
    except re.error as error:
        raise InputError(
            f"expected layers to be 'authors', 'blocks', a function or a regular expression, got {layers!r} ({error})"
        ) from error


def _groups(
    num_groups: Groups, name: str, module: nn.Module, width: int, attention: nn.Module | None, nearest: bool = False
) -> int:
    if num_groups == "heads":
        heads = num_heads(attention) if attention is not None else None
        if heads is None:
            raise InputError(
                f"expected an attention beside {name!r} to take the groups from, got none: pass num_groups as a number "
                "or as a function of name and norm, or leave this norm out with layers"
            )
        groups = max(n for n in range(1, heads + 1) if width % n == 0) if nearest else heads
    else:
        groups = num_groups(name, module) if callable(num_groups) else num_groups
    if not isinstance(groups, int) or isinstance(groups, bool):
        raise InputError(f"expected num_groups to be 'heads', an integer or a function that gives one, got {groups!r}")
    if groups < 1 or width % groups:
        source = "the heads of its attention" if num_groups == "heads" else "num_groups"
        raise InputError(
            f"expected groups that divide the width {width} of {name!r}, got {groups} ({source}): pass num_groups as a "
            "divisor, or as a function of name and norm"
        )
    return groups


def is_linear_batch_norm(module: nn.Module) -> bool:
    """Return whether a module is LeViT's linear layer with the BatchNorm that follows it (timm, mmpretrain)."""
    linear, norm = getattr(module, "linear", None), getattr(module, "bn", None)
    return isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d)


def _batch_norm_plan(
    model: nn.Module, modules: dict[str, nn.Module], norm: str, layers: Layers, num_groups: Groups
) -> NormPlan:
    """Make the plan for LeViT, which has BatchNorm behind each linear layer.

    Other models normalise the tokens at the start of a branch (attention or feed-forward network). LeViT normalises
    them after the first linear layer of the branch, and the norms there are replaced. The norm after the last linear
    layer stays, because its weight scales the branch and starts at 0. Norms in feed-forward networks get as many groups
    as the attention before them has heads, or the nearest lower divisor of their width.
    """
    replaced: list[NormSite] = []
    kept: list[tuple[str, str]] = []
    unlike: list[str] = []
    attention: nn.Module | None = None
    for name, module in modules.items():
        attention = module if num_heads(module) and not own_attention(module) else attention
        if not name or not is_linear_batch_norm(module):
            continue
        chosen = name.rpartition(".")[2] in _BATCH_NORM_BRANCHES if layers in ("authors", "blocks") else None
        if chosen if chosen is not None else selects(layers, name, module):
            batch_norm = module.get_submodule("bn")
            reason = attachments(module, frozenset({"linear", "bn"})) or attachments(batch_norm)
            if reason is None and type(batch_norm).forward is not nn.BatchNorm1d.forward:
                reason = f"has a {type(batch_norm).__name__}, which may compute another function than BatchNorm"
            if reason is not None:
                kept.append((name, reason))
                unlike.append(name)
                continue
            width = module.get_parameter("linear.weight").shape[0]
            groups = _groups(num_groups, name, module, width, attention, nearest=True)
            replaced.append(NormSite(name, width, groups, None, width))
        else:
            kept.append((name, "ends a branch" if chosen is not None else "not among the layers"))
    plan = NormPlan(type(model).__name__, norm, tuple(replaced), tuple(kept), unlike=tuple(unlike))
    return _checked(plan, layers, modules)
