# The recipe of PVT's detector, with the learning rate of the PVT authors' Mask R-CNN configs.
_base_ = "../dtn_pvt/mask-rcnn_pvt-t_fpn_1x_coco.py"

model = dict(
    backbone=dict(
        type="DTNPyramidVisionTransformerV2",
        embed_dims=32,
        init_cfg=dict(checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b0.pth"),
    ),
    neck=dict(in_channels=[32, 64, 160, 256]),
)
