"""Conversions of built models."""

from dtn_det.conversion.norm_plan import NormPlan, NormSite, plan_norms
from dtn_det.conversion.norms import convert_norm

__all__ = ["NormPlan", "NormSite", "convert_norm", "plan_norms"]
