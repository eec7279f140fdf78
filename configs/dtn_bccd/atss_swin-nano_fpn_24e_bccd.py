# The LayerNorm twin: same class and code path as the DTN detector, with no DTN stage.
_base_ = ["mmdet::atss/atss_r50_fpn_1x_coco.py", "../_base_/dtn_import.py"]

data_root = "data/bccd/"
classes = ("RBC", "WBC", "Platelets")
max_epochs = 24
gn = dict(type="GN", num_groups=8, requires_grad=True)

model = dict(
    data_preprocessor=dict(pad_size_divisor=4),
    backbone=dict(
        _delete_=True,
        type="DTNSwinTransformer",
        embed_dims=32,
        depths=(1, 1, 2, 1),
        num_heads=(2, 4, 8, 16),
        window_size=5,
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

# The photographs are 640 x 480.
scale = (320, 240)
metainfo = dict(classes=classes)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=scale, keep_ratio=True),
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
        data_prefix=dict(img="images/"),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="images/"),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/instances_test.json",
        data_prefix=dict(img="images/"),
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = dict(ann_file=data_root + "annotations/instances_test.json")

train_cfg = dict(max_epochs=max_epochs, val_interval=6)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={"pos_proj": dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
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
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=6, max_keep_ckpts=2))
auto_scale_lr = dict(enable=False, base_batch_size=4)
randomness = dict(seed=0)
