"""A converted model from a config: `dict(type="ConvertedModel", model=..., norm_cfg=..., spt=..., lsa=...)`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from torch import nn

from dtn_det._optional import require
from dtn_det.conversion.convert import convert


def converted_model(
    *,
    model: Mapping[str, Any],
    norm_cfg: Mapping[str, Any] | str | None = None,
    spt: bool = False,
    lsa: bool = False,
    data_preprocessor: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a model of any registry and convert it; registered in MMEngine's root registry as ``ConvertedModel``.

    It serves wherever a config names a model: a whole classifier (``TimmClassifier``), or the backbone of one. What is
    built is the model itself, converted, so checkpoints have its names.

    Args:
        model: Config of the model, with its ``type``.
        norm_cfg: See :func:`dtn_det.conversion.convert.convert`, as are ``spt`` and ``lsa``.
        spt: Shifted Patch Tokenization.
        lsa: Locality Self-Attention.
        data_preprocessor: Of a whole classifier or detector; MMEngine hands it to what the config calls ``model``.

    Returns:
        The model.

    Raises:
        ValueError: A config that does not fit, or nothing that could be converted.
    """
    if not isinstance(model, Mapping) or "type" not in model:
        raise ValueError(f"expected model to be a config with a type, got {model!r}: write model=dict(type=..., ...)")
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
    """The registry that has a type: the root one sees the default scope, and without one none of those below it."""
    root = require("mmengine.registry", "det").MODELS
    if not isinstance(name, str) or root.get(name) is not None:
        return root
    return next((registry for registry in root.children.values() if registry.get(name) is not None), root)


def _keep_own_start(model: nn.Module) -> None:
    """Keep MMEngine from drawing the weights of models that are not its own again, pretrained ones among them."""
    own = require("mmengine.model", "det").BaseModule
    for module in model.modules():
        if not isinstance(module, own) and hasattr(module, "init_weights"):
            module.is_init = True  # type: ignore[assignment]


def _unknown_model(model: Mapping[str, Any], error: RuntimeError) -> Exception:
    """Add to timm's error for an unknown name those that look like it."""
    name = model.get("model_name")
    if not isinstance(name, str) or "Unknown model" not in str(error):
        return error
    close = difflib.get_close_matches(name, require("timm", "cls").list_models(), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() has them all"
    return ValueError(f"expected the name of a model of timm, got {name!r}: {hint}")
