"""Models with Dynamic Token Normalization for `timm.create_model`: importing this module registers them.

>>> import dtn_det.timm
>>> model = timm.create_model("dtn_vit_small_patch16_224", num_classes=10)

``dtn_NAME`` is timm's model NAME, converted; :data:`BASES` lists the names. ``dtn_converted`` converts any other model
of timm, given by its argument ``base``. ``norm_cfg``, ``spt`` and ``lsa`` are the arguments of
:func:`dtn_det.conversion.config.convert`. Other arguments are passed to timm's model.

There are no published weights of DTN. ``pretrained=True`` starts from timm's LayerNorm weights with
``init='layernorm'``, so that outputs are nearly those of LayerNorm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from dtn_det._optional import require
from dtn_det.conversion.config import convert, norm_settings
from dtn_det.conversion.norms import LinearTokenNorm
from dtn_det.layers.token_norm import TokenNorm

timm = require("timm", "cls")

BASES = (
    # ViT, DeiT, Swin, PVTv2, PiT, CaiT and LeViT.
    *(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base")),
    *(f"deit_{size}_patch16_224" for size in ("tiny", "small", "base")),
    *(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")),
    *(f"pvt_v2_b{number}" for number in range(6)),
    *("pit_ti_224", "pit_s_224", "cait_xxs24_224", "cait_s24_224", "levit_128s", "levit_256"),
)

_ORIGIN = (
    *("url", "file", "hf_hub_id", "hf_hub_filename", "source", "tag", "license", "origin_url"),
    *("paper_name", "paper_ids", "notes", "custom_load"),
)

# Arguments with which timm builds a model that returns feature maps.
_OF_FEATURES = ("features_only", "out_indices", "feature_cls")
_CONVERTED = (TokenNorm, LinearTokenNorm)

# timm's register_model adds the names of the models to this list.
__all__: list[str] = ["BASES"]


def _build(
    base: str,
    architecture: str,
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    cache_dir: str | None = None,
    norm_cfg: Mapping[str, Any] | str | None = None,
    spt: bool = False,
    lsa: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """Build timm's model, convert it, and load weights if timm has found some in a folder or on a hub."""
    own_weights = pretrained and pretrained_cfg is not None
    whole = None
    if own_weights and kwargs.get("features_only"):
        inner = {key: value for key, value in kwargs.items() if key not in _OF_FEATURES}
        whole = _build(base, architecture, True, pretrained_cfg, None, cache_dir, norm_cfg, spt, lsa, **inner)
    start = "layernorm" if pretrained and not own_weights else "local"
    model: nn.Module = timm.create_model(
        base,
        pretrained=pretrained and not own_weights,
        pretrained_cfg_overlay=None if own_weights else pretrained_cfg_overlay,
        cache_dir=cache_dir,
        **kwargs,
    )
    norm = {"type": "dtn", "init": start, **norm_settings(norm_cfg)}
    convert(model, norm if whole is None else {**norm, "layers": _layers_of(whole)}, spt=spt, lsa=lsa)
    settings = dict(_as_dict(pretrained_cfg) if own_weights else _as_dict(model.pretrained_cfg))
    settings["architecture"] = architecture
    if not pretrained:
        settings = without_origin(settings)
    model.pretrained_cfg = model.default_cfg = settings  # type: ignore[assignment]
    if whole is not None:
        _take_weights(model, whole)
    elif own_weights:
        builder = require("timm.models", "cls")
        builder.load_pretrained(
            model, settings, kwargs.get("num_classes", model.num_classes), kwargs.get("in_chans", 3)
        )
    return model


def _layers_of(whole: nn.Module) -> Callable[[str, nn.Module], bool]:
    """Return a function that selects, in a model of features, the norms that are converted in the whole model."""
    converted = {_plain(name) for name, module in whole.named_modules() if isinstance(module, _CONVERTED)}
    return lambda name, module: _plain(name) in converted


def _take_weights(features: nn.Module, whole: nn.Module) -> None:
    """Copy the weights of a whole model into a model of features, which is a part of it."""
    state = {_plain(name): value for name, value in whole.state_dict().items()}
    features.load_state_dict({name: state[_plain(name)] for name in features.state_dict()})


def _plain(name: str) -> str:
    """Return a common name for a module in a whole model and in a model of features.

    A module is named ``a.0`` in a whole model, and ``model.a.0`` or ``a_0`` in a model of features.
    """
    return name.removeprefix("model.").replace(".", "_")


def without_origin(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return timm's settings of a model, without the origin of its weights."""
    return {key: value for key, value in settings.items() if key not in _ORIGIN}


def _as_dict(settings: Any) -> dict[str, Any]:
    """Return timm's settings of a model, which may be a dict or an object, as a dict."""
    return dict(settings.to_dict() if hasattr(settings, "to_dict") else settings)


def _entry_point(base: str) -> Callable[..., nn.Module]:
    name = f"dtn_{base}"

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return _build(base, name, pretrained, **kwargs)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"timm's {base} with DTN."
    return build


def dtn_converted(pretrained: bool = False, *, base: str, **kwargs: Any) -> nn.Module:
    """Build any model of timm and convert it.

    Args:
        pretrained: See :mod:`dtn_det.timm`.
        **kwargs: ``norm_cfg``, ``spt``, ``lsa`` and arguments of timm's model, see :mod:`dtn_det.timm`.
    """
    return _build(base, "dtn_converted", pretrained, **kwargs)


for _base in BASES:
    globals()[f"dtn_{_base}"] = timm.models.register_model(_entry_point(_base))
timm.models.register_model(dtn_converted)
