# PiT for small images: 16 x 16 patches, pooled to 8 x 8 and 4 x 4, and a class token, on images of 32 x 32 pixels.
_base_ = ["../dtn_import.py"]

model = dict(
    type="ConvertedModel",
    model=dict(
        type="TimmClassifier",
        model_name="pit_ti_224",
        img_size=32,
        patch_size=2,
        stride=2,
        base_dims=[48, 48, 48],
        depth=[2, 6, 4],
        heads=[2, 4, 8],
        mlp_ratio=2,
        drop_path_rate=0.1,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
    norm_cfg=dict(type="LN"),
    spt=False,
    lsa=False,
)
