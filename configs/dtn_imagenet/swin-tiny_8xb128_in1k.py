# The LayerNorm twin of dtn-swin-tiny: the backbone of configs/dtn_swin with its classifier's shape.
_base_ = ["../_base_/imagenet_deit.py"]

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="mmdet.DTNSwinTransformer",
        embed_dims=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        drop_path_rate=0.1,
        out_indices=(3,),
        shift_small_maps=False,  # stage 4 has one window, which the authors do not shift
        dtn_stages=(),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        in_channels=768,
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02),
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
)
