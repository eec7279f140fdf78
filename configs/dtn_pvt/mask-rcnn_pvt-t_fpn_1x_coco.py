_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "mmdet::_base_/datasets/coco_instance.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
    "../_base_/dtn_import.py",
    "../_base_/dtn_paramwise.py",
]

model = dict(
    backbone=dict(
        _delete_=True,
        type="DTNPyramidVisionTransformer",
        num_layers=[2, 2, 2, 2],
        dtn_stages=(),
        init_cfg=dict(type="Pretrained", checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_tiny.pth"),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
# The learning rate is that of the PVT authors' Mask R-CNN configs.
optim_wrapper = dict(
    paramwise_cfg=_base_.pvt_paramwise_cfg, optimizer=dict(_delete_=True, type="AdamW", lr=0.0002, weight_decay=0.0001)
)
