# The LayerNorm twin of dtn-vit-tiny-p16; the architecture is DeiT's.
_base_ = ["../_base_/imagenet_deit.py"]

model = dict(
    type="ConvertedModel",
    model=dict(
        type="TimmClassifier",
        model_name="vit_tiny_patch16_224",
        num_classes=1000,
        drop_path_rate=0.1,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
    norm_cfg=dict(type="LN"),
)
