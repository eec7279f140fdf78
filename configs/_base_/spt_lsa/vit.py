# ViT for small images: 8 x 8 patches and a class token, on images of 32 x 32 pixels.
_base_ = ["./timm.py"]

model = dict(model=dict(model_name="vit_tiny_patch16_224", patch_size=4, embed_dim=192, depth=9, num_heads=12))
