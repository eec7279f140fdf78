# ViT for small images: 8 x 8 patches and a class token, on images of 32 x 32 pixels.
_base_ = ["../dtn_import.py"]

model = dict(
    type="ConvertedModel",
    model=dict(
        type="TimmClassifier",
        model_name="vit_tiny_patch16_224",
        img_size=32,
        patch_size=4,
        embed_dim=192,
        depth=9,
        num_heads=12,
        mlp_ratio=2,
        drop_path_rate=0.1,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
    ),
    norm_cfg=dict(type="LN"),
    spt=False,
    lsa=False,
)
