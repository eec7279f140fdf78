# CaiT for small images: 8 x 8 patches through 24 layers, then two of class attention, on images of 32 x 32 pixels.
_base_ = ["../dtn_import.py"]

model = dict(
    type="ConvertedModel",
    model=dict(
        type="TimmClassifier",
        model_name="cait_xxs24_224",
        img_size=32,
        patch_size=4,
        embed_dim=192,
        depth=24,
        num_heads=4,
        mlp_ratio=2,
        mlp_ratio_token_only=2,
        drop_path_rate=0.1,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
    norm_cfg=dict(type="LN"),
    spt=False,
    lsa=False,
)
