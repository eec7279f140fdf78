# The LayerNorm twin: same class and code path as the DTN classifier, with no DTN stage.
_base_ = ["mmpretrain::_base_/default_runtime.py", "../_base_/dtn_import.py"]

data_root = "data/cifar10/"
batch_size = 64
max_epochs = 8

model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(
        num_classes=10,
        # Of the training images, in RGB.
        mean=[125.3, 123.0, 113.9],
        std=[63.0, 62.1, 66.7],
        to_rgb=True,
    ),
    backbone=dict(
        type="mmdet.DTNSwinTransformer",
        pretrain_img_size=32,
        embed_dims=64,
        patch_size=4,
        strides=(4, 2),
        depths=(1, 1),
        num_heads=(2, 4),
        window_size=4,
        mlp_ratio=2,
        drop_path_rate=0.0,
        out_indices=(1,),
        dtn_stages=(),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=10, in_channels=128, loss=dict(type="CrossEntropyLoss")),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomCrop", crop_size=32, padding=2),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="CustomDataset", data_root=data_root, data_prefix="train", pipeline=train_pipeline),
)
test_dataloader = dict(
    batch_size=batch_size,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="CustomDataset", data_root=data_root, data_prefix="test", pipeline=test_pipeline),
)
val_dataloader = test_dataloader
test_evaluator = dict(type="Accuracy", topk=(1, 5))
val_evaluator = test_evaluator

train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=4)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05),
    # No decay on the norms' weight, bias and gates; DTN's positional coefficients learn at a tenth of the rate.
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={"pos_proj": dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=200),
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
auto_scale_lr = dict(enable=False, base_batch_size=batch_size)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=4, max_keep_ckpts=1))
randomness = dict(seed=0)
