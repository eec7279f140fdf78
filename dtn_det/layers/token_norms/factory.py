"""Building norms of tokens by name."""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import Any

from torch import nn

from dtn_det.errors import InputError
from dtn_det.layers.dtn import DTN
from dtn_det.layers.token_norm import TokenNorm
from dtn_det.layers.token_norms.across import SwitchNorm, TokenBatchNorm, TokenGroupNorm, TokenInstanceNorm
from dtn_det.layers.token_norms.power import PowerNorm
from dtn_det.layers.token_norms.within import DyT, RMSNorm, ScaleNorm, TokenLayerNorm

TOKEN_NORMS: dict[str, type[TokenNorm]] = {
    "dtn": DTN,
    "ln": TokenLayerNorm,
    "bn": TokenBatchNorm,
    "in": TokenInstanceNorm,
    "gn": TokenGroupNorm,
    "sn": SwitchNorm,
    "scalenorm": ScaleNorm,
    "powernorm": PowerNorm,
    "rmsnorm": RMSNorm,
    "dyt": DyT,
}

ALIASES: dict[str, str] = {
    "dynamictokennormalization": "dtn",
    "layernorm": "ln",
    "batchnorm": "bn",
    "instancenorm": "in",
    "groupnorm": "gn",
    "switchnorm": "sn",
    "switchablenorm": "sn",
    "pn": "powernorm",
    "rms": "rmsnorm",
    "dynamictanh": "dyt",
}

# Arguments of the norms' constructors that do not count as options.
_GIVEN = frozenset({"self", "num_features", "num_groups", "device", "dtype"})


def token_norm_class(name: str) -> type[TokenNorm]:
    """Return the class of a norm.

    Args:
        name: A key of :data:`TOKEN_NORMS` or :data:`ALIASES`; case, ``_`` and ``-`` are ignored.

    Raises:
        ValueError: The name is unknown. The message suggests similar names.

    Example:
        >>> token_norm_class("LayerNorm").__name__
        'TokenLayerNorm'
    """
    plain = str(name).lower().replace("_", "").replace("-", "")
    plain = ALIASES.get(plain, plain)
    if plain not in TOKEN_NORMS:
        close = difflib.get_close_matches(plain, [*TOKEN_NORMS, *ALIASES], n=2)
        hint = f": did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise InputError(f"expected a norm out of {', '.join(TOKEN_NORMS)}, got {name!r}{hint}")
    return TOKEN_NORMS[plain]


@functools.cache
def option_names(name: str) -> frozenset[str]:
    """Return the names of the options of a norm, including ``eps``.

    Raises:
        ValueError: The norm is unknown.
    """
    return frozenset(inspect.signature(token_norm_class(name)).parameters) - _GIVEN


@functools.cache
def takes_groups(name: str) -> bool:
    """Return whether a norm has groups of channels.

    Raises:
        ValueError: The norm is unknown.
    """
    return "num_groups" in inspect.signature(token_norm_class(name)).parameters


def build_token_norm(name: str, num_features: int, num_groups: int = 1, eps: float = 1e-5, **options: Any) -> TokenNorm:
    """Build a norm of tokens by its name.

    Args:
        name: ``'dtn'``, ``'ln'``, ``'bn'``, ``'in'``, ``'gn'``, ``'sn'``, ``'scalenorm'``, ``'powernorm'``,
            ``'rmsnorm'`` or ``'dyt'``, in upper or lower case, or a long form such as ``'BatchNorm'``.
        num_features: Channels ``C`` of a token.
        num_groups: Number of groups of channels for DTN and GroupNorm; other norms ignore it.
        eps: Added to variances and mean squares.
        **options: Keyword arguments of the class, including ``device`` and ``dtype``.

    Returns:
        A :class:`~dtn_det.layers.token_norm.TokenNorm`, to be called as ``norm(x, hw_shape=None, mask=None)``.

    Raises:
        ValueError: The name or an option is unknown, or a value does not fit.

    Example:
        >>> norm = build_token_norm("sn", 96)
        >>> norm(torch.randn(2, 8 * 12, 96), (8, 12)).shape
        torch.Size([2, 96, 96])
    """
    norm_class = token_norm_class(name)
    known = option_names(name) | {"device", "dtype"}
    for option in options:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=2)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"it has {', '.join(sorted(known))}"
            raise InputError(f"expected options of {norm_class.__name__}, got {option!r}: {hint}")
    if takes_groups(name):
        options["num_groups"] = num_groups
    return norm_class(num_features, eps=eps, **options)


def from_layer_norm(norm: nn.Module, name: str, num_groups: int = 1, **options: Any) -> TokenNorm:
    """Build a norm of tokens to replace a LayerNorm.

    The new norm takes over the number of channels, dtype, device and training mode. It takes over ``eps`` unless
    ``options`` give it, and the values of ``weight`` and ``bias`` if both norms have them. ``weight`` and ``bias`` keep
    their ``requires_grad``; other parameters take over the ``requires_grad`` of ``weight``.

    Args:
        norm: An ``nn.LayerNorm`` over the last dimension.
        name: Name of the norm, see :func:`build_token_norm`.
        num_groups: Number of groups of channels, for norms with groups.
        **options: Keyword arguments of the class.

    Returns:
        The new norm; ``norm`` is not changed.

    Raises:
        ValueError: ``norm`` is not a LayerNorm over the last dimension, or an argument does not fit.
    """
    if not isinstance(norm, nn.LayerNorm):
        raise InputError(f"expected an nn.LayerNorm to replace, got {type(norm).__name__}")
    if len(norm.normalized_shape) != 1:
        raise InputError(
            f"expected a LayerNorm over the last dimension, got one over {tuple(norm.normalized_shape)}: leave it"
        )
    like = next(norm.parameters(), None)
    if like is not None:
        options = {"device": like.device, "dtype": like.dtype, **options}
    new = build_token_norm(name, norm.normalized_shape[0], num_groups, **{"eps": norm.eps, **options})
    old = dict(norm.named_parameters(recurse=False))
    trained = like is None or old.get("weight", like).requires_grad
    for key, parameter in new.named_parameters():
        source = old.get(key)
        if key in ("weight", "bias") and source is not None:
            parameter.data.copy_(source.data)
        parameter.requires_grad_(trained if source is None else source.requires_grad)
    return new.train(norm.training)
