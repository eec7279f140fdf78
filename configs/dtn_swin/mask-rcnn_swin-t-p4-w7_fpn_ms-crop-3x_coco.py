_base_ = [
    "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py",
    "../_base_/dtn_import.py",
    "../_base_/dtn_paramwise.py",
]

model = dict(backbone=dict(type="DTNSwinTransformer", dtn_stages=()))
optim_wrapper = dict(paramwise_cfg=_base_.swin_paramwise_cfg)
