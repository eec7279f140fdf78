"""`convert_attention`: Locality Self-Attention in the place of the attention of any built model."""

from __future__ import annotations

import logging

from torch import nn

from dtn_det.conversion.plan import Layers
from dtn_det.conversion.replace import Replacements, known_hosts, plan_replacements

_LOGGER = logging.getLogger(__name__)
_SOURCES = {
    "timm": "dtn_det.conversion.hosts.timm_attention",
    "mmpretrain": "dtn_det.conversion.hosts.mmpretrain_attention",
    "mmdet": "dtn_det.backbones.attention",
}
_MODELS = (
    "timm's ViT, DeiT, DeiT III, PiT, Swin or CaiT, mmpretrain's ViT, DeiT, T2T-ViT or Swin, or MMDetection's Swin, "
    "PVT or PVTv2"
)
_KIND = r"(?i)attn|attention|msa$"


def convert_attention(model: nn.Module, attention: str = "lsa", *, layers: Layers = "") -> nn.Module:
    """Turn the attention of a built model into Locality Self-Attention (Lee et al., arXiv:2112.13492).

    The model is changed in place: modules become instances of subclasses of their own classes, so that weights, hooks
    and names stay, and each gets ``scale``, one number per head that starts at the scale the module had. No token
    attends to itself any more; class attention, whose only query is the class token, gets the scale alone, and so does
    PVT where keys are spatially reduced. Known are the attention of timm's ViT, DeiT, DeiT III, PiT, Swin and CaiT,
    of mmpretrain's ViT, DeiT, T2T-ViT and Swin, and of MMDetection's Swin, PVT and PVTv2.

    What is replaced is logged at level INFO; :func:`plan_attention` gives it without changing the model.

    Args:
        model: A built model.
        attention: ``'lsa'``.
        layers: Regular expression that is searched for in the path of an attention, or a function of path and module;
            all by default.

    Returns:
        The same model.

    Raises:
        ValueError: Nothing is to be replaced, or an argument does not fit.

    Example:
        >>> model = convert_attention(timm.create_model("vit_small_patch16_224"), "lsa")
    """
    plan = plan_attention(model, attention, layers=layers)
    hosts = known_hosts(model, _SOURCES)
    for name, _ in plan.replaced:
        hosts[type(model.get_submodule(name))](model, name)
    _LOGGER.info("%s", plan)
    return model


def plan_attention(model: nn.Module, attention: str = "lsa", *, layers: Layers = "") -> Replacements:
    """What :func:`convert_attention` would replace, with the same arguments and errors."""
    if attention != "lsa":
        raise ValueError(f"expected attention to be 'lsa', got {attention!r}")
    hosts = known_hosts(model, _SOURCES) if isinstance(model, nn.Module) else {}
    return plan_replacements(model, "Locality Self-Attention", hosts, _MODELS, _KIND, layers)
