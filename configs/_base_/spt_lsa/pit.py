# PiT for small images: 16 x 16 patches, pooled to 8 x 8 and 4 x 4, and a class token, on images of 32 x 32 pixels.
_base_ = ["./timm.py"]

model = dict(
    model=dict(
        model_name="pit_ti_224",
        patch_size=2,
        stride=2,
        base_dims=[48, 48, 48],
        depth=[2, 6, 4],
        heads=[2, 4, 8],
    )
)
