"""Conversions of built models: replacing norms, Shifted Patch Tokenization and Locality Self-Attention."""

from dtn_det.conversion.norms import convert_norm
from dtn_det.conversion.plan import NormPlan, NormSite, plan_norms
from dtn_det.conversion.spt_lsa import (
    Replacements,
    convert_attention,
    convert_tokenization,
    plan_attention,
    plan_tokenization,
)

__all__ = [
    "NormPlan",
    "NormSite",
    "Replacements",
    "convert_attention",
    "convert_norm",
    "convert_tokenization",
    "plan_attention",
    "plan_norms",
    "plan_tokenization",
]
