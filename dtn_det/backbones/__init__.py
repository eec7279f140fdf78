"""Backbones for MMDetection, which are registered there too once this package is imported."""

from dtn_det._optional import require

require("mmdet.models", "det")  # before the imports below fail with a name that tells nobody which extra is missing

from dtn_det.backbones.pvt import DTNPyramidVisionTransformer, DTNPyramidVisionTransformerV2
from dtn_det.backbones.swin import DTNSwinTransformer

__all__ = ["DTNPyramidVisionTransformer", "DTNPyramidVisionTransformerV2", "DTNSwinTransformer"]
