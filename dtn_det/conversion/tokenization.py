"""`convert_tokenization`: Shifted Patch Tokenization in the place of the patch embedding of any built model."""

from __future__ import annotations

import logging

from torch import nn

from dtn_det.conversion.grids import has_grid_hooks
from dtn_det.conversion.plan import Layers
from dtn_det.conversion.replace import Replacements, known_hosts, plan_replacements

_LOGGER = logging.getLogger(__name__)
_SOURCES = {
    "timm": "dtn_det.conversion.hosts.timm_tokenization",
    "mmcv": "dtn_det.conversion.hosts.mmcv_tokenization",
    "mmpretrain": "dtn_det.conversion.hosts.mmpretrain_tokenization",
    "mmdet": "dtn_det.conversion.hosts.mmdet_tokenization",
}
_MODELS = (
    "timm's ViT, DeiT, DeiT III, PiT, Swin or CaiT, mmpretrain's ViT, DeiT, T2T-ViT or Swin, or MMDetection's Swin or "
    "PVT"
)
_KIND = r"Patch(Embed|Merging)|Pooling$|ConvEmbedding|T2TModule"


def convert_tokenization(model: nn.Module, tokenization: str = "spt", *, layers: Layers = "") -> nn.Module:
    """Give a built model Shifted Patch Tokenization (Lee et al., arXiv:2112.13492), in place.

    It takes the place of the patch embedding, with its norm, of timm's ViT, DeiT, DeiT III, CaiT and Swin, of Swin's
    patch mergings, and of the patch embedding and the pooling layers of PiT, where the class token keeps its
    projection; likewise in mmpretrain's ViT, DeiT and Swin and MMDetection's Swin and PVT. T2T-ViT of mmpretrain gets
    the shifted copies of the image alone, as in the paper. The new weights start anew; all others stay. Where patches
    of the embedding overlap, as PiT's, new ones of its stride do not, and the position embedding is resized to them.

    What is replaced is logged at level INFO; :func:`plan_tokenization` gives it without changing the model.

    Args:
        model: A built model.
        tokenization: ``'spt'``.
        layers: Regular expression that is searched for in the path of a module, or a function of path and module; all
            by default.

    Returns:
        The same model.

    Raises:
        ValueError: Nothing is to be replaced, patches for which the layer is not defined, or an argument that does not
            fit.

    Example:
        >>> model = convert_tokenization(timm.create_model("vit_small_patch16_224"), "spt")
    """
    plan = plan_tokenization(model, tokenization, layers=layers)
    if has_grid_hooks(model):
        raise ValueError(
            f"expected to convert the tokens of {type(model).__name__} before its norms, got norms converted already: "
            "they look for the module that makes the tokens; build the model again, convert_tokenization first"
        )
    hosts = known_hosts(model, _SOURCES)
    for name, _ in plan.replaced:
        hosts[type(model.get_submodule(name))](model, name)
    _LOGGER.info("%s", plan)
    return model


def plan_tokenization(model: nn.Module, tokenization: str = "spt", *, layers: Layers = "") -> Replacements:
    """What :func:`convert_tokenization` would replace, with the same arguments and errors."""
    if tokenization != "spt":
        raise ValueError(f"expected tokenization to be 'spt', got {tokenization!r}")
    hosts = known_hosts(model, _SOURCES) if isinstance(model, nn.Module) else {}
    return plan_replacements(model, "Shifted Patch Tokenization", hosts, _MODELS, _KIND, layers)
