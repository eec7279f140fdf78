_base_ = "./retinanet_pvtv2-b2_fpn_1x_coco.py"

# The first three stages, as in the authors' PVT. Starts from ImageNet weights trained with LayerNorm; init='local' if
# yours were trained with DTN.
model = dict(backbone=dict(dtn_stages=(0, 1, 2), dtn_cfg=dict(init="layernorm")))
