"""Replace the norms in a backbone's stages by DTN or another norm of tokens, and call the norms of a block."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dtn_det.errors import InputError
from dtn_det.layers import TokenNorm, from_layer_norm
from dtn_det.layers.token_norms.factory import option_names, takes_groups

_DTN_KEYS = option_names("dtn")


def check_arguments(backbone: type, names: Iterable[str]) -> None:
    """Check that a backbone accepts keyword arguments of these names.

    A backbone with ``**kwargs`` passes further arguments on to its parent class, whose arguments are then accepted too.

    Raises:
        TypeError: An argument is unknown. The message names `backbone`, not a parent, and suggests similar arguments.
    """
    known: set[str] = set()
    for base in backbone.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        known |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            break
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=2)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"it has {', '.join(sorted(known))}"
            raise TypeError(f"expected arguments of {backbone.__name__}, got {name!r}: {hint}")


def stage_groups(
    dtn_cfg: Mapping[str, Any] | None,
    dtn_stages: Sequence[int],
    *,
    widths: Sequence[int],
    num_heads: Sequence[int],
    default_groups: Sequence[int] | str,
) -> dict[int, int]:
    """Return the number of groups for each stage whose block norms are replaced.

    Args:
        dtn_cfg: Settings of the new norms. ``type`` is a name of :func:`dtn_det.layers.build_token_norm`, by default
            ``'DTN'``. ``num_groups`` is an int, one int per stage, or ``'heads'`` for the attention heads of each
            stage. The other keys are keyword arguments of the norm. Arguments that only DTN has are ignored by other
            norms, and ``num_groups`` is ignored by norms without groups.
        default_groups: ``num_groups`` if ``dtn_cfg`` has none.

    Returns:
        The number of groups for each stage index.

    Raises:
        ValueError: A key or the norm is unknown. A stage does not exist or is repeated. ``num_groups`` has a wrong
            form, or does not divide the number of channels of its stage.
    """
    cfg = dict(dtn_cfg or {})
    name = norm_type(cfg)
    known = _DTN_KEYS | option_names(name) | {"num_groups", "type"}
    unknown = sorted(set(cfg) - known)
    if unknown:
        raise InputError(f"expected dtn_cfg to have keys out of {sorted(known)}, got {', '.join(unknown)}")
    stages = list(dtn_stages)
    if len(set(stages)) != len(stages) or not all(isinstance(s, int) and 0 <= s < len(widths) for s in stages):
        raise InputError(
            f"expected dtn_stages to be distinct stage indices from 0 to {len(widths) - 1}, got {tuple(stages)}"
        )
    groups = _groups_per_stage(cfg.get("num_groups", default_groups), num_heads)
    for stage in stages:
        if takes_groups(name) and (groups[stage] < 1 or widths[stage] % groups[stage]):
            raise InputError(
                f"expected num_groups to divide the width of its stage, got {groups[stage]} groups for stage {stage} "
                f"of width {widths[stage]}: set dtn_cfg=dict(num_groups=...) to divisors of {tuple(widths)}"
            )
    return {stage: groups[stage] for stage in stages}


def _groups_per_stage(num_groups: Sequence[int] | str | int, num_heads: Sequence[int]) -> list[int]:
    if num_groups == "heads":
        return list(num_heads)
    if isinstance(num_groups, int):
        return [num_groups] * len(num_heads)
    if isinstance(num_groups, str) or len(num_groups) != len(num_heads):
        raise InputError(
            f"expected num_groups to be an int, 'heads' or {len(num_heads)} ints (one per stage), got {num_groups!r}"
        )
    return list(num_groups)


def norm_type(dtn_cfg: Mapping[str, Any] | None) -> str:
    """Return the name of the norm in a ``dtn_cfg``, ``'DTN'`` by default."""
    return str((dtn_cfg or {}).get("type", "DTN"))


def block_norms(block: Any, num_groups: int | None, dtn_cfg: Mapping[str, Any] | None) -> tuple[nn.Module, nn.Module]:
    """Return two new norms of tokens for a block, or its ``norm1`` and ``norm2`` unchanged if ``num_groups`` is None.

    The new norms take over the number of channels, ``eps`` (unless ``dtn_cfg`` has one) and ``requires_grad`` of the
    LayerNorms. The arguments are from :func:`stage_groups`, which has checked ``dtn_cfg``.

    Raises:
        ValueError: A norm is not a LayerNorm, or an option has an unsuitable value.
    """
    if num_groups is None:
        return block.norm1, block.norm2
    name = norm_type(dtn_cfg)
    options = {key: value for key, value in (dtn_cfg or {}).items() if key in option_names(name)}
    for norm in (block.norm1, block.norm2):
        if not isinstance(norm, nn.LayerNorm):
            raise InputError(
                f"expected norm_cfg to build a LayerNorm where {name} replaces it, got {type(norm).__name__}: use "
                f"norm_cfg=dict(type='LN')"
            )
    norm1, norm2 = (from_layer_norm(norm, name, num_groups, **options) for norm in (block.norm1, block.norm2))
    return norm1, norm2


def apply_norm(norm: nn.Module, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
    """Call the norm of a block on ``(B, H * W, C)``, with the grid ``(H, W)`` if it is a norm of tokens."""
    return norm(x, hw_shape) if isinstance(norm, TokenNorm) else norm(x)


def maybe_checkpoint(function: Callable[[Tensor], Tensor], x: Tensor, enabled: bool) -> Tensor:
    """Compute ``function(x)``, with activation checkpointing if ``enabled``.

    The non-reentrant form is used, because it also works under DistributedDataParallel and for the first block, whose
    input needs no gradient.
    """
    if enabled and torch.is_grad_enabled():
        return checkpoint(function, x, use_reentrant=False)
    return function(x)
