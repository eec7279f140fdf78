# T2T-ViT for small images: two soft splits to 8 x 8 tokens, and a class token, on images of 32 x 32 pixels.
_base_ = ["../dtn_import.py"]

model = dict(
    type="ConvertedModel",
    model=dict(
        type="ImageClassifier",
        backbone=dict(
            type="SmallT2TViT",
            img_size=32,
            num_splits=2,
            token_dims=64,
            embed_dims=256,
            num_layers=12,
            layer_cfgs=dict(num_heads=4, feedforward_channels=512),
            drop_path_rate=0.1,
            init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02),
        ),
        head=dict(
            type="VisionTransformerClsHead",
            in_channels=256,
            init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02),
            loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
        ),
    ),
    norm_cfg=dict(type="LN"),
    spt=False,
    lsa=False,
)
