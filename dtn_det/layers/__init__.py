"""The layers: DTN, the norms that it is compared with, and the parts of SPT and LSA. They need nothing but PyTorch."""

from dtn_det.layers.dtn import DTN
from dtn_det.layers.lsa import LocalitySelfAttention, locality_attention
from dtn_det.layers.spt import ShiftedPatchTokenization, shift_patches
from dtn_det.layers.token_norm import TokenNorm
from dtn_det.layers.token_norms.across import SwitchNorm, TokenBatchNorm, TokenGroupNorm, TokenInstanceNorm
from dtn_det.layers.token_norms.factory import TOKEN_NORMS, build_token_norm, from_layer_norm
from dtn_det.layers.token_norms.power import PowerNorm
from dtn_det.layers.token_norms.within import DyT, RMSNorm, ScaleNorm, TokenLayerNorm

__all__ = [
    "DTN",
    "TOKEN_NORMS",
    "DyT",
    "LocalitySelfAttention",
    "PowerNorm",
    "RMSNorm",
    "ScaleNorm",
    "ShiftedPatchTokenization",
    "SwitchNorm",
    "TokenBatchNorm",
    "TokenGroupNorm",
    "TokenInstanceNorm",
    "TokenLayerNorm",
    "TokenNorm",
    "build_token_norm",
    "from_layer_norm",
    "locality_attention",
    "shift_patches",
]
