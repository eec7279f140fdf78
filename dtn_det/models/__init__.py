"""Backbones for MMDetection: importing this package registers them, and the norm under the name ``DTN``."""

from dtn_det._notices import drop_notices
from dtn_det._optional import require

require("mmdet", "det")  # before the imports below fail with a name that tells nobody which extra is missing
drop_notices()

from mmengine.registry import MODELS  # noqa: E402

from dtn_det.layers import DTN  # noqa: E402
from dtn_det.models.pvt import DTNPyramidVisionTransformer, DTNPyramidVisionTransformerV2  # noqa: E402
from dtn_det.models.swin import DTNSwinTransformer  # noqa: E402

__all__ = ["DTNPyramidVisionTransformer", "DTNPyramidVisionTransformerV2", "DTNSwinTransformer"]

# In the root registry, as mmcv does for "LN": `build_norm_layer(dict(type="DTN", num_groups=4), 64)` then works in
# any scope. The backbones do not use it, since one norm_cfg of MMDetection reaches norms that must stay LayerNorm.
MODELS.register_module(name="DTN", module=DTN)
