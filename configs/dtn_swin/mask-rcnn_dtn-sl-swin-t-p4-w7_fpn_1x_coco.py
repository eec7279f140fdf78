_base_ = "./mask-rcnn_sl-swin-t-p4-w7_fpn_1x_coco.py"

model = dict(backbone=dict(dtn_stages=(0, 1, 2, 3), dtn_cfg=dict(init="layernorm")))
