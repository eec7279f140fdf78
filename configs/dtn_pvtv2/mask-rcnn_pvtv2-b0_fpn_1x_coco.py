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
        type="DTNPyramidVisionTransformerV2",
        embed_dims=32,
        num_layers=[2, 2, 2, 2],
        dtn_stages=(),
        init_cfg=dict(
            type="Pretrained", checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b0.pth"
        ),
    ),
    neck=dict(in_channels=[32, 64, 160, 256]),
)
# The learning rate is that of the PVT authors' Mask R-CNN configs.
optim_wrapper = dict(
    paramwise_cfg=_base_.pvt_paramwise_cfg, optimizer=dict(_delete_=True, type="AdamW", lr=0.0002, weight_decay=0.0001)
)
