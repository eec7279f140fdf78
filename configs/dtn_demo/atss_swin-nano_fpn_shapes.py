# The LayerNorm twin: same class and code path as the DTN detector, with no DTN stage.
_base_ = [
    "mmdet::atss/atss_r50_fpn_1x_coco.py",
    "../_base_/dtn_import.py",
    "../_base_/dtn_paramwise.py",
]

data_root = "data/shapes/"
classes = ("disc", "square", "triangle", "star", "ring", "cross")
max_epochs = 12
gn = dict(type="GN", num_groups=8, requires_grad=True)

model = dict(
    data_preprocessor=dict(pad_size_divisor=4),
    backbone=dict(
        _delete_=True,
        type="DTNSwinTransformer",
        embed_dims=32,
        depths=(1, 1, 2, 1),
        num_heads=(2, 4, 8, 16),
        window_size=4,
        mlp_ratio=2,
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
        dtn_stages=(),
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, norm_cfg=gn, num_outs=4),
    bbox_head=dict(
        num_classes=len(classes),
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(strides=[8, 16, 32, 64], octave_base_scale=4),
    ),
)

metainfo = dict(classes=classes)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    # The images have this size; the step notes it for the head.
    dict(type="Resize", scale=(160, 128), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=_base_.swin_paramwise_cfg,
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(
        type="CosineAnnealingLR",
        by_epoch=True,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min=1e-5,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=2))
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=4)
