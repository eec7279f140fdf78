"""All conversions of a model, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from dtn_det.conversion.attention import convert_attention
from dtn_det.conversion.norms import convert_norm
from dtn_det.conversion.tokenization import convert_tokenization
from dtn_det.layers.token_norms import option_names


def convert(
    model: nn.Module, norm_cfg: Mapping[str, Any] | str | None = None, *, spt: bool = False, lsa: bool = False
) -> nn.Module:
    """Convert tokens, attention and norms of a built model, in place.

    Args:
        model: Any built model.
        norm_cfg: ``type`` (a name as in :func:`dtn_det.convert_norm`, or ``'LN'`` for what the model has) and further
            arguments of :func:`dtn_det.convert_norm`; options of DTN may stay when ``type`` changes, and have no effect
            then. A name alone stands for ``dict(type=name)``. None leaves the norms as they are.
        spt: Replace the tokenization by Shifted Patch Tokenization, see :func:`convert_tokenization`.
        lsa: Replace the attention by Locality Self-Attention, see :func:`convert_attention`.

    Returns:
        The same model.

    Raises:
        ValueError: Arguments that do not fit, or nothing that could be converted.
    """
    norm = norm_settings(norm_cfg)
    if norm and "type" not in norm:
        raise ValueError(f"expected norm_cfg with a type, got {norm}: write norm_cfg=dict(type='dtn', ...)")
    # Tokens first: the norms look for the module that makes them.
    if spt:
        convert_tokenization(model, "spt")
    if lsa:
        convert_attention(model, "lsa")
    if norm and norm["type"] != "LN":
        name = norm.pop("type")
        idle = option_names("dtn") - option_names(name)
        convert_norm(model, name, **{key: value for key, value in norm.items() if key not in idle})
    return model


def norm_settings(norm_cfg: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """A norm as a config: of a name alone its type, of None nothing.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(norm_cfg, str):
        return {"type": norm_cfg}
    if norm_cfg is not None and not isinstance(norm_cfg, Mapping):
        raise ValueError(f"expected norm_cfg to be a config or a name, got {norm_cfg!r}: write norm_cfg='dtn'")
    return dict(norm_cfg or {})
