# ImageNet-1k as DeiT trains (arXiv:2012.12877), which the authors of DTN follow: 8 GPUs with 128 images each.
_base_ = [
    "mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py",
    "mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py",
    "mmpretrain::_base_/default_runtime.py",
    "./dtn_import.py",
    "./dtn_paramwise.py",
]

data_root = "data/imagenet/"
batch_size = 128
max_epochs = 300
warmup_epochs = 5

# Pixels, normalization, RandAugment and RandomErasing are those of the base; Mixup or CutMix for every batch.
data_preprocessor = dict(batch_augments=dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)]))
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(data_root=data_root),
    sampler=dict(_delete_=True, type="RepeatAugSampler"),
)
val_dataloader = dict(batch_size=batch_size, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type="OptimWrapper",
    # The authors' 5e-4 is for 512 images, as in DeiT.
    optimizer=dict(lr=5e-4 * 1024 / 512, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, **_base_.deit_paramwise_cfg),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=warmup_epochs, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        T_max=max_epochs - warmup_epochs,
        eta_min=1e-5,
    ),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
# Checkpoints hold the average as `state_dict`. Both are measured.
custom_hooks = [dict(type="ClassifierEMAHook", momentum=4e-5, evaluate_on_origin=True, priority="ABOVE_NORMAL")]
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=3))
auto_scale_lr = dict(enable=False, base_batch_size=1024)
randomness = dict(seed=0)
