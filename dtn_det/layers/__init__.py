"""Layers: torch alone is enough to import them."""

from dtn_det.layers.dtn import DTN
from dtn_det.layers.lsa import LocalitySelfAttention, locality_attention
from dtn_det.layers.spt import ShiftedPatchTokenization, shift_patches

__all__ = ["DTN", "LocalitySelfAttention", "ShiftedPatchTokenization", "locality_attention", "shift_patches"]
