# What timm's models for small images have in common; the images have 32 x 32 pixels.
_base_ = ["../dtn_import.py"]

model = dict(
    type="ConvertedModel",
    model=dict(
        type="TimmClassifier",
        img_size=32,
        mlp_ratio=2,
        drop_path_rate=0.1,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
    norm_cfg=dict(type="LN"),
    spt=False,
    lsa=False,
)
