# The recipe of the Swin authors (four shared convolutions, GIoU loss, multi-scale crops, 36 epochs) is that of
# MMDetection's ConvNeXt config, which serves as the base; the backbone and the optimizer are Swin's.
_base_ = [
    "mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py",
    "../_base_/dtn_paramwise.py",
]
# Not from _base_/dtn_import.py: the ConvNeXt config sets this key too, and two bases must not.
custom_imports = dict(imports=["dtn_det"], allow_failed_imports=False)

checkpoint_file = "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth"
model = dict(
    backbone=dict(
        _delete_=True,
        type="DTNSwinTransformer",
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        mlp_ratio=4,
        qkv_bias=True,
        qk_scale=None,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.2,
        patch_norm=True,
        out_indices=(0, 1, 2, 3),
        with_cp=False,
        convert_weights=True,
        dtn_stages=(),
        init_cfg=dict(type="Pretrained", checkpoint=checkpoint_file),
    )
)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    paramwise_cfg=_base_.swin_paramwise_cfg,
    optimizer=dict(type="AdamW", lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05),
)
