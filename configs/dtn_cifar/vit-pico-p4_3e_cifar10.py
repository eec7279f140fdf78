# A ViT of timm. `--cfg-options model.norm_cfg.type=bn` changes its norm, model.spt=True and model.lsa=True add the options
# for small data.
_base_ = ["./swin-pico-ape-p4-w4_3e_cifar10.py"]

model = dict(
    _delete_=True,
    type="ConvertedModel",
    data_preprocessor=dict(num_classes=10, mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], to_rgb=True),
    model=dict(
        type="TimmClassifier",
        model_name="vit_tiny_patch16_224",
        img_size=32,
        patch_size=4,
        embed_dim=64,
        depth=4,
        num_heads=4,
        mlp_ratio=2,
        num_classes=10,
        loss=dict(type="CrossEntropyLoss"),
    ),
    norm_cfg=dict(type="LN", init="local"),
    spt=False,
    lsa=False,
)
