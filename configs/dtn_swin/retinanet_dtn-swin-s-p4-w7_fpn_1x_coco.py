_base_ = "./retinanet_swin-s-p4-w7_fpn_1x_coco.py"

# Starts from ImageNet weights trained with LayerNorm; init='local' if yours were trained with DTN.
model = dict(backbone=dict(dtn_stages=(0, 1, 2, 3), dtn_cfg=dict(init="layernorm")))
