_base_ = ["mmdet::pvt/retinanet_pvt-s_fpn_1x_coco.py", "../_base_/dtn_import.py", "../_base_/dtn_paramwise.py"]

model = dict(backbone=dict(type="DTNPyramidVisionTransformer", dtn_stages=()))
optim_wrapper = dict(paramwise_cfg=_base_.pvt_paramwise_cfg)
