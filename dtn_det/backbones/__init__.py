"""Backbones for MMDetection; importing this package also registers them there."""

from dtn_det._optional import require

require("mmdet.models", "det")  # checked first, so that the error names the missing extra

from dtn_det.backbones.pvt import DTNPyramidVisionTransformer, DTNPyramidVisionTransformerV2
from dtn_det.backbones.swin import DTNSwinTransformer

__all__ = ["DTNPyramidVisionTransformer", "DTNPyramidVisionTransformerV2", "DTNSwinTransformer"]
