"""The norms of tokens that DTN is compared with, under one interface, and a factory that builds norms by name."""

from dtn_det.layers.token_norms.across import SwitchNorm, TokenBatchNorm, TokenGroupNorm, TokenInstanceNorm
from dtn_det.layers.token_norms.factory import (
    TOKEN_NORMS,
    build_token_norm,
    from_layer_norm,
    option_names,
    takes_groups,
    token_norm_class,
)
from dtn_det.layers.token_norms.power import PowerNorm
from dtn_det.layers.token_norms.within import DyT, RMSNorm, ScaleNorm, TokenLayerNorm

__all__ = [
    "TOKEN_NORMS",
    "DyT",
    "PowerNorm",
    "RMSNorm",
    "ScaleNorm",
    "SwitchNorm",
    "TokenBatchNorm",
    "TokenGroupNorm",
    "TokenInstanceNorm",
    "TokenLayerNorm",
    "build_token_norm",
    "from_layer_norm",
    "option_names",
    "takes_groups",
    "token_norm_class",
]
