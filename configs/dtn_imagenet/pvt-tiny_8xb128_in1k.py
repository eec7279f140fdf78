# The LayerNorm twin of dtn-pvt-tiny: the backbone of configs/dtn_pvt, and the norm that a classifier ends with.
_base_ = ["../_base_/imagenet_deit.py"]

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="mmdet.DTNPyramidVisionTransformer",
        num_layers=[2, 2, 2, 2],
        drop_path_rate=0.1,
        out_indices=(3,),
        dtn_stages=(),
    ),
    neck=dict(type="NormPooling", in_channels=512),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        in_channels=512,
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02),
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
)
