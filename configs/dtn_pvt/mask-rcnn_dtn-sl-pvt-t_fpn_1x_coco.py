_base_ = "./mask-rcnn_sl-pvt-t_fpn_1x_coco.py"

model = dict(backbone=dict(dtn_stages=(0, 1, 2), dtn_cfg=dict(init="layernorm")))
