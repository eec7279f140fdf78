# CaiT for small images: 8 x 8 patches through 24 layers, then two of class attention, on images of 32 x 32 pixels.
_base_ = ["./timm.py"]

model = dict(
    model=dict(model_name="cait_xxs24_224", patch_size=4, embed_dim=192, depth=24, num_heads=4, mlp_ratio_token_only=2)
)
