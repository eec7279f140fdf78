"""Apply all conversions of a model in the right order. Configs use them as ``dict(type="ConvertedModel", ...)``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import nn

from dtn_det._optional import require
from dtn_det.conversion.norms import convert_norm
from dtn_det.conversion.spt_lsa import convert_attention, convert_tokenization
from dtn_det.errors import InputError
from dtn_det.layers.token_norms.factory import option_names


def convert(
    model: nn.Module, norm_cfg: Mapping[str, Any] | str | None = None, *, spt: bool = False, lsa: bool = False
) -> nn.Module:
    """Convert tokens, attention and norms of a built model, in place.

    Args:
        norm_cfg: Settings of the new norms: ``type`` (a name as in :func:`dtn_det.convert_norm`, or ``'LN'`` to keep
            the norms of the model) and further arguments of :func:`dtn_det.convert_norm`. Options of DTN may stay when
            the ``type`` is another norm; they are then ignored. A name alone stands for ``dict(type=name)``. None keeps
            the norms of the model.
        spt: Replace the tokenization by Shifted Patch Tokenization, see :func:`convert_tokenization`.
        lsa: Replace the attention by Locality Self-Attention, see :func:`convert_attention`.

    Raises:
        InputError: An argument does not fit, or nothing could be converted.
    """
    norm = norm_settings(norm_cfg)
    if norm and "type" not in norm:
        raise InputError(f"expected norm_cfg with a type, got {norm}: write norm_cfg=dict(type='dtn', ...)")
    # The tokenization comes first, because the hooks of converted norms need the final module that makes the tokens.
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
    """Return the settings of a norm as a dict. A name becomes ``dict(type=name)``, None an empty dict.

    Raises:
        InputError: ``norm_cfg`` is not a config, a name or None.
    """
    if isinstance(norm_cfg, str):
        return {"type": norm_cfg}
    if norm_cfg is not None and not isinstance(norm_cfg, Mapping):
        raise InputError(f"expected norm_cfg to be a config or a name, got {norm_cfg!r}: write norm_cfg='dtn'")
    return dict(norm_cfg or {})


def converted_model(
    *,
    model: Mapping[str, Any],
    norm_cfg: Mapping[str, Any] | str | None = None,
    spt: bool = False,
    lsa: bool = False,
    data_preprocessor: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a model of any registry and convert it; registered in MMEngine's root registry as ``ConvertedModel``.

    A config can use it in place of any model: a whole classifier (``TimmClassifier``) or the backbone of one. The
    result is the converted model itself, without a wrapper, so the names in checkpoints do not change.

    Args:
        model: Config of the model, with its ``type``.
        norm_cfg: Conversion of the norms, see :func:`convert`.
        data_preprocessor: Preprocessor of a whole classifier or detector. MMEngine passes it to the config's ``model``.

    Raises:
        InputError: The config does not fit, or nothing could be converted.
    """
    if not isinstance(model, Mapping) or "type" not in model:
        raise InputError(f"expected model to be a config with a type, got {model!r}: write model=dict(type=..., ...)")
    settings = dict(model)
    if data_preprocessor is not None:
        settings.setdefault("data_preprocessor", data_preprocessor)
    try:
        built: nn.Module = _registry_of(settings["type"]).build(settings)
    except RuntimeError as error:
        raise _unknown_model(model, error) from error
    _keep_own_start(built)
    return convert(built, norm_cfg, spt=spt, lsa=lsa)


def _registry_of(name: Any) -> Any:
    """Return the registry that contains a type. The root registry searches its children only in the default scope."""
    root = require("mmengine.registry", "det").MODELS
    if not isinstance(name, str) or root.get(name) is not None:
        return root
    return next((registry for registry in root.children.values() if registry.get(name) is not None), root)


def _keep_own_start(model: nn.Module) -> None:
    """Keep MMEngine from re-initialising models of other libraries, whose weights may be pretrained."""
    own = require("mmengine.model", "det").BaseModule
    for module in model.modules():
        if not isinstance(module, own) and hasattr(module, "init_weights"):
            module.is_init = True  # type: ignore[assignment]


def _unknown_model(model: Mapping[str, Any], error: RuntimeError) -> Exception:
    """Turn timm's error for an unknown name into one that suggests similar names; return other errors unchanged."""
    name = model.get("model_name")
    if not isinstance(name, str) or "Unknown model" not in str(error):
        return error
    close = difflib.get_close_matches(name, require("timm", "cls").list_models(), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() has them all"
    return InputError(f"expected the name of a model of timm, got {name!r}: {hint}")
